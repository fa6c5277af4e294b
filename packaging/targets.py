"""The four builds of the library, and what each packaging system calls them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    arch: str  # uname -m
    libc: str  # gnu or musl
    wheel: str  # platform tags of a wheel, without the architecture, comma-separated
    debian: str  # the architecture in Debian's words; empty where Debian has no such libc

    @property
    def name(self) -> str:
        return f"{self.arch}-linux-{self.libc}"

    @property
    def triple(self) -> str:
        """Cargo's name, which is also its target directory's."""
        return f"{self.arch}-unknown-linux-{self.libc}"

    @property
    def zig_triple(self) -> str:
        """The triple with the oldest C library to be served."""
        return self.triple + (f".{GLIBC}" if self.libc == "gnu" else "")

    @property
    def wheel_tag(self) -> str:
        return ".".join(f"{tag}_{self.arch}" for tag in self.wheel.split(","))

    @property
    def jar_dir(self) -> str:
        """Where the library lies in the jar: NativeFile.java looks there."""
        return f"org/jepsenantithesis/native/{self.name}"


GLIBC = "2.17"

TARGETS = [
    Target("x86_64", "gnu", "manylinux_2_17,manylinux2014", "amd64"),
    Target("aarch64", "gnu", "manylinux_2_17,manylinux2014", "arm64"),
    Target("x86_64", "musl", "musllinux_1_2", ""),
    Target("aarch64", "musl", "musllinux_1_2", ""),
]
