"""Runs tests: set-up, generator, tear-down, checker, store.

A test is a dict. What Jepsen's tests have:

=================== ==========================================================================
``name``            where its files go; without a name (None) nothing is stored
``nodes``           the nodes' names; threads go round them. Default: n1 to n5
``concurrency``     how many client threads; default: one for each node
``client``          a `Client`
``nemesis``         a `Nemesis`
``generator``       see `generator`
``checker``         see `checker`
``leave_db_running`` leave the system as it is: clients are not torn down
``nonserializable_keys`` keys that are not written to ``test.json``
=================== ==========================================================================

Added while it runs: ``start_time``, ``store``, ``history``, ``results``. Of a test that Antithesis
drives, also these:

==================== =========================================================================
``fifo_dir``         the control directory; default: ``$JEPSEN_FIFO_DIR``, else /run/jepsen
``shared``           whether other users may write to it
``on_open``          commands that wait already: ``release`` (default) or ``adopt`` them
``on_exhausted``     when the generator has no more operations: ``wait`` for the check (default),
                     or ``finish``: analyse at once, and keep the verdict for the check
``after_check``      ``linger``: stay, and answer later checks (default inside Antithesis, where
                     the container has to stay up), or ``exit`` (default elsewhere)
``op_release_after`` seconds after which a command stops waiting for its operation; default: 60
``drain_timeout``    seconds that the check waits for an operation to end, for a client to
                     close or tear down, or for a generator that stays pending; default: 60
``setup_timeout``    seconds that the set-up may take, for commands may wait already; default: 600
``unknown_status``   the exit status of a check whose verdict is unknown; default: 0
==================== =========================================================================
"""

from __future__ import annotations

import contextlib
import logging
import math
import pprint
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any

from . import antithesis, checker, client, generator, nemesis
from .composer import Composer, FifoOp, Kind, Signal
from .errors import ComposerError
from .interpreter import EXHAUSTED, Driven, interpret
from .store import Store, logging_to, serializable_test
from .types import Test
from .waiting import seconds_left

log = logging.getLogger(__name__)

# Seconds that the tear-down may take when the test is interrupted.
_INTERRUPTED_PATIENCE = 5.0

DEFAULT_NODES = ("n1", "n2", "n3", "n4", "n5")


class SetupError(Exception):
    """A client or the nemesis could not be set up."""


class GeneratorUsed(generator.Generator):
    """Left in a test that was run, in place of its generator."""

    __slots__ = ()

    def op(self, test: Test, ctx: Any) -> None:
        """Raises: a generator is forgotten as it is used, so that an endless one can be freed."""
        raise RuntimeError("This test was run before. Make a new test map for every run.")


def noop_test() -> Test:
    """A test that does nothing, to build others on."""
    return {
        "name": "noop",
        "nodes": list(DEFAULT_NODES),
        "client": client.Noop(),
        "nemesis": nemesis.Noop(),
        "generator": None,
        "checker": checker.unbridled_optimism(),
    }


def prepare_test(test: Test) -> Test:
    """A copy of `test` with defaults for what it lacks. Takes the generator out of `test`."""
    prepared: Test = {
        **noop_test(),
        "name": None,
        "start_time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        **test,
    }
    if not prepared["nodes"]:
        raise ValueError("A test needs at least one node; its nodes are empty.")
    prepared.setdefault("concurrency", len(prepared["nodes"]))
    test["generator"] = GeneratorUsed()
    return prepared


def run(test: Test) -> Test:
    """Runs a test by itself, and returns it with ``history`` and ``results``.

    An exception in set-up, or of the generator, tears everything down and is raised again.
    """
    test = prepare_test(test)
    with _stored(test):
        run_case(test)
        return _analyze(test)


