"""Builds the shared library with Cargo, and puts it into the wheel beside the module.

The library is loaded with ctypes and knows nothing of Python, so that one wheel serves every
Python 3 of a platform.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools_rust import Binding, RustExtension

CHECKOUT = Path(__file__).resolve().parents[2]
LIBRARY = "libjepsen_antithesis"

if not (CHECKOUT / "Cargo.toml").is_file():
    raise SystemExit(
        f"The library's sources are not in {CHECKOUT}. Build from a checkout of the whole "
        "repository (pip install ./bindings/python), or install a wheel."
    )


class PlainLibrary(build_ext):
    """Keeps the library's own name, which is no extension module's."""

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"


class PlatformWheel(bdist_wheel):
    """A wheel for a platform, but for no version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


setup(
    cmdclass={"bdist_wheel": PlatformWheel, "build_ext": PlainLibrary},
    rust_extensions=[
        RustExtension(
            f"jepsen_antithesis.{LIBRARY}",
            path=str(CHECKOUT / "Cargo.toml"),
            binding=Binding.NoBinding,
            debug=False,
            args=["--locked"],
        )
    ],
)
