"""The store in a browser."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from jepsen_antithesis import checker, core, serve

SOURCE = Path(serve.__file__).parents[1]


def run(store: Path, name: str, valid: object) -> Path:
    """Runs a test that does nothing. Returns its directory."""
    result = {"valid": valid}
    test = {**core.noop_test(), "name": name, "store_dir": str(store), "nodes": ["n1"]}
    finished = core.run({**test, "checker": lambda test, history, opts: result})
    return Path(finished["store"].path)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def url(store: Path) -> Iterator[str]:
    with serve.server(store, port=0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def get(url: str, host: str | None = None) -> str:
    request = urllib.request.Request(url)
    if host is not None:
        request.add_header("Host", host)
    with urllib.request.urlopen(request, timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def status(url: str, host: str | None = None) -> int:
    try:
        get(url, host)
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    return 200


def shown(page: str) -> list[tuple[str, str]]:
    """Names and verdicts in the table of runs."""
    return re.findall(r'<tr><td>(.*?)</td>.*?<td class="(\w+)">', page)


class TestTable:
    def test_has_every_run_and_its_verdict_the_newest_first(self, store: Path, url: str) -> None:
        for name, valid in (("a", True), ("b", False), ("c", checker.UNKNOWN)):
            run(store, name, valid)
        assert shown(get(url)) == [("c", "unknown"), ("b", "invalid"), ("a", "valid")]

    def test_of_an_empty_store(self, url: str) -> None:
        assert "no run" in get(url)

    def test_shows_a_run_that_has_no_verdict_yet(self, store: Path, url: str) -> None:
        (run(store, "a", True) / "results.json").unlink()
        assert shown(get(url)) == [("a", "running")]

    def test_follows_a_verdict_that_changes(self, store: Path, url: str) -> None:
        path = run(store, "a", True) / "results.json"
        assert shown(get(url)) == [("a", "valid")]
        path.write_text('{"valid": false, "why": "looked at again"}')
        assert shown(get(url)) == [("a", "invalid")]
        path.write_text("{")
        assert shown(get(url)) == [("a", "unreadable")]

    def test_takes_a_name_for_text(self, store: Path, url: str) -> None:
        run(store, "<script>alert(1)<%2F&?#", True)
        page = get(url)
        assert "<script>" not in page
        [where] = re.findall(r'href="([^"]*)">results.json', page)
        assert '"valid": true' in get(url + where)


class TestFiles:
    def test_links_lead_to_them(self, store: Path, url: str) -> None:
        run(store, "a", True)
        links = re.findall(r'href="(/[^"]+)"', get(url))
        assert {link.rpartition("/")[2] for link in links} == {
            *("", "results.json", "history.edn", "jepsen.log")
        }
        for link in links:
            assert status(url + link) == 200
        assert '"valid": true' in get(f"{url}/latest/results.json")

    def test_nothing_outside_of_the_store_is_given_out(self, store: Path, url: str) -> None:
        (store.parent / "secret").write_text("secret")
        (store / "link").symlink_to(store.parent)
        (store / "loop").symlink_to("loop")
        for path in ("/../secret", "/%2e%2e/secret", "/link/secret", "/link/", "/loop", "//secret"):
            assert status(url + path) == 404

    def test_a_page_of_somebody_else_gets_nothing(self, url: str) -> None:
        port = url.rpartition(":")[2]
        assert status(url, f"evil.example:{port}") == 403
        for host in (f"localhost:{port}", "127.0.0.1", f"[::1]:{port}"):
            assert status(url, host) == 200


def serving(store: Path, port: str = "0") -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "jepsen_antithesis", "serve"]
    return subprocess.Popen(
        [*command, "--port", port, "--store-dir", str(store)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stderr=subprocess.PIPE,
        text=True,
    )


class TestCommand:
    def test_listens_on_the_loopback_until_it_is_told_to_stop(self, store: Path) -> None:
        run(store, "a", False)
        with serving(store) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                    break
            assert match is not None
            assert shown(get(match[0])) == [("a", "invalid")]
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0

    @pytest.mark.parametrize("missing", [True, False])
    def test_says_why_it_cannot(self, store: Path, missing: bool) -> None:
        base = store / "missing" if missing else store
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            with serving(base, port) as process:
                _, told = process.communicate(timeout=60)
        assert process.returncode == 254
        assert "Traceback" not in told
        assert (f"{base} cannot be served: No such" if missing else f":{port} cannot") in told
