"""The binding and the header say the same, and what cannot be loaded is explained."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from driving import HERE, Driver

from jepsen_antithesis import _abi, errors
from jepsen_antithesis.composer import Kind, Phase

HEADER = (HERE.parents[2] / "include" / "jepsen_antithesis.h").read_text()
CODE = re.sub(r"//[^\n]*|/\*.*?\*/", "", HEADER, flags=re.S)
DEFINES = {name: int(value) for name, value in re.findall(r"#define JEP_(\w+) \(?(-?\d+)\)?", CODE)}

C_TYPES: dict[str, Any] = {
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "int64_t": ctypes.c_int64,
    "uint64_t": ctypes.c_uint64,
    "uint64_t*": ctypes.POINTER(ctypes.c_uint64),
    "void": None,
    "const char*": ctypes.c_char_p,
    "char*": ctypes.c_char_p,
    "const uint8_t*": ctypes.c_char_p,
    "jep_composer*": _abi.ComposerPointer,
    "const jep_composer*": _abi.ComposerPointer,
    "jep_composer**": ctypes.POINTER(_abi.ComposerPointer),
    "jep_fifo_op*": ctypes.POINTER(_abi.FifoOpStruct),
}


def c_type(text: str) -> Any:
    return C_TYPES[re.sub(r"\s*\*", "*", " ".join(text.replace("struct ", "").split()))]


def test_functions() -> None:
    declared = {}
    pattern = r"^([a-z][\w ]*?[ *]+)(jep_\w+)\s*\(([^)]*)\);"
    for result, name, parameters in re.findall(pattern, CODE, flags=re.M):
        arguments = [p for p in parameters.split(",") if p.strip() not in ("", "void")]
        # Each parameter ends with its name.
        types = tuple(c_type(re.sub(r"\w+\s*$", "", p.strip())) for p in arguments)
        declared[name] = (c_type(result.strip()), types)
    assert declared == _abi.PROTOTYPES


def test_errors() -> None:
    expected = {value: name for name, value in DEFINES.items() if name.startswith("ERR_")}
    found = {
        code: re.sub(r"(?<!^)([A-Z])", r"_\1", cls.__name__.removesuffix("Error")).upper()
        for code, cls in errors.BY_CODE.items()
        if code < 0
    }
    assert {code: f"ERR_{name}" for code, name in found.items()} == expected


@pytest.mark.parametrize("name", ["OK", "TIMEOUT", "WOKEN", "PENDING", "ABANDONED", "CLOSED"])
def test_results(name: str) -> None:
    assert getattr(_abi, name) == DEFINES[name]


def test_kinds_and_phases() -> None:
    assert {f"KIND_{k.name}": k for k in Kind} == {
        k: v for k, v in DEFINES.items() if k.startswith("KIND_")
    }
    assert {f"PHASE_{p.name}": p for p in Phase} == {
        k: v for k, v in DEFINES.items() if k.startswith("PHASE_")
    }


def test_wants() -> None:
    assert {k: v for k, v in DEFINES.items() if k.startswith("WANT_")} == {
        "WANT_OP": _abi.WANT_OP,
        "WANT_CHECK": _abi.WANT_CHECK,
    }


def test_version() -> None:
    assert DEFINES["ABI_VERSION"] == _abi.ABI_VERSION
    assert _abi.library().abi_version() == _abi.ABI_VERSION


def test_struct(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to ask for the struct's layout")
    fields = [name for name, _ in _abi.FifoOpStruct._fields_]
    prints = "".join(f'printf("%zu ", offsetof(jep_fifo_op, {name}));' for name in fields)
    source = tmp_path / "layout.c"
    source.write_text(
        "#include <stdio.h>\n#include <stddef.h>\n#include <jepsen_antithesis.h>\n"
        f'int main(void) {{ {prints} printf("%zu", sizeof(jep_fifo_op)); }}'
    )
    include = HERE.parents[2] / "include"
    subprocess.run(
        [compiler, f"-I{include}", str(source), "-o", str(tmp_path / "layout")], check=True
    )
    layout = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True)
    offsets = [getattr(_abi.FifoOpStruct, name).offset for name in fields]
    assert layout.stdout.split() == [*map(str, offsets), str(ctypes.sizeof(_abi.FifoOpStruct))]


OPEN = "from jepsen_antithesis import Composer; Composer()"


class TestLoading:
    @staticmethod
    def error(driver: Driver, path: str) -> str:
        script = driver.python("-c", OPEN, JEPSEN_ANTITHESIS_LIB=path)
        _, err = script.process.communicate()
        assert script.process.returncode == 1
        assert "jepsen_antithesis.errors.LibraryError: " in err
        return err

    def test_a_library_that_is_not_there(self, driver: Driver) -> None:
        error = self.error(driver, "/nowhere/libjepsen_antithesis.so")
        assert "/nowhere/libjepsen_antithesis.so (named by JEPSEN_ANTITHESIS_LIB)" in error
        assert "make lib" in error

    def test_a_file_that_is_no_library(self, driver: Driver) -> None:
        path = driver.tmp / "text.so"
        path.write_text("text")
        assert f"{path} (named by JEPSEN_ANTITHESIS_LIB): {path}: " in self.error(driver, str(path))

    def test_another_library(self, driver: Driver) -> None:
        (libc,) = {
            line.split()[-1]
            for line in Path("/proc/self/maps").read_text().splitlines()
            if re.search(r"/libc[.-].*so", line)
        }
        error = self.error(driver, libc)
        assert f"{libc} is not libjepsen_antithesis" in error

    def test_another_version(self, driver: Driver) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("no C compiler to make a library of another version")
        source = driver.tmp / "other.c"
        source.write_text("unsigned jep_abi_version(void) { return 77; }")
        library = driver.tmp / "other.so"
        subprocess.run([compiler, "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
        error = self.error(driver, str(library))
        assert "has version 77 of the binary interface" in error
        assert "needs version 1" in error