def run_antithesis(test: Test) -> Test:
    """Runs a test as Antithesis' test commands say, and returns it with ``history`` and
    ``results``.

    Opens the control directory, sets up, tells Antithesis so, gives every ``op`` command an
    operation, and answers the check with the verdict. With ``after_check: linger`` it then
    answers later commands, and returns only when a signal (Ctrl-C) or `Composer.close` ends that.

    When the harness fails, the check is told so, with exit status 1, and the exception is raised
    again: at once with ``after_check: exit``, or if nothing was set up; else after the lingering.
    """
    linger = test.get("after_check", "linger" if antithesis.inside() else "exit") == "linger"
    test = prepare_test(test)
    with (
        _stored(test),
        Composer(test.get("fifo_dir"), **_composer_options(test)) as composer,
    ):
        driven = Driven(
            composer,
            on_exhausted=test.get("on_exhausted", "wait"),
            op_release_after=test.get("op_release_after", 60.0),
            drain_timeout=test.get("drain_timeout", 60.0),
        )
        log.info("Waiting for FIFOs in %s", composer.directory)
        try:
            run_case(test, driven)
            with _Attendant(driven) as attendant:
                test = _analyze(test)
                attendant.join()
            notify_test_checked(test, driven.check)
        except Exception as error:
            log.exception("The test failed")
            _fail(driven, error, linger and not isinstance(error, SetupError))
            raise
        if linger:
            _linger(composer)
        return test


def _composer_options(test: Test) -> dict[str, Any]:
    return {key: test[key] for key in ("shared", "on_open") if key in test}


def notify_test_checked(test: Test, check: FifoOp | None) -> None:
    """Answers the check with the verdict: exit status 1 when the history is not valid,
    ``test["unknown_status"]`` when that is not known, else 0.
    """
    if check is None:
        return
    valid = test["results"]["valid"]
    if valid is True:
        check.complete("checked: valid\n")
        return
    store = test["store"]
    where = f"; see {store.path.resolve() / 'results.json'}" if store else ""
    if valid is False:
        check.complete(f"checked: invalid{where}\n", 1)
    else:
        check.complete(f"checked: unknown{where}\n", test.get("unknown_status", 0))


def run_case(test: Test, driven: Driven | None = None) -> Test:
    """Sets up nemesis and clients, runs the generator, tears down. Puts ``history`` into `test`.

    `test` is prepared (`prepare_test`).
    """
    setup_timeout = None if driven is None else test.get("setup_timeout", 600.0)
    teardown_timeout = None if driven is None else driven.drain_timeout
    with _set_up(test, setup_timeout, teardown_timeout):
        if driven is not None:
            antithesis.setup_complete({"test": test["name"]})
        test["relative_time_origin"] = time.monotonic_ns()
        test["history"] = interpret(test, driven)
    # Of no use to a checker, and to nobody after it.
    test.pop("antithesis_phase", None)
    return test


@contextlib.contextmanager
def _stored(test: Test) -> Iterator[None]:
    """The test's directory and log, for the duration of the body."""
    if test["name"] is None:
        test["store"] = None
        yield
        return
    store = test["store"] = Store(test["name"], test.get("store_dir", "store"))
    with contextlib.closing(store), logging_to(store.path / "jepsen.log"):
        store.save_test(test)
        log.info("Running test:\n%s", pprint.pformat(serializable_test(test)))
        try:
            yield
        except BaseException:
            log.warning("Test crashed!", exc_info=True)
            raise


def _analyze(test: Test) -> Test:
    log.info("Analyzing...")
    store = test["store"]
    if store is not None:
        store.save_history(test["history"])
    opts = {"dir": store.path if store else None}
    results = checker.check_safe(test["checker"], test, test["history"], opts)
    test["results"] = results
    if store is not None:
        store.save_results(results)
    verdict = {
        True: "Everything looks good! ヽ(‘ー`)ノ",
        False: "Analysis invalid! (ﾉಥ益ಥ）ﾉ ┻━┻",
        checker.UNKNOWN: "Errors occurred during analysis, but no anomalies found. ಠ~ಠ",
    }[results["valid"]]
    log.info("%s\n\n%s", pprint.pformat(results, sort_dicts=False), verdict)
    return test


# Set-up and tear-down


