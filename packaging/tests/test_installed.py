"""Tarballs and Debian packages, installed and built against."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import every_target
from environment import Environment
from project import ABI, COMMAND, LIBRARY, REHEARSE, ROOT, VERSION
from targets import TARGETS, Target

HERE = f"{platform.machine()}-linux-gnu"
here = pytest.mark.parametrize("target", [HERE], indirect=True)

CMAKE = """\
cmake_minimum_required(VERSION 3.13)
project(bank C)
find_package(jepsen-antithesis %s REQUIRED)
find_library(SQLITE sqlite3 REQUIRED)
add_executable(bank bank.c)
target_link_libraries(bank jepsen-antithesis::%s ${SQLITE})
"""


def needs_sqlite() -> None:
    if (
        shutil.which("pkg-config") is None
        or subprocess.run(["pkg-config", "--exists", "sqlite3"]).returncode
    ):
        pytest.skip("the C bank needs pkg-config and SQLite's header (libsqlite3-dev)")


@every_target
def test_a_tarball_holds_everything(target: Target, prefix: Path) -> None:
    names = {str(path.relative_to(prefix)) for path in prefix.rglob("*") if not path.is_dir()}
    composer = "share/jepsen-antithesis/composer"
    assert names >= {
        *(
            "LICENSE",
            "LICENSE-THIRD-PARTY",
            "README.md",
            "CHANGELOG.md",
            f"bin/{COMMAND}",
            "include/jepsen_antithesis.h",
        ),
        f"bin/{REHEARSE}",
        *(f"lib/{LIBRARY}.a", f"lib/{LIBRARY}.so", f"lib/{LIBRARY}.so.{ABI}"),
        *("lib/pkgconfig/jepsen-antithesis.pc", f"{composer}/op", f"{composer}/check"),
        "lib/cmake/jepsen-antithesis/jepsen-antithesis-config.cmake",
        "lib/cmake/jepsen-antithesis/jepsen-antithesis-config-version.cmake",
        *(f"share/man/man1/{COMMAND}.1", "share/man/man3/jepsen_antithesis.3"),
    }
    assert (prefix / f"lib/{LIBRARY}.so").resolve().name == f"{LIBRARY}.so.{ABI}.{VERSION}"
    for path in prefix.rglob("*"):
        if path.suffix in (".pc", ".cmake"):
            assert not [
                line for line in path.read_text().splitlines() if "@" in line or "/tmp/" in line
            ]


# Static programs: those for musl run here, too.
@pytest.mark.parametrize(
    "target", [t.name for t in TARGETS if t.arch == platform.machine()], indirect=True
)
def test_a_tarball_rehearses(target: Target, prefix: Path, tmp_path: Path) -> None:
    Environment(tmp_path).rehearse(prefix / "bin" / COMMAND)


def run_c_bank(it: Environment, program: Path, command: Path | str) -> None:
    it.bank(program, "--exit-after-check", "bank.db", "history", command=command)


@here
def test_pkg_config_finds_a_tarball(prefix: Path, tmp_path: Path) -> None:
    needs_sqlite()
    it = Environment(tmp_path, variables={"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")})
    shutil.copytree(ROOT / "examples/c", tmp_path / "c", ignore=shutil.ignore_patterns("bank"))
    it.must("make", "-s", "-C", "c")
    assert it.must("pkg-config", "--modversion", "jepsen-antithesis").strip() == VERSION
    run_c_bank(it, tmp_path / "c/bank", prefix / "bin" / COMMAND)


@here
@pytest.mark.parametrize("kind", ["shared", "static"])
def test_cmake_finds_a_tarball(kind: str, prefix: Path, tmp_path: Path) -> None:
    needs_sqlite()
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    it = Environment(tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE % (VERSION, kind))
    shutil.copy(ROOT / "examples/c/bank.c", tmp_path)
    it.must("cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    it.must("cmake", "--build", "build")
    linked = it.must("ldd", "build/bank")
    assert (LIBRARY in linked) == (kind == "shared"), linked
    run_c_bank(it, tmp_path / "build/bank", prefix / "bin" / COMMAND)


@here
def test_cmake_refuses_a_newer_version(prefix: Path, tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("no cmake")
    it = Environment(tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(CMAKE % ("0.999", "shared"))
    done = it.run("cmake", "-S", ".", "-B", "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    assert done.returncode != 0
    assert VERSION in done.stderr, done.stderr


@here
def test_manual_pages_are_well_formed(prefix: Path) -> None:
    if shutil.which("groff") is None:
        pytest.skip("no groff")
    help = subprocess.run(
        [prefix / "bin" / COMMAND, "--help"], capture_output=True, text=True
    ).stdout
    for page in (prefix / "share/man").rglob("*.[13]"):
        done = subprocess.run(
            ["groff", "-man", "-Tascii", "-P-c", "-ww", page], capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stderr == "", done.stderr
        if page.suffix == ".1":
            # Every line of --help, whatever troff does about spaces.
            shown = " ".join(done.stdout.split())
            for line in help.splitlines()[1:]:
                assert " ".join(line.split()) in shown, line


def test_the_sums_are_right(dist: Path) -> None:
    done = subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=dist)
    assert done.returncode == 0
    listed = {line.split("  ")[1] for line in (dist / "SHA256SUMS").read_text().splitlines()}
    assert listed == {file.name for file in dist.iterdir()} - {"SHA256SUMS"}


def deb_of(target: Target, dist: Path) -> Path:
    return dist / f"jepsen-antithesis_{VERSION}_{target.debian}.deb"


debian_targets = pytest.mark.parametrize(
    "target", [target.name for target in TARGETS if target.debian], indirect=True
)


@debian_targets
def test_a_debian_package_installs_and_is_removed(
    target: Target, dist: Path, prefix: Path, tmp_path: Path
) -> None:
    if shutil.which("dpkg") is None:
        pytest.skip("no dpkg")
    root = tmp_path / "root"
    (root / "var/lib/dpkg/updates").mkdir(parents=True)
    (root / "var/lib/dpkg/info").mkdir()
    for name in ("status", "available"):
        (root / "var/lib/dpkg" / name).touch()
    (root / "var/lib/dpkg/arch").write_text(f"{TARGETS[0].debian}\n{target.debian}\n")
    dpkg = [
        "dpkg",
        f"--root={root}",
        "--force-not-root",
        "--force-depends",
        "--force-script-chrootless",
    ]
    subprocess.run(
        [*dpkg, "--install", deb_of(target, dist)], check=True, stdout=subprocess.DEVNULL
    )
    libdir = root / f"usr/lib/{target.arch}-linux-gnu"
    for ours, tarballs in (
        (libdir / f"{LIBRARY}.so.{ABI}", f"lib/{LIBRARY}.so"),
        (root / "usr/bin" / COMMAND, f"bin/{COMMAND}"),
        (root / "usr/bin" / REHEARSE, f"bin/{REHEARSE}"),
    ):
        assert ours.read_bytes() == (prefix / tarballs).read_bytes()
    said = subprocess.run(
        [
            "dpkg-query",
            f"--admindir={root}/var/lib/dpkg",
            "--show",
            "--showformat",
            "${Version} ${db:Status-Abbrev}",
            "jepsen-antithesis",
        ],
        capture_output=True,
        text=True,
    ).stdout
    assert said.split() == [VERSION, "ii"]

    if target.name == HERE:
        needs_sqlite()
        it = Environment(
            tmp_path,
            variables={
                "PKG_CONFIG_PATH": f"{libdir}/pkgconfig",
                # The package's own paths begin with /usr.
                "PKG_CONFIG_SYSROOT_DIR": str(root),
                "LD_LIBRARY_PATH": str(libdir),
            },
        )
        flags = it.must("pkg-config", "--cflags", "--libs", "jepsen-antithesis").split()
        if not [flag for flag in flags if flag.startswith("-L")]:
            flags = [f"-I{root}/usr/include", f"-L{libdir}", *flags]  # pkg-config leaves /usr out.
        it.must("cc", "-pthread", ROOT / "examples/c/bank.c", "-o", "bank", *flags, "-lsqlite3")
        run_c_bank(it, tmp_path / "bank", root / "usr/bin" / COMMAND)
        it.rehearse(root / "usr/bin" / COMMAND)

    subprocess.run([*dpkg, "--remove", "jepsen-antithesis"], check=True, stdout=subprocess.DEVNULL)
    assert not (root / "usr/bin" / COMMAND).exists()


# The command is static on purpose, and the project has no mail address.
ACCEPTED = {"statically-linked-binary", "bogus-mail-host", "bogus-mail-host-in-debian-changelog"}


@pytest.mark.slow
@debian_targets
def test_lintian_finds_no_error(target: Target, dist: Path) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("no lintian")
    said = subprocess.run(
        ["lintian", "--allow-root", "--no-cfg", "--tag-display-limit", "0", deb_of(target, dist)],
        capture_output=True,
        text=True,
    ).stdout
    print(said)
    errors = [line for line in said.splitlines() if line.startswith("E:")]
    assert [line for line in errors if line.split()[2] not in ACCEPTED] == []
