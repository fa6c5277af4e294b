"""Archives that depend on nothing but their members' names, modes and bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path


def tar_gz(root: Path, prefix: str, date: int) -> bytes:
    """Everything below `root`, as `prefix`/…, owned by root and dated `date`."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for path in [root, *sorted(root.rglob("*"))]:
            name = prefix if path == root else f"{prefix}/{path.relative_to(root)}"
            info = tar.gettarinfo(path, name)
            # Hard links would depend on what else has been added.
            if path.is_file() and not path.is_symlink():
                info.type, info.size, info.linkname = tarfile.REGTYPE, path.stat().st_size, ""
            info.uid = info.gid = 0
            info.uname = info.gname = "root"
            info.mtime = date
            if info.isreg():
                with path.open("rb") as file:
                    tar.addfile(info, file)
            else:
                tar.addfile(info)
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=date, filename="") as packed:
        packed.write(plain.getvalue())
    return out.getvalue()


def sha256sums(files: Iterable[Path]) -> str:
    """What `sha256sum --check` reads."""
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files
    )
