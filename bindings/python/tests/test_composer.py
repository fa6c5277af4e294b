"""The composer by itself, with real scripts."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import signal
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from driving import LONG, PLAIN, Driver, eventually, results

from jepsen_antithesis import (
    BusyError,
    ClosedError,
    Completion,
    Composer,
    DirectoryError,
    FifoOp,
    ForeignError,
    InvalidError,
    IoError,
    Kind,
    OptionsError,
    Phase,
    Signal,
    UnknownOpError,
    fifo_dir,
)
from jepsen_antithesis.lines import ENDED


@pytest.fixture
def composer(driver: Driver) -> Iterator[Composer]:
    with Composer(driver.dir) as composer:
        yield composer


def take_op(composer: Composer) -> FifoOp:
    op = composer.next(LONG)
    assert isinstance(op, FifoOp)
    return op


class TestOperations:
    def test_round_trip(self, driver: Driver, composer: Composer) -> None:
        before = time.monotonic_ns()
        script = driver.script("op-a")
        op = take_op(composer)
        assert (op.name, op.kind) == ("op-a", Kind.OP)
        assert before < op.arrived_ns < time.monotonic_ns()
        assert not op.abandoned
        assert op.complete("done\n", 3) in (Completion.COMPLETED, Completion.PENDING)
        assert script.result() == (3, "done\n")
        assert driver.fifos() == []

    def test_text_and_bytes(self, driver: Driver, composer: Composer) -> None:
        for out in ("ünïcode ✓\n", "ünïcode ✓\n".encode()):
            script = driver.op()
            take_op(composer).complete(out)
            assert script.result() == (0, "ünïcode ✓\n")

    def test_long_results_are_delivered_in_the_background(
        self, driver: Driver, composer: Composer
    ) -> None:
        script = driver.op()
        out = "0123456789abcde\n" * 65536
        assert take_op(composer).complete(out) is Completion.PENDING
        assert script.result() == (0, out)

    def test_names_need_not_be_text(self, driver: Driver, composer: Composer) -> None:
        path = os.fsencode(driver.dir) + b"/op-\xff"
        os.mkfifo(path)
        op = take_op(composer)
        assert os.fsencode(op.name) == b"op-\xff"
        op.complete("x")
        assert Path(os.fsdecode(path)).read_text() == "x"

    def test_a_dead_script_is_noticed(self, driver: Driver, composer: Composer) -> None:
        script = driver.native("op")
        op = take_op(composer)
        assert not op.abandoned
        script.kill()
        script.process.wait()
        eventually(lambda: op.abandoned)
        assert op.complete("for nobody") is Completion.BROKEN_PIPE

    def test_completing_twice(self, driver: Driver, composer: Composer) -> None:
        script = driver.op()
        op = take_op(composer)
        op.complete()
        assert script.result() == (0, "")
        with pytest.raises(UnknownOpError):
            op.complete()

    @pytest.mark.parametrize("status", [-1, 256])
    def test_a_status_out_of_range(self, driver: Driver, composer: Composer, status: int) -> None:
        script = driver.op()
        op = take_op(composer)
        with pytest.raises(InvalidError):
            op.complete("", status)
        op.complete("still there", 255)
        assert script.result() == (255, "still there")

    def test_phases(self, driver: Driver, composer: Composer) -> None:
        phases = [composer.phase]
        script = driver.check()
        check = take_op(composer)
        assert check.kind is Kind.CHECK
        phases.append(composer.phase)
        check.complete("fine")
        phases.append(composer.phase)
        assert phases == [Phase.MAIN, Phase.FINAL, Phase.CHECKED]
        assert script.result() == (0, "fine")

    def test_stats_and_directory(self, driver: Driver, composer: Composer) -> None:
        assert composer.directory == driver.dir
        script = driver.op()
        op = take_op(composer)
        assert composer.stats()["outstanding"] == 1
        op.complete()
        assert script.result()[0] == 0
        eventually(lambda: composer.stats()["outstanding"] == 0)


class TestWanted:
    def test_a_check_is_taken_past_operations_when_no_worker_is_free(
        self, driver: Driver, composer: Composer
    ) -> None:
        composer.want(ops=False)
        ops = [driver.op() for _ in range(3)]
        eventually(lambda: composer.stats()["queued"] == 3)
        assert not composer.wait(0.02)
        assert composer.take() is Signal.TIMEOUT
        script = driver.check()
        check = take_op(composer)
        assert check.kind is Kind.CHECK
        assert results(ops) == [(0, ENDED)] * 3
        check.complete("fine")
        assert script.result() == (0, "fine")

    def test_nothing_and_then_everything(self, driver: Driver, composer: Composer) -> None:
        composer.want(ops=False, checks=False)
        op = driver.script("op-a")
        eventually(lambda: composer.stats()["queued"] == 1)
        driver.check()
        eventually(lambda: composer.stats()["queued"] == 2)
        assert composer.next(0.02) is Signal.TIMEOUT
        composer.want()
        taken = take_op(composer)
        assert taken.name == "op-a"
        taken.complete("a")
        assert op.result() == (0, "a")
        assert take_op(composer).kind is Kind.CHECK

    def test_who_waits_is_told_that_operations_are_wanted(
        self, driver: Driver, composer: Composer
    ) -> None:
        composer.want(ops=False)
        driver.op()
        eventually(lambda: composer.stats()["queued"] == 1)
        taken: list[FifoOp | Signal] = []
        thread = threading.Thread(target=lambda: taken.append(composer.next(LONG)))
        thread.start()
        composer.want()
        thread.join(LONG)
        assert isinstance(taken[0], FifoOp)


class TestStandingAnswers:
    def test_of_operations(self, driver: Driver, composer: Composer) -> None:
        taken_script = driver.op()
        taken = take_op(composer)
        queued = driver.op()
        eventually(lambda: composer.stats()["queued"] == 1)
        composer.answer_all(Kind.OP, "no more\n")
        assert queued.result() == (0, "no more\n")
        assert results([driver.op(), driver.op(PLAIN)]) == [(0, "no more\n")] * 2
        assert taken.complete("still mine") in (Completion.COMPLETED, Completion.PENDING)
        assert taken_script.result() == (0, "still mine")
        assert composer.phase is Phase.MAIN
        composer.withdraw(Kind.OP)
        script = driver.op()
        take_op(composer).complete("mine again")
        assert script.result() == (0, "mine again")

    def test_of_checks(self, driver: Driver, composer: Composer) -> None:
        composer.answer_all(Kind.CHECK, b"known early\n", 3)
        phases = [composer.phase]
        assert composer.take() is Signal.TIMEOUT
        script = driver.check()
        assert composer.next(LONG) is Signal.WOKEN
        phases.append(composer.phase)
        assert phases == [Phase.MAIN, Phase.CHECKED]
        assert script.result() == (3, "known early\n")
        assert driver.op().result() == (0, ENDED)

    def test_a_verdict_takes_its_place(self, driver: Driver, composer: Composer) -> None:
        first = driver.check()
        check = take_op(composer)
        composer.answer_all(Kind.CHECK, "failed", 1)
        assert driver.check().result() == (1, "failed")
        check.complete("fine")
        assert first.result() == (0, "fine")
        assert driver.check().result() == (0, "fine")

    @pytest.mark.parametrize("status", [-1, 256])
    def test_a_status_out_of_range(self, composer: Composer, status: int) -> None:
        with pytest.raises(InvalidError):
            composer.answer_all(Kind.OP, "no more", status)


class TestRelease:
    """How long an operation's command waits."""

    @pytest.fixture
    def composer(self, driver: Driver) -> Iterator[Composer]:
        with Composer(driver.dir, op_release_after=0.3) as composer:
            yield composer

    def test_of_one_that_was_taken(self, driver: Driver, composer: Composer) -> None:
        script = driver.op()
        op = take_op(composer)
        running = "running: not complete after 0.3 s; if it has begun, it goes on\n"
        assert script.result() == (0, running)
        assert op.abandoned
        assert op.complete("late") is Completion.BROKEN_PIPE

    def test_of_one_that_was_not(self, driver: Driver, composer: Composer) -> None:
        script = driver.op()
        assert script.result() == (0, "waiting: no operation could begin within 0.3 s\n")
        assert composer.take() is Signal.TIMEOUT

    def test_a_short_time_is_not_never(self, driver: Driver) -> None:
        with Composer(driver.dir, op_release_after=0.0001):
            assert driver.op().result()[0] == 0

    @pytest.mark.parametrize("never", [None, 0, math.inf, 1e300])
    def test_never(self, driver: Driver, never: float | None) -> None:
        with Composer(driver.dir, op_release_after=never) as composer:
            script = driver.op()
            op = take_op(composer)
            time.sleep(0.05)
            assert not op.abandoned
            op.complete("done")
            assert script.result() == (0, "done")


