"""Takes the shared library along: PyInstaller sees no import of what ctypes loads."""

from PyInstaller.utils.hooks import collect_dynamic_libs

binaries = collect_dynamic_libs("jepsen_antithesis")
