"""The store in a browser: a table of runs, their verdicts and their files.

``python -m jepsen_antithesis serve``, or `cli.serve_cmd` beside a test's own commands.
"""

from __future__ import annotations

import functools
import html
import io
import ipaddress
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import quote, unquote, urlsplit

log = logging.getLogger(__name__)

_FILES = ("timeline.html", "results.json", "history.edn", "jepsen.log")
"""Files of a run with a link of their own in the table."""

_STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .3rem .8rem; border-bottom: 1px solid #8884 }
.valid { color: #1a7f37 } .invalid { color: #d1242f } .unknown { color: #9a6700 }
@media (prefers-color-scheme: dark) {
  .valid { color: #57ab5a } .invalid { color: #f47067 } .unknown { color: #c69026 }
}
"""


class Run(NamedTuple):
    """A run in a store."""

    name: str
    time: str
    path: Path

    def verdict(self) -> str:
        """What its results say: ``valid``, ``invalid`` or ``unknown``; ``running`` without any."""
        try:
            path = self.path / "results.json"
            return _verdict(path, path.stat().st_mtime_ns)
        except FileNotFoundError:
            return "running"
        except (OSError, ValueError):
            return "unreadable"


@functools.lru_cache(maxsize=4096)
def _verdict(path: Path, changed: int) -> str:
    # Results may be long, and stay as they are.
    results = json.loads(path.read_text(encoding="utf-8"))
    valid = results.get("valid") if isinstance(results, dict) else None
    return "valid" if valid is True else "invalid" if valid is False else "unknown"


def runs(base: str | Path) -> list[Run]:
    """The runs in a store, the newest first. OSError when it cannot be read."""
    found = [
        Run(test.name, run.name, run)
        for test in _directories(Path(base))
        for run in _directories(test)
        if (run / "history.jsonl").exists() or (run / "test.json").exists()
    ]
    return sorted(found, key=lambda run: (run.time, run.name), reverse=True)


def _directories(path: Path) -> Iterator[Path]:
    # `latest` and `current` are links.
    return (p for p in path.iterdir() if p.is_dir() and not p.is_symlink())


def server(base: str | Path, host: str = "127.0.0.1", port: int = 8080) -> ThreadingHTTPServer:
    """A web server for the store `base`; ``serve_forever`` runs it, ``shutdown`` ends that. With
    port 0 the system chooses one; see ``server_address``.

    Nothing outside of `base` is given out, links included. Raises OSError when `base` is no
    directory, or the address cannot be had.
    """
    root = Path(base).resolve(strict=True)
    if not root.is_dir():
        raise NotADirectoryError(f"{root} is no directory")
    return ThreadingHTTPServer((host, port), functools.partial(_Handler, root))


class _Handler(SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **SimpleHTTPRequestHandler.extensions_map,
        **dict.fromkeys((".edn", ".jsonl", ".log"), "text/plain; charset=utf-8"),
        ".json": "application/json; charset=utf-8",
        ".html": "text/html; charset=utf-8",
    }

    def __init__(self, root: Path, *args: Any) -> None:
        self.root = root
        super().__init__(*args, directory=str(root))

    def send_head(self) -> io.BytesIO | BinaryIO | None:
        if not self._is_host_meant():
            self.send_error(HTTPStatus.FORBIDDEN, "This server is asked for by another name")
            return None
        path = Path(self.translate_path(self.path))
        try:
            path.resolve().relative_to(self.root)
        except (OSError, RuntimeError, ValueError):
            self.send_error(HTTPStatus.NOT_FOUND, "File not found")
            return None
        if path == self.root and urlsplit(self.path).path == "/":
            return self._page("Runs", self._runs())
        return super().send_head()

    def list_directory(self, path: Any) -> io.BytesIO | None:
        directory = Path(path)
        try:
            entries = sorted(directory.iterdir(), key=lambda p: (not p.is_dir(), p.name))
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND, "No permission to list the directory")
            return None
        rows = "".join(
            f'<tr><td><a href="{quote(p.name)}{"/" * p.is_dir()}">{html.escape(p.name)}</a></td>'
            f"<td>{'' if p.is_dir() else _size(p)}</td></tr>"
            for p in entries
            if not p.name.startswith(".")
        )
        title = unquote(urlsplit(self.path).path)
        up = '<p><a href="/">All runs</a> · <a href="..">Up</a></p>'
        return self._page(title, f"{up}<table><tbody>{rows}</tbody></table>")

    def log_message(self, format: str, *args: Any) -> None:
        log.debug(format, *args)

    def _is_host_meant(self) -> bool:
        """Whether a browser that asks a server on the loopback asks it by the loopback's name. A
        page of somebody else's may have a name of its own that leads here.
        """
        if not ipaddress.ip_address(self.connection.getsockname()[0]).is_loopback:
            return True
        host = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False

    def _runs(self) -> str:
        rows = []
        for run in runs(self.root):
            verdict = run.verdict()
            where = f"/{quote(run.name)}/{quote(run.time)}/"
            links = " · ".join(
                f'<a href="{where}{name}">{name}</a>'
                for name in _FILES
                if (run.path / name).exists()
            )
            rows.append(
                f'<tr><td>{html.escape(run.name)}</td><td><a href="{where}">'
                f'{html.escape(_shown(run.time))}</a></td><td class="{verdict}">{verdict}</td>'
                f"<td>{links}</td></tr>"
            )
        if not rows:
            return f"<p>There is no run in {html.escape(str(self.root))} yet.</p>"
        head = "<tr><th>Test</th><th>Started</th><th>Verdict</th><th>Files</th></tr>"
        return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"

    def _page(self, title: str, body: str) -> io.BytesIO:
        title = html.escape(title)
        page = (
            f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_STYLE}</style></head><body><h1>{title}</h1>{body}</body></html>\n"
        ).encode(errors="backslashreplace")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        return io.BytesIO(page)


def _shown(time: str) -> str:
    try:
        start = datetime.strptime(time[:15], "%Y%m%dT%H%M%S")
    except ValueError:
        return time
    return start.strftime("%Y-%m-%d %H:%M:%S")


def _size(path: Path) -> str:
    try:
        size = float(path.stat().st_size)
    except OSError:
        return ""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
