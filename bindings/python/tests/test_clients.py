"""Time limits, connections that are opened anew, and clients for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from driving import LONG, eventually

from jepsen_antithesis import Client, Keyword, Nemesis, Op, Test, client, core, reconnect
from jepsen_antithesis import generator as gen
from jepsen_antithesis.client import AsyncClient

TIMED_OUT = Keyword("jepsen.client/timeout")


def run(**more: Any) -> Test:
    return core.run_case(
        core.prepare_test({**core.noop_test(), "name": None, "nodes": ["n1"], **more})
    )


def outcomes(test: Test) -> list[tuple[Any, ...]]:
    completions = [op for op in test["history"] if op["type"] != "invoke"]
    return [(op["f"], op["type"], op.get("error")) for op in completions]


@pytest.fixture
def deaf_server() -> Iterator[int]:
    """A port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class Asking(Client):
    """Asks a server, and waits for an answer."""

    def __init__(self, port: int, conn: socket.socket | None = None) -> None:
        self.port = port
        self.conn = conn
        self.ended: list[str] = []

    def open(self, test: Test, node: str) -> Client:
        opened = Asking(self.port, socket.create_connection(("127.0.0.1", self.port)))
        opened.ended = self.ended
        return opened

    def invoke(self, test: Test, op: Op) -> Op:
        assert self.conn is not None
        if op["f"] == "hang":
            op["value"].append("changed")
            self.conn.recv(1)
            self.ended.append("hang")
        return {**op, "type": "ok"}

    def close(self, test: Test) -> None:
        assert self.conn is not None
        # A shutdown, unlike a close, ends another thread's recv.
        with contextlib.suppress(OSError):
            self.conn.shutdown(socket.SHUT_RDWR)
        self.conn.close()
        self.ended.append("close")


class TestTimeout:
    def test_an_operation_that_hangs_is_indeterminate(self, deaf_server: int) -> None:
        asking = Asking(deaf_server)
        ops = [{"f": "hang", "value": []}, {"f": "next", "value": None}]
        test = run(
            client=client.timeout(0.1, asking),
            generator=gen.on_threads({0}, gen.concurrency_limit(1, ops)),
            concurrency=1,
        )
        assert outcomes(test) == [("hang", "info", TIMED_OUT), ("next", "ok", None)]
        # The operation in the history is not the one that the client may still change.
        assert test["history"].infos()[0]["value"] == []
        deadline = time.monotonic() + LONG
        while "hang" not in asking.ended and time.monotonic() < deadline:
            time.sleep(0.001)
        assert "hang" in asking.ended, "closing the connection ended what waited for it"

    def test_it_depends_on_the_operation(self, deaf_server: int) -> None:
        limits: list[Any] = []

        def limit(op: Op) -> float:
            limits.append(op["f"])
            return 0.05 if op["f"] == "hang" else LONG

        test = run(
            client=client.timeout(limit, Asking(deaf_server)),
            generator=gen.on_threads({0}, [{"f": "quick"}, {"f": "hang", "value": []}]),
            concurrency=1,
        )
        assert outcomes(test) == [("quick", "ok", None), ("hang", "info", TIMED_OUT)]
        assert limits == ["quick", "hang"]

    def test_a_client_stays_in_one_thread(self, tmp_path: Path) -> None:
        """As SQLite's connections demand."""

        class Database(Client):
            def __init__(self, db: sqlite3.Connection | None = None) -> None:
                self.db = db

            def open(self, test: Test, node: str) -> Client:
                return Database(sqlite3.connect(tmp_path / "db", isolation_level=None))

            def setup(self, test: Test) -> None:
                self.execute("create table if not exists t (x)")

            def execute(self, sql: str, *args: Any) -> list[Any]:
                assert self.db is not None
                return self.db.execute(sql, args).fetchall()

            def invoke(self, test: Test, op: Op) -> Op:
                if op["f"] == "add":
                    self.execute("insert into t values (?)", op["value"])
                    return {**op, "type": "ok"}
                return {**op, "type": "ok", "value": self.execute("select x from t")}

            def close(self, test: Test) -> None:
                assert self.db is not None
                self.db.close()

        ops = [{"f": "add", "value": 7}, {"f": "read"}]
        test = run(
            client=client.timeout(LONG, Database()),
            generator=gen.clients(gen.phases(*ops)),
            concurrency=3,
        )
        assert [op["type"] for op in test["history"]] == ["invoke", "ok"] * 2
        assert test["history"][-1]["value"] == [(7,)]

    def test_what_the_client_raises_is_raised(self) -> None:
        class Raising(Client):
            def invoke(self, test: Test, op: Op) -> Op:
                raise TimeoutError("its own")

        test = run(client=client.timeout(LONG, Raising()), generator=gen.clients({"f": "x"}))
        assert outcomes(test) == [("x", "info", "indeterminate: its own")]

    def test_a_client_that_cannot_be_opened(self) -> None:
        class Closed(Client):
            opened = 0

            def open(self, test: Test, node: str) -> Client:
                Closed.opened += 1
                if Closed.opened > 1:
                    raise ConnectionRefusedError("nobody there")
                return self

        test = run(
            client=client.timeout(LONG, Closed()), generator=gen.clients({"f": "x"}), concurrency=1
        )
        assert outcomes(test) == [("x", "fail", [Keyword("no-client"), "nobody there"])]

    def test_reusable_only_when_nothing_hangs(self, deaf_server: int) -> None:
        class Reused(Asking):
            opened: list[Client] = []  # noqa: RUF012

            def open(self, test: Test, node: str) -> Client:
                opened = Reused(self.port, socket.create_connection(("127.0.0.1", self.port)))
                Reused.opened.append(opened)
                return opened

            def reusable(self, test: Test) -> bool:
                return True

            def invoke(self, test: Test, op: Op) -> Op:
                if op["f"] == "crash":
                    raise RuntimeError("but the connection is fine")
                return super().invoke(test, op)

        def opened_for(*fs: str) -> int:
            Reused.opened.clear()
            run(
                client=client.timeout(0.05, Reused(deaf_server)),
                generator=gen.on_threads({0}, [{"f": f, "value": []} for f in fs]),
                concurrency=1,
                leave_db_running=True,
            )
            return len(Reused.opened) - 1  # One for the set-up.

        assert opened_for("crash", "next") == 1
        assert opened_for("hang", "next") == 2

    def test_threads_end_with_their_clients(self, deaf_server: int) -> None:
        run(
            client=client.timeout(LONG, Asking(deaf_server)),
            generator=gen.clients(gen.limit(20, gen.repeat({"f": "x"}))),
            concurrency=5,
        )
        deadline = time.monotonic() + LONG
        while _timeout_threads() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert not _timeout_threads()


