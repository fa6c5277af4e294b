"""Builds the shared library with Cargo, and puts it into the wheel beside the module.

The library is loaded with ctypes: it knows nothing of Python, and so the wheel is one for every
Python 3 of a platform.
"""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools_rust import Binding, RustExtension
from setuptools_rust.setuptools_ext import setup as _  # noqa: F401

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]
