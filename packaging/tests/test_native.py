"""What the binaries ask of a system, and what they are made of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import every_target
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from project import ABI, COMMAND, LIBRARY, REHEARSE, ROOT
from targets import GLIBC, Target

# With the dynamic loader, every glibc system has these; since 2.34 they are one file.
GLIBC_NEEDED = {
    "libc.so.6",
    "libpthread.so.0",
    "libdl.so.2",
    "ld-linux-x86-64.so.2",
    "ld-linux-aarch64.so.1",
}
MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


@every_target
def test_the_library_needs_the_c_library_alone(target: Target, prefix: Path) -> None:
    with (prefix / f"lib/{LIBRARY}.so").open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_machine"] == MACHINES[target.arch]
        dynamic = elf.get_section_by_name(".dynamic")
        assert isinstance(dynamic, DynamicSection)
        needed = {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")}
        (soname,) = dynamic.iter_tags("DT_SONAME")
        assert soname.soname == f"{LIBRARY}.so.{ABI}"
        versions = [
            version.name.removeprefix("GLIBC_")
            for section in elf.iter_sections()
            if isinstance(section, GNUVerNeedSection)
            for _, all in section.iter_versions()
            for version in all
        ]
        if target.libc == "musl":
            assert needed == {f"libc.musl-{target.arch}.so.1"}
            assert versions == []
            highest = "none"
        else:
            assert needed <= GLIBC_NEEDED
            highest = max(versions, key=numbers)
            assert numbers(highest) <= numbers(GLIBC)
        symbols = elf.get_section_by_name(".dynsym")
        exported = {
            symbol.name
            for symbol in symbols.iter_symbols()
            if symbol["st_shndx"] != "SHN_UNDEF" and symbol["st_info"]["bind"] != "STB_LOCAL"
        }
        declared = set(
            re.findall(r"\b(jep_\w+)\(", (prefix / "include/jepsen_antithesis.h").read_text())
        )
        assert {name for name in exported if not name.startswith("jep_")} == set()
        assert exported == declared
        assert elf.get_section_by_name(".symtab") is None, "not stripped"
    size = (prefix / f"lib/{LIBRARY}.so").stat().st_size
    print(f"{target.name}: {size:,} bytes, needs {sorted(needed)}, highest version {highest}")
    assert size < 1_000_000


@pytest.mark.parametrize(("program", "most"), [(COMMAND, 1_000_000), (REHEARSE, 4_000_000)])
@every_target
def test_a_program_needs_nothing(target: Target, prefix: Path, program: str, most: int) -> None:
    command = prefix / "bin" / program
    with command.open("rb") as file:
        elf = ELFFile(file)
        assert elf["e_machine"] == MACHINES[target.arch]
        assert elf.get_section_by_name(".interp") is None
        dynamic = elf.get_section_by_name(".dynamic")
        assert dynamic is None or list(dynamic.iter_tags("DT_NEEDED")) == []
        assert elf.get_section_by_name(".symtab") is None, "not stripped"
    print(f"{target.name}: {command.stat().st_size:,} bytes")
    assert command.stat().st_size < most


@every_target
def test_no_file_tells_where_it_was_built(target: Target, prefix: Path) -> None:
    for name in (f"lib/{LIBRARY}.so", f"lib/{LIBRARY}.a", f"bin/{COMMAND}", f"bin/{REHEARSE}"):
        data = (prefix / name).read_bytes()
        for path in (ROOT, Path.home() / ".cargo"):
            assert bytes(path) not in data, f"{name} holds {path}"