def _timeout_threads() -> list[str]:
    return [t.name for t in threading.enumerate() if "with a timeout" in t.name]


class Server:
    """A connection that can break, and how often it was opened and closed."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.down = False

    def open(self) -> int:
        if self.down:
            raise ConnectionRefusedError("down")
        self.opened.append(len(self.opened))
        return self.opened[-1]

    def close(self, conn: int) -> None:
        self.closed.append(conn)

    def wrapper(self, **more: Any) -> reconnect.Wrapper[int]:
        return reconnect.wrapper(open=self.open, close=self.close, name="db", **more)


class TestReconnect:
    def test_stays_until_it_breaks(self) -> None:
        server = Server()
        wrapper = server.wrapper()
        for _ in range(3):
            with wrapper.with_conn() as conn:
                assert conn == 0
        with pytest.raises(OSError, match="broken"), wrapper.with_conn() as conn:
            raise OSError("broken")
        with wrapper.with_conn() as conn:
            assert conn == 1
        wrapper.close()
        assert (server.opened, server.closed, wrapper.conn) == ([0, 1], [0, 1], None)
        assert wrapper.open().open().conn == 2

    def test_what_became_of_the_operation_is_not_hidden(self) -> None:
        server = Server()
        wrapper = server.wrapper().open()
        server.down = True
        with pytest.raises(OSError, match="maybe written"), wrapper.with_conn():
            raise OSError("maybe written")
        down = pytest.raises(reconnect.NoConnection, match=r"'db' cannot be opened.*down")
        with down, wrapper.with_conn():
            raise AssertionError("reached")
        server.down = False
        with wrapper.with_conn() as conn:
            assert conn == 1

    def test_a_close_that_raises_keeps_nobody_from_another_connection(self) -> None:
        def close(conn: int) -> None:
            raise OSError("cannot close")

        server = Server()
        wrapper = reconnect.wrapper(open=server.open, close=close)
        with pytest.raises(ValueError, match="oops"), wrapper.with_conn():
            raise ValueError("oops")
        with wrapper.with_conn() as conn:
            assert conn == 1

    def test_of_several_threads_one_replaces_it(self) -> None:
        server = Server()
        wrapper = server.wrapper(log=False).open()
        everyone = threading.Barrier(4)

        def use() -> None:
            with contextlib.suppress(OSError), wrapper.with_conn():
                everyone.wait(LONG)
                raise OSError

        threads = [threading.Thread(target=use) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LONG)
        assert (server.opened, server.closed) == ([0, 1], [0])

    def test_one_that_hangs_does_not_keep_others_from_another_connection(self) -> None:
        server = Server()
        wrapper = server.wrapper(log=False).open()
        inside, go_on = threading.Event(), threading.Event()

        def hang() -> None:
            with wrapper.with_conn():
                inside.set()
                go_on.wait(LONG)

        thread = threading.Thread(target=hang)
        thread.start()
        assert inside.wait(LONG)
        with contextlib.suppress(OSError), wrapper.with_conn():
            raise OSError
        with wrapper.with_conn() as conn:
            assert conn == 1
        go_on.set()
        thread.join(LONG)

    @pytest.mark.parametrize(("log", "lines"), [(True, True), ("minimal", False), (False, None)])
    def test_logging(self, log: Any, lines: bool | None, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.WARNING)
        wrapper = Server().wrapper(log=log)
        with contextlib.suppress(OSError), wrapper.with_conn():
            raise OSError("why")
        assert [bool(r.exc_info) for r in caplog.records] == ([] if lines is None else [lines])

    def test_open_has_to_return_something(self) -> None:
        with pytest.raises(TypeError, match="returned None"):
            reconnect.wrapper(open=lambda: None, close=print).open()


class Echo(AsyncClient):
    """Talks to an echo server, over a connection of asyncio's."""

    def __init__(self, port: int, events: list[str], streams: Any = None) -> None:
        self.port = port
        self.events = events
        self.streams = streams

    async def open(self, test: Test, node: str) -> AsyncClient:
        streams = await asyncio.open_connection("127.0.0.1", self.port)
        return Echo(self.port, self.events, streams)

    async def setup(self, test: Test) -> None:
        self.events.append(f"setup {await self.ask('0')}")

    async def teardown(self, test: Test) -> None:
        self.events.append(f"teardown {await self.ask('0')}")

    async def ask(self, text: str) -> str:
        reader, writer = self.streams
        writer.write(f"{text}\n".encode())
        return str((await reader.readline()).decode().strip())

    async def invoke(self, test: Test, op: Op) -> Op:
        if op["f"] == "hang":
            try:
                await self.streams[0].readline()
            finally:
                self.events.append("hang ended")
        if op["f"] == "crash":
            raise ConnectionResetError("gone")
        return {**op, "type": "ok", "value": await self.ask(str(op["value"]))}

    async def close(self, test: Test) -> None:
        self.events.append("close")
        self.streams[1].close()
        await self.streams[1].wait_closed()