@contextlib.contextmanager
def _set_up(
    test: Test, setup_timeout: float | None, teardown_timeout: float | None
) -> Iterator[None]:
    barrier = threading.Barrier(len(test["nodes"]))

    def nemesis_up() -> None:
        test["nemesis"] = test["nemesis"].setup(test)

    def node_up(node: str) -> Callable[[], None]:
        def up() -> None:
            try:
                opened = test["client"].open(test, node)
                try:
                    opened.teardown(test)
                    barrier.wait()
                    opened.setup(test)
                finally:
                    opened.close(test)
            except BaseException:
                # The others must not wait for this one for ever.
                barrier.abort()
                raise

        return up

    def node_down(node: str) -> Callable[[], None]:
        def down() -> None:
            opened = test["client"].open(test, node)
            try:
                opened.teardown(test)
            finally:
                opened.close(test)

        return down

    nodes: Sequence[str] = test["nodes"]
    try:
        ups = [(f"jepsen node {node}", node_up(node)) for node in nodes]
        errors = _in_parallel([("jepsen nemesis", nemesis_up), *ups], setup_timeout)
        # A broken barrier only follows from an error elsewhere.
        errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
        if errors:
            # Nor for one that does not end.
            barrier.abort()
            raise SetupError(f"The set-up failed: {errors[0]!r}") from errors[0]
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            # Who interrupts a test that hangs gets the tear-down of what does not.
            teardown_timeout = min(teardown_timeout or math.inf, _INTERRUPTED_PATIENCE)
        raise
    finally:
        downs = [(f"jepsen node {node}", node_down(node)) for node in nodes]
        if test.get("leave_db_running"):
            downs = []
        parts = [("jepsen nemesis", lambda: test["nemesis"].teardown(test)), *downs]
        for failure in _in_parallel(parts, teardown_timeout):
            log.warning("Error while tearing down: %r", failure, exc_info=failure)


def _in_parallel(
    parts: Sequence[tuple[str, Callable[[], object]]], patience: float | None
) -> list[BaseException]:
    """Calls each function in a thread of its name, and returns what they raised. Those that take
    longer than `patience` seconds are left behind, with a TimeoutError.
    """
    errors: list[BaseException] = []

    def call(function: Callable[[], object]) -> None:
        try:
            function()
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=call, args=(function,), name=name, daemon=True)
        for name, function in parts
    ]
    deadline = None if patience is None else time.monotonic() + patience
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds_left(deadline))
        if thread.is_alive():
            errors.append(TimeoutError(f"{thread.name} does not end; it is left behind."))
    return list(errors)


# Commands outside of the interpreter


class _Attendant:
    """Answers ``op`` commands while a test whose generator ended before any check is analysed,
    and waits for the check. Does nothing when the check was taken already.
    """

    def __init__(self, driven: Driven) -> None:
        self._driven = driven
        self._thread = threading.Thread(target=self._attend, name="jepsen attendant", daemon=True)

    def __enter__(self) -> _Attendant:
        if self._driven.check is None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        # The thread ends when the composer is closed, if not before.
        pass

    def join(self) -> None:
        """Waits for the check."""
        if self._thread.ident is not None:
            self._thread.join()

    def _attend(self) -> None:
        try:
            self._driven.check = _next_check(self._driven.composer, EXHAUSTED)
        except ComposerError:
            log.exception("The control directory cannot be watched any more")


def _next_check(composer: Composer, out: str, timeout: float | None = None) -> FifoOp | None:
    """The next check; ``op`` commands before it are answered with `out`. None when the composer
    is closed, or after `timeout` seconds without a command.
    """
    while True:
        taken = composer.next(timeout)
        if isinstance(taken, FifoOp):
            if taken.kind is Kind.CHECK:
                return taken
            taken.complete(out)
        elif taken is not Signal.WOKEN:
            return None


def _fail(driven: Driven, error: Exception, linger: bool) -> None:
    """Answers every command with `error`: those that wait now, or, lingering, all to come."""
    out = f"failed: the harness failed: {error}\n"
    with contextlib.suppress(ComposerError):
        check = driven.check or _next_check(driven.composer, out, None if linger else 0)
        if check is not None:
            check.complete(out, 1)
            if linger:
                _linger(driven.composer)


def _linger(composer: Composer) -> None:
    """Lets the library answer later commands, until a signal or `Composer.close` ends that."""
    log.info("Checked; answering later commands until this is ended by a signal")
    with contextlib.suppress(KeyboardInterrupt):
        for fifo in composer:
            fifo.complete("ended: the test was checked\n")
