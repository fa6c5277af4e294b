"""Builds the shared library and the command with Cargo, and puts both into the wheel.

The library is loaded with ctypes and knows nothing of Python, so that one wheel serves every
Python 3 of a platform. The command becomes a script of the environment.

Two variables make a wheel of files that are built already, for `make dist`:
JEPSEN_ANTITHESIS_PREBUILT, a directory with the library, the command and the rehearsal, and
JEPSEN_ANTITHESIS_PLATFORM, the wheel's platform tag. A wheel that is built from source has no
rehearsal, which takes some times as long to build as the rest.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import SetupError

# Comes with setuptools, which must be imported first from Python 3.12 on.
from distutils.command.build_scripts import build_scripts  # isort: skip

LIBRARY = "libjepsen_antithesis"
COMMAND = "jepsen-composer"
REHEARSE = "jepsen-composer-rehearse"
HERE = Path(__file__).resolve().parent
# In a source distribution the core's sources lie in `rust`, in a checkout above this directory.
RUST = next((d for d in (HERE / "rust", HERE.parents[1]) if (d / "Cargo.toml").is_file()), None)
# What Cargo needs of a checkout; those of them that there are.
RUST_SOURCES = (
    *("Cargo.toml", "Cargo.lock", "build.rs", "cbindgen.toml", "LICENSE", "README.md"),
    *("CHANGELOG.md", "include", "src", "command", "rehearse", "composer"),
)


def prebuilt() -> Path | None:
    found = os.environ.get("JEPSEN_ANTITHESIS_PREBUILT")
    return Path(found) if found else None


PROGRAMS = [COMMAND, REHEARSE] if prebuilt() else [COMMAND]


def build(*argv: str) -> Path:
    """Runs cargo, or what runs it, and returns the directory with what it built."""
    if RUST is None:
        raise SetupError(
            f"the Rust sources are neither in {HERE / 'rust'} nor in {HERE.parents[1]}. Build from "
            "a checkout of the whole repository or from a source distribution, or install a wheel."
        )
    wanted = re.search(r'^rust-version = "(.*)"', (RUST / "Cargo.toml").read_text(), re.MULTILINE)
    version = wanted.group(1) if wanted else "a current version"
    remedy = (
        f"jepsen-antithesis is built from source here, which needs Rust {version} or newer "
        "(https://rustup.rs). There are wheels, which need no Rust, for Linux on x86_64 and "
        "aarch64, with glibc 2.17 or musl 1.2 or newer."
    )
    if shutil.which("cargo") is None:
        raise SetupError(f"cargo was not found. {remedy}")
    target = Path(os.environ.get("CARGO_TARGET_DIR") or RUST / "target").resolve()
    env = {
        **os.environ,
        "CARGO_TARGET_DIR": str(target),
        "MUSL": f"{platform.machine()}-unknown-linux-musl",
    }
    done = subprocess.run(argv, cwd=RUST, env=env)
    if done.returncode != 0:
        raise SetupError(f"{argv[0]} failed with status {done.returncode}; see above. {remedy}")
    return target / "release"


class BuildLibrary(build_ext):
    """Keeps the library's own name, which is no extension module's."""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"

    def build_extension(self, ext: Extension) -> None:
        package = ("--package", "jepsen-antithesis", "--lib")
        directory = prebuilt() or build("cargo", "build", "--release", "--locked", *package)
        to = Path(self.get_ext_fullpath(ext.name))
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(directory / f"{LIBRARY}.so", to)
        to.chmod(0o755)


class BuildCommand(build_scripts):
    """Copies the programs, where distutils would look for a script's first line."""

    def get_source_files(self) -> list[str]:
        return []

    def run(self) -> None:
        to = Path(self.build_dir).resolve()
        to.mkdir(parents=True, exist_ok=True)
        directory = prebuilt()
        if directory:
            for program in PROGRAMS:
                shutil.copyfile(directory / program, to / program)
        else:
            build("sh", "command/build", str(to / COMMAND))
        for program in PROGRAMS:
            (to / program).chmod(0o755)


class PlatformWheel(bdist_wheel):
    """A wheel for a platform, but for no version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", os.environ.get("JEPSEN_ANTITHESIS_PLATFORM") or super().get_tag()[2]


class WholeSource(sdist):
    """Adds the core's sources, in `rust`."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        if RUST is None:
            raise SetupError(
                "a source distribution is made from a checkout of the whole repository"
            )
        to = Path(base_dir) / "rust"
        to.mkdir()
        for name in RUST_SOURCES:
            if (RUST / name).is_dir():
                shutil.copytree(RUST / name, to / name, ignore=shutil.ignore_patterns("target"))
            elif (RUST / name).is_file():
                shutil.copyfile(RUST / name, to / name)


setup(
    cmdclass={
        "bdist_wheel": PlatformWheel,
        "build_ext": BuildLibrary,
        "build_scripts": BuildCommand,
        "sdist": WholeSource,
    },
    scripts=PROGRAMS,
    ext_modules=[Extension(f"jepsen_antithesis.{LIBRARY}", sources=[])],
)
