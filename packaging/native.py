"""Builds library and programs with cargo-zigbuild: zig's C libraries stand in for old systems.

The command and the rehearsal are static executables, linked with musl, one of each for an
architecture, and go into the packages for glibc too.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from project import ABI, COMMAND, LIBRARY, REHEARSE, ROOT, run
from targets import Target

CARGO_OUT = ROOT / "target" / "dist"


@dataclass(frozen=True)
class Built:
    target: Target
    shared: Path
    static: Path
    command: Path
    rehearse: Path


def build(target: Target, out: Path) -> Built:
    """The five files of one target, stripped, in `out`."""
    out.mkdir(parents=True)
    flags = _library_flags(target)
    _cargo("library", target.zig_triple, flags, "--package", "jepsen-antithesis", "--lib")
    static_triple = f"{target.arch}-unknown-linux-musl"
    # As in command/build.
    flags = ["-C", "relocation-model=static"]
    _cargo("command", static_triple, flags, "--package", COMMAND, "--bin", COMMAND)
    # It is no test command: it need not start fast, and is built in a third of the time.
    _cargo("rehearse", static_triple, flags, "--package", REHEARSE, profile="tool")

    built = Built(
        target,
        out / f"{LIBRARY}.so.{ABI}",
        out / f"{LIBRARY}.a",
        out / COMMAND,
        out / REHEARSE,
    )
    release = CARGO_OUT / "library" / target.triple / "release"
    _strip("--strip-all", release / f"{LIBRARY}.so", built.shared)
    if target.libc == "musl":
        # Alpine's name for it, which every musl takes for its own; "libc.so" is zig's, and on a
        # glibc system the linker's script.
        run(
            "patchelf", "--replace-needed", "libc.so", f"libc.musl-{target.arch}.so.1", built.shared
        )
    _strip("--strip-debug", release / f"{LIBRARY}.a", built.static)
    _strip(
        "--strip-all", CARGO_OUT / "command" / static_triple / "release" / COMMAND, built.command
    )
    _strip(
        "--strip-all", CARGO_OUT / "rehearse" / static_triple / "tool" / REHEARSE, built.rehearse
    )
    return built


def unit_tests(target: Target, package: str) -> Path:
    """The unit tests of a package, one program for the target, built as the library is."""
    args = ("--package", package, "--lib", "--no-run", "--message-format", "json")
    flags = _library_flags(target)
    said = _cargo("library", target.zig_triple, flags, *args, subcommand="test")
    messages = [json.loads(line) for line in said.splitlines()]
    (program,) = [message["executable"] for message in messages if message.get("executable")]
    return Path(program)


def _library_flags(target: Target) -> list[str]:
    # Rust drops the shared library for musl when the C library is linked statically.
    return ["-C", "target-feature=-crt-static"] if target.libc == "musl" else []


def _cargo(
    what: str,
    triple: str,
    flags: list[str],
    *args: str,
    subcommand: str = "zigbuild",
    profile: str = "release",
) -> str:
    home = os.environ.get("CARGO_HOME") or str(Path.home() / ".cargo")
    # No path of this machine is left in the files: the same sources give the same bytes anywhere.
    flags = [*flags, f"--remap-path-prefix={ROOT}=.", f"--remap-path-prefix={home}=cargo"]
    return run(
        *("cargo-zigbuild", subcommand, "--profile", profile, "--locked"),
        *("--target", triple, *args),
        env={
            "CARGO_TARGET_DIR": str(CARGO_OUT / what),
            "CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags),
            "CARGO_TERM_QUIET": "true",
        },
    )


def _strip(how: str, file: Path, to: Path) -> None:
    # Rust's own, which knows every architecture and archives.
    libdir = Path(run("rustc", "--print", "target-libdir").strip())
    sysroot = Path(run("rustc", "--print", "sysroot").strip())
    objcopy = libdir.parent / "bin" / "rust-objcopy"
    if not objcopy.exists():
        raise SystemExit(
            f"dist: {objcopy} is not there to strip the files with. Install Rust with rustup."
        )
    run(objcopy, how, file, to, env={"LD_LIBRARY_PATH": str(sysroot / "lib")})
    to.chmod(0o755 if how == "--strip-all" else 0o644)