@pytest.fixture
def echo_server() -> Iterator[int]:
    def serve(conn: socket.socket) -> None:
        with conn, conn.makefile("rwb", buffering=0) as file:
            for line in file:
                file.write(line)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


class TestAsync:
    def test_a_test(self, echo_server: int) -> None:
        events: list[str] = []
        test = run(
            client=Echo(echo_server, events),
            generator=gen.clients(gen.limit(30, lambda: {"f": "echo", "value": 5})),
            concurrency=3,
        )
        oks = test["history"].oks()
        assert [op["value"] for op in oks] == ["5"] * 30
        assert events[:3] == ["teardown 0", "setup 0", "close"]
        assert events.count("close") == 2 + 3, "set-up, tear-down, and one for each worker"

    def test_a_crash_opens_another_one_in_the_same_loop(self, echo_server: int) -> None:
        events: list[str] = []
        test = run(
            client=Echo(echo_server, events),
            generator=gen.on_threads({0}, [{"f": f, "value": 1} for f in ("crash", "echo")]),
            concurrency=1,
        )
        assert outcomes(test) == [("crash", "info", "indeterminate: gone"), ("echo", "ok", None)]
        assert events.count("close") == 4

    def test_a_time_limit_cancels(self, echo_server: int) -> None:
        events: list[str] = []
        test = run(
            client=client.timeout(0.1, Echo(echo_server, events)),
            generator=gen.on_threads({0}, [{"f": "hang"}, {"f": "echo", "value": 3}]),
            concurrency=1,
        )
        assert outcomes(test) == [("hang", "info", TIMED_OUT), ("echo", "ok", None)]
        assert events.index("hang ended") < events.index("close", events.index("hang ended"))

    def test_one_that_completes_though_it_is_cancelled_has_completed(self) -> None:
        class Careful(AsyncClient):
            async def invoke(self, test: Test, op: Op) -> Op:
                try:
                    await asyncio.sleep(LONG)
                except asyncio.CancelledError:
                    return {**op, "type": "fail", "error": "not sent"}
                raise AssertionError

        test = run(client=client.timeout(0.05, Careful()), generator=gen.clients({"f": "x"}))
        assert outcomes(test) == [("x", "fail", "not sent")]

    def test_one_that_ignores_being_cancelled_is_left_behind(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Stubborn(AsyncClient):
            def reusable(self, test: Test) -> bool:
                return True

            async def invoke(self, test: Test, op: Op) -> Op:
                while op["f"] == "hang":
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(0.3)
                        return {**op, "type": "ok"}
                return {**op, "type": "ok"}

        monkeypatch.setattr("jepsen_antithesis.client.timing_out._PATIENCE", 0.01)
        test = run(
            client=client.timeout(0.05, Stubborn()),
            generator=gen.on_threads({0}, [{"f": "hang"}, {"f": "next"}]),
            concurrency=1,
        )
        assert outcomes(test) == [("hang", "info", TIMED_OUT), ("next", "ok", None)]

    def test_what_it_leaves_running_goes_on_between_operations(self) -> None:
        """A connection is kept alive while the worker has nothing to do."""
        beats = threading.Semaphore(0)
        tasks: list[asyncio.Task[None]] = []
        cancelled: list[bool] = []

        class Beating(AsyncClient):
            async def invoke(self, test: Test, op: Op) -> Op:
                async def beat() -> None:
                    try:
                        while True:
                            beats.release()
                            await asyncio.sleep(0.001)
                    except asyncio.CancelledError:
                        cancelled.append(True)
                        raise

                if op["f"] == "begin":
                    tasks.append(asyncio.ensure_future(beat()))
                return {**op, "type": "ok"}

        class Waiting(Nemesis):
            """Comes back when the client's task ran thirty times meanwhile."""

            def invoke(self, test: Test, op: Op) -> Op:
                for _ in range(30):
                    assert beats.acquire(timeout=LONG)
                return {**op, "type": "info", "value": "beats"}

        test = run(
            client=Beating(),
            nemesis=Waiting(),
            concurrency=1,
            generator=gen.phases(
                gen.clients({"f": "begin"}), gen.nemesis({"f": "wait"}), gen.clients({"f": "end"})
            ),
        )
        assert [op["value"] for op in test["history"].infos()][-1] == "beats"
        assert (len(tasks), cancelled) == (1, [True])

    def test_a_coroutine_of_an_ordinary_client(self) -> None:
        class Mixed(Client):
            def open(self, test: Test, node: str) -> Client:
                return self

            async def invoke(self, test: Test, op: Op) -> Op:  # type: ignore[override]
                await asyncio.sleep(0)
                return {**op, "type": "ok"}

        assert outcomes(run(client=Mixed(), generator=gen.clients({"f": "x"}))) == [
            ("x", "ok", None)
        ]

    def test_one_that_hangs_when_the_test_fails_is_cancelled(
        self, echo_server: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("jepsen_antithesis.interpreter._INTERRUPTED_GRACE", 0.05)
        events: list[str] = []

        def interrupt() -> Op:
            raise KeyboardInterrupt

        before = set(threading.enumerate())
        with pytest.raises(KeyboardInterrupt):
            run(
                client=Echo(echo_server, events),
                generator=gen.clients([{"f": "hang"}, interrupt]),
                concurrency=2,
            )
        assert "hang ended" in events
        eventually(
            lambda: (
                not any(
                    thread.name.startswith("jepsen worker")
                    for thread in set(threading.enumerate()) - before
                )
            )
        )


def test_a_validation_sees_what_a_coroutine_returned() -> None:
    class Wrong(AsyncClient):
        async def invoke(self, test: Test, op: Op) -> Op:
            return {**op, "type": "done"}

    test = run(client=Wrong(), generator=gen.clients({"f": "x"}))
    assert "type should be" in test["history"].infos()[0]["error"]


def test_time_limits_are_checked_when_they_are_made() -> None:
    makers: list[Callable[[], Any]] = [
        lambda: client.timeout(-1, Client()),
        lambda: client.timeout(float("nan"), Client()),
    ]
    for make in makers:
        with pytest.raises(ValueError, match="seconds"):
            make()