class TestWaiting:
    def test_timeout(self, composer: Composer) -> None:
        began = time.monotonic()
        assert composer.next(0.05) is Signal.TIMEOUT
        assert time.monotonic() - began >= 0.05
        assert composer.next(0) is Signal.TIMEOUT
        composer.wake()
        assert composer.wait(math.inf), "more than poll(2) takes"
        assert composer.take() is Signal.WOKEN
        assert composer.take() is Signal.TIMEOUT

    def test_wake_is_sticky_and_comes_first(self, driver: Driver, composer: Composer) -> None:
        driver.op()
        eventually(lambda: composer.stats()["queued"] == 1)
        composer.wake()
        composer.wake()
        assert composer.take() is Signal.WOKEN
        assert isinstance(composer.take(), FifoOp)
        assert composer.take() is Signal.TIMEOUT

    def test_wake_from_another_thread(self, composer: Composer) -> None:
        threading.Timer(0.05, composer.wake).start()
        assert composer.next(LONG) is Signal.WOKEN

    def test_close_ends_every_wait(self, composer: Composer) -> None:
        taken: list[FifoOp | Signal] = []
        threads = [threading.Thread(target=lambda: taken.append(composer.next())) for _ in range(4)]
        for thread in threads:
            thread.start()
        composer.close()
        for thread in threads:
            thread.join(LONG)
        assert taken == [Signal.CLOSED] * 4
        composer.close()
        composer.wake()
        assert list(composer) == []

    def test_each_operation_goes_to_one_thread(self, driver: Driver, composer: Composer) -> None:
        taken: list[str] = []

        def serve() -> None:
            for op in composer:
                taken.append(op.name)
                op.complete(op.name)

        threads = [threading.Thread(target=serve) for _ in range(4)]
        for thread in threads:
            thread.start()
        scripts = [driver.script(f"op-{i}") for i in range(40)]
        assert results(scripts) == [(0, f"op-{i}") for i in range(40)]
        composer.close()
        for thread in threads:
            thread.join(LONG)
        assert sorted(taken) == sorted(f"op-{i}" for i in range(40))

    def test_ctrl_c_is_heard_at_once(self, driver: Driver) -> None:
        harness = driver.python("-c", WAITING, str(driver.dir))
        assert harness.process.stdout is not None
        assert harness.process.stdout.readline() == "waiting\n"
        sent = time.monotonic()
        harness.kill(signal.SIGINT)
        _, err = harness.process.communicate(timeout=LONG)
        assert time.monotonic() - sent < 5
        assert "KeyboardInterrupt" in err


