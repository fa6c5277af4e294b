"""The interpreter: runs a generator's operations on worker threads, and records the history.

Driven by Antithesis, it gives every operation of the main phase to one waiting test command, and
answers the command with the operation's completion. It waits for commands and for its workers in
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
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Literal

from . import edn
from .attendant import ENDED, EXHAUSTED, STOPPED, Attendant, failed
from .composer import Composer, FifoOp, Kind, Signal
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
from .progress import Progress
from .types import NEMESIS, Op, Test, Thread
from .waiting import milliseconds
from .worker import Worker

log = logging.getLogger(__name__)

# How long workers may take to close their clients when the test is interrupted.
_INTERRUPTED_GRACE = 1.0

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
    on_exhausted: Literal["wait", "finish"] = "wait"
    op_release_after: float = 10.0
    drain_timeout: float = 10.0
    main: MainPhase = field(default_factory=MainPhase)
    attendant: Attendant = field(init=False)
    """Answers commands while no interpreter does."""
    check: FifoOp | None = None
    """The check that was taken, to be completed with the verdict; see `taken_check`."""

    def __post_init__(self) -> None:
        self.attendant = Attendant(self.composer)

    def taken_check(self) -> FifoOp | None:
        """The check that was taken, by the interpreter or by the attendant."""
        return self.check or self.attendant.check


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

        self.bell: Composer | _Bell = _Bell() if driven is None else driven.composer
        self.completions: deque[tuple[Worker, Op]] = deque()
        self.workers: dict[Thread, Worker] = {t: self.hire(t) for t in self.ctx.all_threads()}
        # What each busy thread works on, and the command that waits for it, if any still does.
        self.running: dict[Thread, tuple[Op, FifoOp | None]] = {}
        # Commands that wait for an operation to begin, oldest first.
        self.held: deque[FifoOp] = deque()
        # When each waiting command is let go, by its id; oldest first.
        self.releases: OrderedDict[int, tuple[float, FifoOp]] = OrderedDict()
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
        try:
            while self.step():
                pass
            self.dismiss(self.patience())
        except BaseException as error:
            log.info("Shutting down workers after an abnormal end")
            interrupted = not isinstance(error, Exception)
            grace = _INTERRUPTED_GRACE if interrupted else self.patience()
            out = STOPPED if interrupted else failed(error)
            self.answer_all(out)
            if self.driven is not None and self.driven.check is None:
                # From now on, for a client that hangs may keep the workers.
                self.driven.attendant.attend(out)
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
            if not worker.join(deadline):
                log.warning("Worker %s does not end; it is left behind", worker.thread)

    # One step: a completion, else a command, else an operation, else wait

    def step(self) -> bool:
        """Does the next thing; False when there is none left."""
        if self.completions:
            self.complete(*self.completions.popleft())
            return True
        timeout = self.expire()
        fresh = self.drawn is None
        if self.drawn is None:
            if not self.may_ask():
                return self.take() or self.wait(timeout)
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
            # Commands are taken meanwhile, for there may be a check among them.
            return self.take() or self.wait(_earliest(timeout, seconds))
        fifo: FifoOp | None = None
        if self.main and self.takes_command(op):
            if not fresh:
                self.drop_abandoned()
            if not self.held:
                return self.take() or self.wait(timeout)
            fifo = self.held[0]
        if not fresh:
            op = {**op, "time": self.now()}  # When it really begins.
        self.invoke(op, gen, fifo)
        return True

    def may_ask(self) -> bool:
        """Whether an operation could begin: a thread is free, and in the main phase of a driven
        test a command waits.
        """
        if not self.ctx.free_thread_count():
            return False
        if not self.main:
            return True
        self.drop_abandoned()
        return bool(self.held) or (self.eager() and not self.running)

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
        self.answer_held(EXHAUSTED)
        return self.take() or self.wait(timeout)

    def forget_drawn(self) -> None:
        self.drawn = None
        self.gated = False

    def pending(self, timeout: float | None) -> bool:
        if self.running:
            # What runs may change the generator's mind.
            self.pending_since = None
            return self.take() or self.wait(timeout)
        if self.main and self.driven is not None:
            main = self.driven.main
            if main.exhausted and not main.live:
                if self.driven.on_exhausted == "finish":
                    self.begin_final()
                    return True
                self.answer_held(EXHAUSTED)
            if not self.held:
                self.pending_since = None
                return self.take() or self.wait(timeout)
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
            self.answer_held(EXHAUSTED)
        elif not self.running:
            return False
        return self.take() or self.wait(timeout)

    def invoke(self, op: Op, gen: Generator | None, fifo: FifoOp | None) -> None:
        thread = self.ctx.process_to_thread(op["process"])
        assert thread is not None  # The validator has looked.
        # First of all, so that the command is answered whatever fails from here on.
        self.running[thread] = (op, fifo)
        if fifo is not None:
            self.held.popleft()
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
        return True

    # Commands

    def take(self) -> bool:
        """Takes a command; whether there was one, or a completion."""
        if isinstance(self.bell, _Bell):
            return self.bell.rung()
        taken = self.bell.take()
        if isinstance(taken, FifoOp):
            self.hold(taken)
        elif taken is Signal.CLOSED:
            raise ClosedError("The composer was closed while the test was running.")
        return taken is not Signal.TIMEOUT

    def hold(self, fifo: FifoOp) -> None:
        assert self.driven is not None
        if fifo.kind is Kind.CHECK:
            log.info("Antithesis requested check; main phase ending...")
            self.driven.check = fifo
            self.begin_final()
        elif self.main:
            self.held.append(fifo)
            self.releases[fifo.id] = (time.monotonic() + self.driven.op_release_after, fifo)
        else:
            # Before a check only where the test did not wait for one.
            fifo.complete(EXHAUSTED if self.driven.check is None else ENDED)

    def begin_final(self) -> None:
        assert self.driven is not None
        if not self.main:
            return
        self.main = False
        self.driven.main.over = True
        self.check_taken_at = time.monotonic()
        self.pending_since = None
        self.answer_held(EXHAUSTED if self.driven.check is None else ENDED)
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

    def answer(self, fifo: FifoOp, out: str) -> None:
        self.releases.pop(fifo.id, None)
        log.debug("%s: %s", fifo.name, fifo.complete(out).value)

    def drop_abandoned(self) -> None:
        """Forgets commands that died before an operation of theirs began."""
        while self.held and self.held[0].abandoned:
            self.answer(self.held.popleft(), "")

    def answer_held(self, out: str) -> None:
        while self.held:
            self.answer(self.held.popleft(), out)

    def answer_all(self, out: str) -> None:
        """Answers every command that waits, at the end of the test."""
        waiting = [*self.held, *(fifo for _, fifo in self.running.values() if fifo is not None)]
        for fifo in waiting:
            # One may have been answered right before.
            with contextlib.suppress(ComposerError):
                self.answer(fifo, out)

    # Deadlines

    def expire(self) -> float | None:
        """Acts on what is overdue; seconds until the next deadline, None without one."""
        if self.driven is None:
            return None
        due = self.release_overdue()
        return due if self.main else _earliest(due, self.give_up_overdue())

    def release_overdue(self) -> float | None:
        """Lets commands go that wait for too long; what they wait for goes on."""
        assert self.driven is not None
        while self.releases:
            deadline, fifo = next(iter(self.releases.values()))
            left = deadline - time.monotonic()
            if left > 0:
                return left
            after = f"{self.driven.op_release_after:g} s"
            for thread, (op, waiting) in self.running.items():
                if waiting is fifo:
                    self.running[thread] = (op, None)
                    self.answer(fifo, f"running: not complete after {after}: {edn.dump_op(op)}\n")
                    break
            else:
                self.held.remove(fifo)
                self.answer(fifo, f"waiting: no operation could begin within {after}\n")
        return None

    def give_up_overdue(self) -> float | None:
        """After the check: operations that do not end become indeterminate."""
        assert self.driven is not None
        nearest: float | None = None
        for thread, (op, _) in list(self.running.items()):
            if op["type"] in ("sleep", "log"):
                continue
            invoked_at = (self.origin + op["time"]) / 1e9
            left = max(invoked_at, self.check_taken_at) + self.driven.drain_timeout
            left -= time.monotonic()
            if left > 0:
                nearest = _earliest(nearest, left)
                continue
            log.warning("Gave up waiting for process %s: %s", op["process"], op)
            stuck = self.workers[thread]
            error = [Keyword("drain-timeout"), self.driven.drain_timeout]
            self.complete(stuck, {**op, "type": "info", "error": error})
            self.workers[thread] = self.hire(thread)
            stuck.exit()
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
