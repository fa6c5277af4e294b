"""Log files: what must not be in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..history import History
from ..types import Test
from .checking import UNKNOWN, Check, Opts, Result

# A log may have the pattern in every line, and a reader needs few of them.
_SHOWN = 1000


def log_file_pattern(pattern: str | re.Pattern[str], filename: str) -> Check:
    """No line of the nodes' log files has `pattern`, a regular expression of Python's ``re``.

    The files are ``<node>/<filename>`` in the test's directory, or `filename` itself if that is an
    absolute path, for all nodes. ``count`` is the number of lines that have it, and ``matches`` the
    first thousand, each with its node. A file that is not there has none, and its node is named in
    ``missing``. Bytes that are not UTF-8 are escaped with a backslash. Unknown without a directory.
    """
    compiled = re.compile(pattern)

    def check(test: Test, history: History, opts: Opts) -> Result:
        files: list[tuple[Any, Path]] = []
        if Path(filename).is_absolute():
            files.append((None, Path(filename)))
        elif opts.get("dir") is None:
            return {"valid": UNKNOWN, "error": "The test has no directory for its log files."}
        else:
            files += [
                (n, Path(opts["dir"], str(n), filename)) for n in dict.fromkeys(test["nodes"])
            ]
        count = 0
        matches: list[Result] = []
        missing: list[Any] = []
        for node, path in files:
            try:
                for line in _lines(path):
                    if compiled.search(line):
                        count += 1
                        if count <= _SHOWN:
                            matches.append({"node": node, "line": line})
            except FileNotFoundError:
                missing.append(node)
        result: Result = {"valid": not count, "count": count, "matches": matches}
        return {**result, "missing": missing} if missing else result

    return check


def _lines(path: Path) -> Iterator[str]:
    with open(path, encoding="utf-8", errors="backslashreplace", newline="\n") as lines:
        for line in lines:
            yield line.rstrip("\r\n")