WAITING = """
import sys
from jepsen_antithesis import Composer
with Composer(sys.argv[1]) as composer:
    print("waiting", flush=True)
    composer.next()
"""


class TestAsyncio:
    def test_iterates(self, driver: Driver, composer: Composer) -> None:
        async def main() -> list[str]:
            scripts = [driver.script(f"op-{i}") for i in range(3)]
            names = []
            async for op in composer:
                names.append(op.name)
                op.complete()
                if len(names) == len(scripts):
                    break
            return names

        assert sorted(asyncio.run(main())) == ["op-0", "op-1", "op-2"]

    def test_leaves_the_loop_to_others(self, driver: Driver, composer: Composer) -> None:
        async def main() -> int:
            async def serve() -> None:
                async for op in composer:
                    op.complete("served")

            servers = [asyncio.create_task(serve()) for _ in range(3)]
            scripts = [driver.op() for _ in range(12)]
            served = await asyncio.gather(*(asyncio.to_thread(script.result) for script in scripts))
            assert served == [(0, "served")] * 12
            # A task can be cancelled while it waits, and the others go on.
            servers[0].cancel()
            script = driver.op()
            assert await asyncio.to_thread(script.result) == (0, "served")
            composer.close()
            await asyncio.gather(*servers[1:])
            return len(served)

        assert asyncio.run(main()) == 12


