"""A Debian package for each architecture with glibc, of the same tree as the tarballs.

One package holds library, header and programs: who writes a harness wants all of them, and nothing
else in Debian needs the library alone.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import textwrap
import time
from email.utils import formatdate
from pathlib import Path

import licences
import tree
from native import Built
from project import ABI, LIBRARY, ROOT, SUMMARY, VERSION, run
from targets import GLIBC

NAME = "jepsen-antithesis"


def package(built: Built, host: Built, work: Path, dist: Path, date: int) -> None:
    libdir = f"/usr/lib/{built.target.arch}-linux-gnu"
    tree.install(built, host, work, date, PREFIX="/usr", LIBDIR=libdir)
    for page in (work / "usr/share/man").rglob("*.[0-9]"):
        _gzip(page, page.read_bytes())
        page.unlink()
    doc = work / "usr/share/doc" / NAME
    doc.mkdir(parents=True)
    (doc / "copyright").write_text(_copyright(date))
    (doc / licences.NAME).write_text(licences.third_party())
    (doc / "README.md").write_bytes((ROOT / "README.md").read_bytes())
    _gzip(doc / "changelog", _changelog(date).encode())

    control = work / "DEBIAN"
    control.mkdir()
    size = sum(f.stat().st_size for f in work.rglob("*") if f.is_file() and not f.is_symlink())
    files = sorted(f for f in work.rglob("*") if f.is_file() and not f.is_symlink())
    (control / "md5sums").write_text(
        "".join(
            f"{hashlib.md5(f.read_bytes()).hexdigest()}  {f.relative_to(work)}\n" for f in files
        )
    )
    (control / "shlibs").write_text(f"{LIBRARY} {ABI} {NAME} (>= {VERSION})\n")
    (control / "triggers").write_text("activate-noawait ldconfig\n")
    (control / "control").write_text(
        textwrap.dedent(f"""\
            Package: {NAME}
            Version: {VERSION}
            Section: libdevel
            Priority: optional
            Architecture: {built.target.debian}
            Maintainer: The jepsen-antithesis developers <jepsen-antithesis@localhost>
            Installed-Size: {(size + 1023) // 1024}
            Depends: libc6 (>= {GLIBC})
            Description: {SUMMARY}
             Antithesis tests a system in a deterministic hypervisor and drives it with
             short-lived test commands. A Jepsen-style test is one long-lived process. This
             library joins the two: each command becomes an operation of the test.
             .
             The package holds the C library, its header, the command jepsen-composer, and
             jepsen-composer-rehearse, which plays Antithesis' Test Composer.
            """)
    )
    for path in [work, *work.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (date, date), follow_symlinks=False)
    run(
        *("dpkg-deb", "--root-owner-group", "-Zxz", "--build", work, dist),
        env={"SOURCE_DATE_EPOCH": str(date)},
    )


def _gzip(path: Path, data: bytes) -> None:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(data, mtime=0))
    packed.chmod(0o644)


def _changelog(date: int) -> str:
    """Debian's form; what changed is told in the project's own."""
    return (
        f"{NAME} ({VERSION}) unstable; urgency=medium\n\n"
        f"  * See CHANGELOG.md of this release.\n\n"
        f" -- The jepsen-antithesis developers <jepsen-antithesis@localhost>  {formatdate(date)}\n"
    )


def _copyright(date: int) -> str:
    return (
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n"
        f"Upstream-Name: {NAME}\n\n"
        "Files: *\n"
        f"Copyright: {time.gmtime(date).tm_year} The jepsen-antithesis developers\n"
        "License: Apache-2.0\n"
        " On Debian systems, the full text of the Apache License 2.0 is in\n"
        " /usr/share/common-licenses/Apache-2.0.\n"
        "Comment:\n"
        f" What is compiled in, and its licences, is in /usr/share/doc/{NAME}/{licences.NAME}.\n"
    )
