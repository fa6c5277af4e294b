"""The interpreter: runs a generator's operations on worker threads, and records the history.

Driven by Antithesis, it gives every operation of the main phase to one waiting test command, and
answers the command with the operation's completion. Commands wait in the library, which also
answers those that wait for too long; the interpreter takes one when a thread is free for it, and
has at most one in hand whose operation has not begun. It waits for commands and for its workers in
one place, and nothing polls.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from . import edn
from .antithesis import events
from .antithesis.observing import Observers
from .composer import Composer, FifoOp, Kind, Phase, Signal
from .context import context
from .copies import own
from .edn import Keyword
from .errors import ClosedError, ComposerError
from .generator import (
    PENDING,
    Generator,
    MainPhase,
    Step,
    friendly_exceptions,
    has_main_gen,
    lift,
    validate,
)
from .history import History
from .lines import ENDED, EXHAUSTED, farewell
from .options import DEFAULTS
from .progress import Progress
from .types import NEMESIS, Op, Test, Thread
from .waiting import milliseconds
from .worker import Worker

log = logging.getLogger(__name__)

# How long workers may take to close their clients when the test is interrupted.
_INTERRUPTED_GRACE = 1.0

# How long an operation that is cancelled may take to end.
_CANCELLED_GRACE = 1.0

# A command that came so long ago is looked for before an operation begins for it. The library
# drops those that it knows to be dead, but does not look again when they are taken.
_FRESH_NS = 1_000_000

# Seconds between two questions to a generator that is pending although every thread is free: the
# longer it has been, the longer.
_ASK_AGAIN_MIN = 0.001
_ASK_AGAIN_MAX = 0.1


@dataclass
class Driven:
    """A test that test commands drive: the control directory, and what was agreed about it.

    Times are in seconds. For one thread at a time.
    """

    composer: Composer
    on_exhausted: Literal["wait", "finish"] = DEFAULTS["on_exhausted"]
    drain_timeout: float = DEFAULTS["drain_timeout"]
    main: MainPhase = field(default_factory=MainPhase)
    check: FifoOp | None = None
    """The check that was taken. Without one, the library answers a check that comes."""

    def answer_check(self, out: str, status: int) -> None:
        """Answers the check, and those that come later, with `out` and an exit status."""
        if self.check is None:
            self.composer.answer_all(Kind.CHECK, out, status)
        else:
            self.check.complete(out, status)

    def await_check(self) -> None:
        """Waits until a check was answered, or the composer is closed."""
        while self.composer.phase is not Phase.CHECKED:
            if self.composer.next() is Signal.CLOSED:
                return

    def fail(self, error: BaseException) -> None:
        """Tells every command, waiting or to come, that the harness failed or was interrupted.
        After an interrupt a check is only released, for nothing was found. May be repeated.
        """
        # The library may be what failed; and a check that was told so needs no second answer.
        with contextlib.suppress(ComposerError):
            self.composer.answer_all(Kind.OP, farewell(error))
            if isinstance(error, Exception):
                self.answer_check(farewell(error), 1)


def interpret(test: Test, driven: Driven | None = None) -> History:
    """Runs ``test["generator"]`` to its end, and returns the history.

    `test` needs ``nodes``, ``concurrency``, ``client`` and ``nemesis``, as `core.prepare_test`
    provides them; clients and nemesis are set up already. The generator is taken out of the test,
    so that what it has produced is not kept. Every operation is written to ``test["store"]``,
    if there is one, before anybody is told of it. The history is ``test["history"]`` from the
    beginning, so that what is known is there when the test is interrupted. An exception, of the
    generator or of the store, ends the test: workers are stopped, waiting commands answered, and
    it is raised again.
    """
    return _Interpreter(test, driven).run()


class _Interpreter:
    def __init__(self, test: Test, driven: Driven | None) -> None:
        self.driven = driven
        self.main = driven is not None
        generator = test.pop("generator", None)
        if driven is not None:
            test["antithesis_phase"] = driven.main
        test["history"] = History()
        self.test = test
        self.gen: Generator | None = validate(friendly_exceptions(lift(generator)))
        self.ctx = context(test)
        self.store = test.get("store")
        self.origin: int = test.get("relative_time_origin") or time.monotonic_ns()
        self.history: History = test["history"]
        self.progress = Progress(sys.stderr)
        self.observers = Observers(test)

        self.bell: Composer | _Bell = _Bell() if driven is None else driven.composer
        self.completions: deque[tuple[Worker, Op]] = deque()
        self.workers: dict[Thread, Worker] = {t: self.hire(t) for t in self.ctx.all_threads()}
        # What each busy thread works on, and the command that waits for it, if there is one.
        self.running: dict[Thread, tuple[Op, FifoOp | None]] = {}
        # The command whose operation begins next, and whether it has just come.
        self.command: FifoOp | None = None
        self.command_is_fresh = False
        # Whether the library gives out operations; checks it always does.
        self.wants_ops = True
        # Only the nemesis is free: a command waits in the library, and whether the generator, asked
        # for it, had nothing before a client's thread is free.
        self.command_waits = False
        self.nothing_for_nemesis = False
        self.check_taken_at = math.inf
        # An operation that waits for its time or for a command, and the generator after it. It is
        # kept instead of asked for again, so that no random number is drawn for nothing.
        self.drawn: tuple[Op, Generator | None] | None = None
        # The drawn operation follows the last main_gen, and waits for the check.
        self.gated = False
        # The check came before any main_gen was reached; the next answer shows if there is one.
        self.unproven = False
        # Since when the generator has been pending with nothing running.
        self.pending_since: float | None = None

    # The life of a test

    def run(self) -> History:
        events.phase(self.test, "main")
        try:
            while self.step():
                pass
            self.observers.finish()
            self.dismiss(self.patience())
        except BaseException as error:
            log.info("Shutting down workers after an abnormal end")
            interrupted = not isinstance(error, Exception)
            grace = _INTERRUPTED_GRACE if interrupted else self.patience()
            if self.driven is not None:
                # Before the workers end, for a client that hangs may keep them.
                self.driven.fail(error)
                self.answer_everybody(farewell(error))
            self.dismiss(grace)
            # An error while the last ones are recorded must not hide the first.
            with contextlib.suppress(Exception):
                self.record_completions()
            raise
        finally:
            self.progress.end()
            if isinstance(self.bell, _Bell):
                self.bell.close()
        return self.history

    def patience(self) -> float | None:
        return None if self.driven is None else self.driven.drain_timeout

    def hire(self, thread: Thread) -> Worker:
        return Worker(self.test, thread, self.post)

    def post(self, worker: Worker, op: Op) -> None:
        """Called by workers."""
        self.completions.append((worker, op))
        self.bell.wake()

    def dismiss(self, grace: float | None) -> None:
        deadline = None if grace is None else time.monotonic() + grace
        for worker in self.workers.values():
            worker.exit()
        for worker in self.workers.values():
            ended = worker.join(deadline)
            if not ended and worker.cancel():
                ended = worker.join(time.monotonic() + _CANCELLED_GRACE)
            if not ended:
                log.warning("Worker %s does not end; it is left behind", worker.thread)

    # One step: a completion, else a command, else an operation, else wait

    def step(self) -> bool:
        """Does the next thing; False when there is none left."""
        if self.completions:
            self.complete(*self.completions.popleft())
            return True
        timeout = None if self.driven is None or self.main else self.give_up_overdue(self.driven)
        fresh = self.drawn is None
        if self.drawn is None:
            if not self.may_ask():
                return self.take(ops=self.client_is_free()) or self.wait_for_command(timeout)
            self.command_waits = False
            step = self.ask()
            if step is None:
                return self.exhausted(timeout)
            op, gen = step
            if op is PENDING:
                return self.pending(timeout)
            self.pending_since = None
            self.drawn = op, gen
        if self.gated:
            return self.wait_behind_main(timeout)
        op, gen = self.drawn
        seconds = (op["time"] - self.now()) / 1e9
        if seconds > 0:
            return self.take() or self.wait(_earliest(timeout, seconds))
        by_command = self.main and self.takes_command(op)
        if by_command and not self.has_command():
            return self.take(ops=True) or self.wait(timeout)
        if not fresh:
            op = {**op, "time": self.now()}  # When it really begins.
        self.invoke(op, gen, by_command)
        return True

    def may_ask(self) -> bool:
        """Whether an operation could begin: a thread is free, and in the main phase of a driven
        test a command waits.
        """
        if not self.ctx.free_thread_count():
            return False
        if not self.main:
            return True
        return self.has_command() or self.command_waits or (self.eager() and not self.running)

    def eager(self) -> bool:
        """Whether the end of the generator matters before a command asks for an operation."""
        return self.driven is not None and self.driven.on_exhausted == "finish"

    def ask(self) -> Step | None:
        """Asks the generator."""
        if self.gen is None:
            return None
        if self.driven is None:
            return self.gen.op(self.test, self.ctx.with_time(self.now()))
        main = self.driven.main
        main.live = main.exhausted = False
        step = self.gen.op(self.test, self.ctx.with_time(self.now()))
        if self.unproven:
            return self.prove(step)
        if self.main and step is not None and step[0] is not PENDING:
            # Only a sequence that is not ours goes on behind its last main_gen.
            self.gated = main.exhausted and not main.live and not has_main_gen(step[1])
        return step

    def prove(self, step: Step | None) -> Step | None:
        """`step`, the first one after a check that came before any main_gen was reached; None when
        it shows that there is no main_gen, so that the check ends everything.
        """
        assert self.driven is not None
        if step is None or self.driven.main.seen:
            self.unproven = False
            return step
        if step[0] is PENDING and self.running:
            return step
        self.unproven = False
        log.warning(
            "The generator has no main_gen, so that the check ends all of it. Wrap its main "
            "phase in main_gen to have final operations."
        )
        self.gen = None
        return None

    def takes_command(self, op: Op) -> bool:
        """Whether an operation of the main phase is a command's: not when the nemesis only sleeps
        or logs.
        """
        if op["type"] not in ("sleep", "log"):
            return True
        return self.ctx.process_to_thread(op["process"]) != NEMESIS

    def wait_behind_main(self, timeout: float | None) -> bool:
        """Keeps an operation that follows the last main_gen until the check."""
        if self.eager() and not self.running:
            self.begin_final()
            return True
        self.answer_command(EXHAUSTED)
        return self.take(ops=True) or self.wait(timeout)

    def forget_drawn(self) -> None:
        self.drawn = None
        self.gated = False

    def pending(self, timeout: float | None) -> bool:
        if self.running:
            # What runs may change the generator's mind.
            self.pending_since = None
            self.nothing_for_nemesis = not self.client_is_free()
            return self.take() or self.wait(timeout)
        if self.main and self.driven is not None:
            main = self.driven.main
            if main.exhausted and not main.live:
                if self.driven.on_exhausted == "finish":
                    self.begin_final()
                    return True
                self.answer_command(EXHAUSTED)
            if self.command is None:
                self.pending_since = None
                return self.take(ops=True) or self.wait(timeout)
        return self.ask_again(timeout)

    def ask_again(self, timeout: float | None) -> bool:
        """Waits a little: only time, or something outside, can change the generator's mind."""
        now = time.monotonic()
        if self.pending_since is None:
            self.pending_since = now
        elapsed = now - self.pending_since
        if self.driven is not None and not self.main and elapsed >= self.driven.drain_timeout:
            log.warning(
                "The generator has been pending for %g s after the check, with every thread free. "
                "The test ends without the rest of it: %.2000r",
                self.driven.drain_timeout,
                self.gen,
            )
            return False
        interval = min(max(elapsed / 10, _ASK_AGAIN_MIN), _ASK_AGAIN_MAX)
        return self.take() or self.wait(_earliest(timeout, interval))

    def exhausted(self, timeout: float | None) -> bool:
        if self.main:
            self.gen = None  # None is final: the commands were told so.
            if self.eager() and not self.running:
                self.begin_final()
                return False
            self.answer_ops(EXHAUSTED)
        elif not self.running:
            return False
        return self.take() or self.wait(timeout)

    def invoke(self, op: Op, gen: Generator | None, by_command: bool) -> None:
        thread = self.ctx.process_to_thread(op["process"])
        assert thread is not None  # The validator has looked.
        fifo = None
        if by_command:
            fifo, self.command = self.command, None
        # Before anything that may fail, so that the command is answered.
        self.running[thread] = (op, fifo)
        self.forget_drawn()
        op = self.record(op)
        self.running[thread] = (op, fifo)
        self.workers[thread].submit(op)
        self.ctx = self.ctx.busy_thread(op["time"], thread)
        self.gen = None if gen is None else gen.update(self.test, self.ctx, op)

    def complete(self, worker: Worker, op: Op) -> None:
        if self.workers.get(worker.thread) is not worker:
            return  # Given up before; the history says so already.
        thread = worker.thread
        now = self.now()
        op = self.record({**op, "time": now})
        self.ctx = self.ctx.free_thread(now, thread)
        # What was drawn may not come next any more.
        self.forget_drawn()
        self.command_waits = self.nothing_for_nemesis = False
        # With the old process, so that generators find the thread that this event is about.
        if self.gen is not None:
            self.gen = self.gen.update(self.test, self.ctx, op)
        if thread != NEMESIS and (op["type"] == "info" or op.get("end_process")):
            self.ctx = self.ctx.with_next_process(thread)
        _, fifo = self.running[thread]
        if fifo is not None:
            self.answer(fifo, f"{edn.dump_op(op)}\n")
        del self.running[thread]
        self.progress.completed(op)

    def record(self, op: Op) -> Op:
        """Puts an operation into the history, unless it is a sleep or a message. The history has
        its own copy: generators repeat their values, and clients may go on using theirs.
        """
        op = {**op, "index": len(self.history)}
        if op["type"] not in ("sleep", "log"):
            op = own(op)
            if self.store is not None:
                self.store.journal(op)
            self.history.append(op)
            self.observers.observe(op)
        return op

    def record_completions(self) -> None:
        """Records what was completed when the test ended early, for the history's sake."""
        for worker, op in self.completions:
            if self.workers[worker.thread] is worker:
                self.record({**op, "time": self.now()})

    def now(self) -> int:
        return time.monotonic_ns() - self.origin

    def wait(self, timeout: float | None) -> Literal[True]:
        self.bell.wait(_earliest(timeout, self.progress.show()))
        self.command_is_fresh = False
        return True

    # Commands

    def take(self, *, ops: bool = False) -> bool:
        """Takes a check, or an operation if `ops`; whether there was one, or a completion."""
        if isinstance(self.bell, _Bell):
            return self.bell.rung()
        self.want(ops)
        taken = self.bell.take()
        if isinstance(taken, FifoOp):
            self.accept(taken)
        elif taken is Signal.CLOSED:
            raise ClosedError("The composer was closed while the test was running.")
        return taken is not Signal.TIMEOUT

    def want(self, ops: bool) -> None:
        assert self.driven is not None
        if ops != self.wants_ops:
            self.wants_ops = ops
            self.driven.composer.want(ops=ops)

    def client_is_free(self) -> bool:
        return self.ctx.free_thread_count() > self.ctx.thread_free(NEMESIS)

    def wait_for_command(self, timeout: float | None) -> Literal[True]:
        """Waits until something can begin or is complete.

        Where only the nemesis is free, a command is seen without being taken: most often it has to
        wait for a client's thread, and the library says so if that takes too long.
        """
        if self.main and self.ctx.thread_free(NEMESIS) and not self.nothing_for_nemesis:
            assert self.driven is not None
            self.want(ops=True)
            if not self.client_is_free() and self.driven.composer.wait(0):
                self.command_waits = True
                return True
        return self.wait(timeout)

    def accept(self, fifo: FifoOp) -> None:
        assert self.driven is not None
        if fifo.kind is Kind.CHECK:
            log.info("Antithesis requested check; main phase ending...")
            self.driven.check = fifo
            self.begin_final()
        else:
            self.command = fifo
            self.command_is_fresh = time.monotonic_ns() - fifo.arrived_ns < _FRESH_NS

    def has_command(self) -> bool:
        """Whether a command waits for an operation to begin. One that died or was answered while it
        waited is dropped.
        """
        if self.command is not None and not self.command_is_fresh:
            if self.command.abandoned:
                self.answer_command("")
            self.command_is_fresh = True
        return self.command is not None

    def answer(self, fifo: FifoOp, out: str) -> None:
        log.debug("%s: %s", fifo.name, fifo.complete(out).value)

    def answer_command(self, out: str) -> None:
        """Answers the command in hand, if there is one, in place of an operation."""
        if self.command is not None:
            fifo, self.command = self.command, None
            self.answer(fifo, out)

    def answer_ops(self, out: str) -> None:
        """Answers every command that waits for an operation to begin, now or later."""
        assert self.driven is not None
        self.driven.composer.answer_all(Kind.OP, out)
        self.answer_command(out)

    def answer_everybody(self, out: str) -> None:
        """Answers every command that was taken, at the end of the test."""
        for fifo in (self.command, *(fifo for _, fifo in self.running.values())):
            if fifo is not None:
                # One may have been answered right before.
                with contextlib.suppress(ComposerError):
                    self.answer(fifo, out)

    def begin_final(self) -> None:
        assert self.driven is not None
        if not self.main:
            return
        self.main = False
        self.driven.main.over = True
        events.phase(self.test, "final")
        self.check_taken_at = time.monotonic()
        self.pending_since = None
        if self.driven.check is None:
            self.answer_ops(EXHAUSTED)
        else:
            # From here on the library says that the main phase has ended.
            self.driven.composer.withdraw(Kind.OP)
            self.answer_command(ENDED)
        if self.gated:
            self.gated = False  # Its time has come.
        else:
            self.forget_drawn()
        self.unproven = (
            not self.driven.main.seen and self.gen is not None and not has_main_gen(self.gen)
        )
        for thread, (op, _) in self.running.items():
            if op["type"] == "sleep":
                self.workers[thread].end_sleep()

    def give_up_overdue(self, driven: Driven) -> float | None:
        """After the check: operations that do not end become indeterminate. Seconds until the next
        one would, None without one.
        """
        nearest: float | None = None
        for thread, (op, _) in list(self.running.items()):
            if op["type"] in ("sleep", "log"):
                continue
            invoked_at = (self.origin + op["time"]) / 1e9
            left = max(invoked_at, self.check_taken_at) + driven.drain_timeout
            left -= time.monotonic()
            if left > 0:
                nearest = _earliest(nearest, left)
                continue
            log.warning("Gave up waiting for process %s: %s", op["process"], op)
            stuck = self.workers[thread]
            error = [Keyword("drain-timeout"), driven.drain_timeout]
            self.complete(stuck, {**op, "type": "info", "error": error})
            self.workers[thread] = self.hire(thread)
            stuck.exit()
            stuck.cancel()
        return nearest


class _Bell:
    """Wakes the interpreter of a test that runs by itself, as the composer does otherwise."""

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._lock = threading.Lock()

    def wake(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def rung(self) -> bool:
        """Whether there was a `wake` since the last call."""
        try:
            return os.eventfd_read(self._fd) > 0
        except BlockingIOError:
            return False

    def wait(self, timeout: float | None) -> None:
        self._poll.poll(milliseconds(timeout))

    def close(self) -> None:
        # A worker left behind may still call `wake`, on a number that is another file by then.
        with self._lock:
            os.close(self._fd)
            self._fd = -1


def _earliest(a: float | None, b: float | None) -> float | None:
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)