class TestOpening:
    def test_the_default_directory(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("JEPSEN_FIFO_DIR", str(driver.dir))
        assert fifo_dir() == driver.dir
        with Composer() as composer:
            assert composer.directory == driver.dir
        monkeypatch.setenv("JEPSEN_FIFO_DIR", "")
        assert fifo_dir() == Path("/run/jepsen")

    def test_a_second_harness(self, driver: Driver, composer: Composer) -> None:
        with pytest.raises(BusyError, match=str(os.getpid())):
            Composer(driver.dir)
        composer.close()
        Composer(driver.dir).close()

    def test_something_foreign(self, driver: Driver) -> None:
        driver.dir.mkdir(mode=0o700)
        (driver.dir / "precious").write_text("data")
        with pytest.raises(ForeignError, match="precious"):
            Composer(driver.dir)
        assert (driver.dir / "precious").read_text() == "data"

    def test_not_a_directory(self, driver: Driver) -> None:
        driver.dir.write_text("file")
        with pytest.raises(DirectoryError, match="fifos"):
            Composer(driver.dir)

    def test_writable_by_others(self, driver: Driver) -> None:
        driver.dir.mkdir()
        driver.dir.chmod(0o777)
        with pytest.raises(DirectoryError):
            Composer(driver.dir)
        Composer(driver.dir, shared=True).close()

    def test_options_are_checked(self, driver: Driver) -> None:
        with pytest.raises(OptionsError, match="on_open"):
            Composer(driver.dir, on_open="ignore")  # type: ignore[arg-type]
        with pytest.raises(OptionsError, match="max_fds"):
            Composer(driver.dir, max_fds=-1)

    def test_results_in_files(self, driver: Driver) -> None:
        with Composer(driver.dir, results="file") as composer:
            script = driver.script("op-7", PLAIN)
            take_op(composer).complete("in a file")
            assert script.result() == (0, "")
            assert (driver.dir / "invoke_7").read_text() == "in a file"

    def test_results_that_cannot_be_written_are_explained(self, driver: Driver) -> None:
        with Composer(driver.dir, results="file") as composer:
            (driver.dir / "invoke_7").mkdir()
            script = driver.script("op-7")
            op = take_op(composer)
            with pytest.raises(IoError, match="invoke_7") as raised:
                op.complete("in a file")
            assert composer.failure() == str(raised.value)
            assert script.result()[0] != 99, "the command is answered"
            with pytest.raises(UnknownOpError) as second:
                op.complete("in a file")
            assert "invoke_7" not in str(second.value), "that is another matter"

    def test_adopting(self, driver: Driver) -> None:
        driver.dir.mkdir(mode=0o700)
        script = driver.op()
        eventually(lambda: driver.fifos())
        with Composer(driver.dir, on_open="adopt") as composer:
            take_op(composer).complete("adopted")
            assert script.result() == (0, "adopted")

    def test_releasing(self, driver: Driver) -> None:
        driver.dir.mkdir(mode=0o700)
        script = driver.op()
        eventually(lambda: driver.fifos())
        with Composer(driver.dir):
            assert script.result() == (99, ""), "no mark, so no result"


class TestClosing:
    def test_releases_who_waits(self, driver: Driver, composer: Composer) -> None:
        script = driver.op()
        op = take_op(composer)
        composer.close()
        assert script.result() == (99, "")
        assert op.complete("too late") is Completion.CLOSED
        assert driver.fifos() == []

    def test_happens_at_exit(self, driver: Driver) -> None:
        """Also when another thread is in the middle of waiting; and nothing is printed."""
        harness = driver.python("-c", EXITING, str(driver.dir))
        eventually(lambda: driver.alive(harness))
        script = driver.op()
        out, err = harness.process.communicate(timeout=LONG)
        assert (harness.process.returncode, out, err) == (0, "", "")
        assert script.result() == (0, "last words")

    def test_frees_what_nobody_holds(self, driver: Driver) -> None:
        gc.collect()  # Composers of other tests.
        open_before = len(os.listdir("/proc/self/fd"))
        composer = Composer(driver.dir)
        assert len(os.listdir("/proc/self/fd")) > open_before
        gone = weakref.ref(composer)
        del composer
        gc.collect()
        assert gone() is None
        eventually(lambda: len(os.listdir("/proc/self/fd")) == open_before)
        Composer(driver.dir).close()

    def test_the_directory_is_taken_away(self, driver: Driver, composer: Composer) -> None:
        assert composer.failure() is None
        driver.dir.rename(driver.tmp / "elsewhere")
        with pytest.raises(DirectoryError, match=f"{driver.dir} was taken away") as raised:
            composer.next(LONG)
        assert composer.failure() == str(raised.value)
        with pytest.raises(DirectoryError, match=str(driver.dir)):
            composer.take()

    def test_closed_is_closed(self, composer: Composer) -> None:
        composer.close()
        assert composer.take() is Signal.CLOSED
        assert ClosedError.code > 0, "not an error of the library, but of asking on"


EXITING = """
import sys, threading, time
from jepsen_antithesis import Composer
composer = Composer(sys.argv[1])
op = composer.next()
threading.Thread(target=composer.next, daemon=True).start()
op.complete("last words")
"""

FORKING = """
import os, sys
from jepsen_antithesis import Composer, ForkedError
composer = Composer(sys.argv[1])
child = os.fork()
if child == 0:
    try:
        composer.next(1)
    except ForkedError as error:
        print(error, flush=True)
        os._exit(0)
    os._exit(1)
_, status = os.waitpid(child, 0)
composer.next().complete("alive")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_forked_child_is_refused(driver: Driver) -> None:
    harness = driver.python("-c", FORKING, str(driver.dir))
    assert harness.process.stdout is not None
    line = harness.process.stdout.readline()
    assert "fork" in line
    assert driver.op().result() == (0, "alive")
    assert harness.process.wait(LONG) == 0


def test_errors_are_also_pythons_own() -> None:
    from jepsen_antithesis import errors

    assert isinstance(errors.from_code(-10, "bad"), ValueError)
    assert isinstance(errors.from_code(-90, "bad"), OSError)
    assert isinstance(errors.from_code(-60, "bad"), KeyError)
    assert str(errors.from_code(-60, "no such operation")) == "no such operation"
    assert type(errors.from_code(-12345, "new")) is errors.ComposerError
