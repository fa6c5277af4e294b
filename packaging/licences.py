"""The licences of what is compiled into library and programs, as every package has them."""

from __future__ import annotations

import functools
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from project import run

NAME = "LICENSE-THIRD-PARTY"

_OURS = "Apache-2.0"


@functools.cache
def third_party() -> str:
    """The text: what is used under the project's own licence, then the texts of all others."""
    crates = sorted(_crates(), key=lambda crate: (crate["name"], crate["version"]))
    ours = [crate for crate in crates if _OURS in re.split(r"[ /()]+", crate["license"])]
    named = "".join(f"  {crate['name']} {crate['version']}\n" for crate in ours)
    parts = [
        "Library and programs contain the following.\n",
        f"Under the Apache License 2.0, which is in LICENSE:\n\n  Rust's standard library\n{named}",
    ]
    for crate in crates:
        if crate not in ours:
            texts = "\n".join(_texts(crate))
            title = f"{crate['name']} {crate['version']}, {crate['license']}"
            parts.append(f"{title}:\n\n{texts}")
    # What zig links: musl into static programs, and a few functions of its compiler's.
    spec = importlib.util.find_spec("ziglang")
    if spec is None or spec.origin is None:
        raise SystemExit("dist: ziglang is not installed, whose licences belong into the packages")
    zig = Path(spec.origin).parent
    parts.append(f"musl:\n\n{(zig / 'lib/libc/musl/COPYRIGHT').read_text()}")
    parts.append(f"zig's compiler_rt:\n\n{(zig / 'LICENSE').read_text()}")
    return f"\n{'-' * 80}\n\n".join(parts)


def _crates() -> Iterator[dict[str, Any]]:
    """The crates of others that are linked into what is built for a machine with Linux."""
    metadata = json.loads(
        run(
            *("cargo", "metadata", "--locked", "--format-version", "1"),
            *("--filter-platform", "x86_64-unknown-linux-musl"),
        )
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    todo = list(metadata["workspace_members"])
    seen = set(todo)
    while todo:
        id = todo.pop()
        if id not in metadata["workspace_members"]:
            yield packages[id]
        for dependency in nodes[id]["deps"]:
            linked = any(kind["kind"] is None for kind in dependency["dep_kinds"])
            targets = packages[dependency["pkg"]]["targets"]
            # A macro runs in the compiler.
            is_macro = any("proc-macro" in target["kind"] for target in targets)
            if linked and not is_macro and dependency["pkg"] not in seen:
                seen.add(dependency["pkg"])
                todo.append(dependency["pkg"])


def _texts(crate: dict[str, Any]) -> list[str]:
    directory = Path(crate["manifest_path"]).parent
    kept = re.compile(r"(licen[cs]e|copying|copyright|unlicense|notice)", re.IGNORECASE)
    files = sorted(path for path in directory.iterdir() if kept.match(path.name))
    if not files:
        raise SystemExit(
            f"dist: {crate['name']} {crate['version']} comes without the text of its licence, "
            f"{crate['license']}, which belongs into the packages"
        )
    return [path.read_text() for path in files if path.is_file()]


if __name__ == "__main__":
    print(third_party(), end="")
