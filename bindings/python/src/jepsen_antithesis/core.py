"""Runs tests: set-up, generator, tear-down, checker, store.

A test is a dict. What Jepsen's tests have:

=================== ==========================================================================
``name``            where its files go; without a name (None) nothing is stored
``nodes``           the nodes' names; threads go round them. Default: n1 to n5
``concurrency``     how many client threads; default: one for each node
``client``          a `Client`, or an `AsyncClient`
``nemesis``         a `Nemesis`
``generator``       see `generator`
``checker``         see `checker`
``leave_db_running`` leave the system as it is: clients are not torn down
``nonserializable_keys`` keys that are not written to ``test.json``
=================== ==========================================================================

Added while it runs: ``start_time``, ``store``, ``history``, ``results``. When a test is interrupted
or fails, its results are unknown and say why, and what is known of the history is stored;
`analyze` checks it later. Of a test that Antithesis drives, also these:

==================== =========================================================================
``fifo_dir``         the control directory; default: ``$JEPSEN_FIFO_DIR``, else /run/jepsen
``shared``           whether other users may write to it
``on_open``          commands that wait already: ``release`` (default) or ``adopt`` them
``on_exhausted``     when the generator has no more operations: ``wait`` for the check (default),
                     or ``finish``: analyse at once, and keep the verdict for the check
``after_check``      ``linger``: stay, and answer later checks, or ``exit`` (default). The
                     ``antithesis`` command lingers by default inside Antithesis, where the
                     container has to stay up
``op_release_after`` seconds after which a command stops waiting for its operation; default: 10
``drain_timeout``    seconds that the check waits for an operation to end, for a client to
                     close or tear down, or for a generator that stays pending; default: 10
``setup_timeout``    seconds that the set-up may take, for commands may wait already; default: 600
``unknown_status``   the exit status of a check whose verdict is unknown; default: 0
``checker_failed_status`` the exit status of a check when a checker failed; default: 1
``properties``       False: the ``antithesis`` command does not wrap the test by `antithesis.test`,
                     and nothing is checked online
``events``           whether operations are events for Antithesis: ``on``, ``off``, or ``auto``
                     (default), up to 100 operations a second
``fs``               the ``f``s of the clients' operations, to declare their properties
==================== =========================================================================
"""

from __future__ import annotations

import contextlib
import logging
import math
import pprint
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from . import antithesis, checker, client, generator, nemesis
from . import verdict as verdicts
from .antithesis import events
from .client.awaiting import Loop
from .composer import Composer, Signal
from .history import History
from .interpreter import Driven, interpret
from .options import check_test, option
from .store import Store, logging_to, serializable_test
from .types import Test
from .waiting import seconds_left

log = logging.getLogger(__name__)

# Seconds that the tear-down may take when the test is interrupted.
_INTERRUPTED_PATIENCE = 5.0

DEFAULT_NODES = ("n1", "n2", "n3", "n4", "n5")


class SetupError(Exception):
    """A client or the nemesis could not be set up."""


class TeardownError(Exception):
    """The nemesis could not be torn down."""


class LeftBehind(TimeoutError):
    """A part of the set-up or tear-down took too long, and still runs."""


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
    """A copy of `test` with defaults for what it lacks. Takes the generator out of `test`.

    Raises OptionError, a ValueError, for a value that the test cannot run with, and TypeError for
    a generator that is none.
    """
    prepared: Test = {
        **noop_test(),
        "name": None,
        "start_time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        **test,
    }
    check_test(prepared)
    prepared.setdefault("concurrency", len(prepared["nodes"]))
    prepared["generator"] = generator.lift(prepared["generator"])
    test["generator"] = GeneratorUsed()
    return prepared


def run(test: Test) -> Test:
    """Runs a test by itself, and returns it with ``history`` and ``results``.

    An exception in set-up, of the generator or of the nemesis' tear-down tears everything else
    down and is raised again.
    """
    test = prepare_test(test)
    with _stored(test):
        run_case(test)
        return _analyze(test)


def analyze(test: Test, path: str | Path) -> Test:
    """Checks the history that a run left in the directory `path`, with ``test["checker"]``, and
    returns the test with ``history`` and ``results``. ``results.json`` and ``history.edn`` are
    written anew. FileNotFoundError when there is no history.
    """
    test = prepare_test(test)
    store = test["store"] = Store.reopen(path)
    with contextlib.closing(store), logging_to(store.path / "jepsen.log"):
        test["history"] = History.read(store.path / "history.jsonl")
        return _analyze(test)


def run_antithesis(test: Test) -> Test:
    """Runs a test as Antithesis' test commands say, and returns it with ``history`` and
    ``results``.

    Opens the control directory, sets up, tells Antithesis so, gives every ``op`` command an
    operation, answers the check with the verdict, and returns as `run` does. With ``after_check:
    linger`` later commands are answered too, until a signal (Ctrl-C) or `Composer.close` ends that.

    When the harness fails, every command that waits is told so, the check with exit status 1, and
    the exception is raised again: at once with ``after_check: exit``, or if nothing was set up;
    else after the lingering.
    """
    test = prepare_test(test)
    linger = option(test, "after_check") == "linger"
    with (
        # First: a directory that cannot be had leaves nothing in the store.
        Composer(test.get("fifo_dir"), **_composer_options(test)) as composer,
        _stored(test),
    ):
        driven = Driven(composer, option(test, "on_exhausted"), option(test, "drain_timeout"))
        log.info("Waiting for FIFOs in %s", composer.directory)
        try:
            run_case(test, driven)
            test = _analyze(test)
            notify_test_checked(test, driven)
        except Exception as error:
            log.exception("The test failed")
            driven.fail(error)
            if linger and not isinstance(error, SetupError):
                _linger(composer)
            raise
        if linger:
            _linger(composer)
        return test


def _composer_options(test: Test) -> dict[str, Any]:
    options: dict[str, Any] = {key: test[key] for key in ("shared", "on_open") if key in test}
    options["op_release_after"] = option(test, "op_release_after")
    return options


def notify_test_checked(test: Test, driven: Driven) -> None:
    """Answers the check with the verdict: its line and its exit status, as `verdict` says. Waits
    for the check if it has not come yet.
    """
    store = test["store"]
    path = store.path.resolve() / "results.json" if store else None
    results = test["results"]
    driven.answer_check(verdicts.line(results, path), verdicts.status(results, test))
    driven.await_check()


def run_case(test: Test, driven: Driven | None = None) -> Test:
    """Sets up nemesis and clients, runs the generator, tears down. Puts ``history`` into `test`.

    `test` is prepared (`prepare_test`). When it is driven, the library answers the commands from
    the moment that the generator ends, or something fails.
    """
    setup_timeout = None if driven is None else option(test, "setup_timeout")
    teardown_timeout = None if driven is None else driven.drain_timeout
    with _torn_down(test, teardown_timeout):
        try:
            _set_up(test, setup_timeout)
            if driven is not None:
                antithesis.setup_complete({"test": test["name"]})
            test["relative_time_origin"] = time.monotonic_ns()
            interpret(test, driven)
        except BaseException as error:
            if driven is not None:
                # Before the tear-down, which may take its time.
                driven.fail(error)
            raise
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
        log.info("Running test:\n%s", pretty(serializable_test(test)))
        try:
            yield
        except BaseException as error:
            log.warning("Test crashed!", exc_info=True)
            _save_what_is_known(test, store, error)
            log.info("What is known of the test is in %s", store.path)
            raise


def _save_what_is_known(test: Test, store: Store, error: BaseException) -> None:
    if "results" in test:
        return  # It was analysed before.
    if isinstance(error, Exception):
        why = "".join(traceback.format_exception(error))
    else:
        why = f"The test was interrupted ({type(error).__name__}) before it was analysed."
    test["results"] = {"valid": checker.UNKNOWN, "error": why}
    try:
        store.save_results(test["results"])
        store.save_history(test.get("history", ()))
    except Exception:
        log.warning("Could not store what is known of the test", exc_info=True)


def _analyze(test: Test) -> Test:
    log.info("Analyzing...")
    store = test["store"]
    if store is not None:
        store.save_history(test["history"])
    opts = {"dir": store.path if store else None}
    results = checker.check_safe(test["checker"], test, test["history"], opts)
    test["results"] = results
    events.phase(test, "checked")
    if store is not None:
        store.save_results(results)
    verdict = {
        verdicts.Verdict.VALID: "Everything looks good! ヽ(‘ー`)ノ",
        verdicts.Verdict.INVALID: "Analysis invalid! (ﾉಥ益ಥ）ﾉ ┻━┻",
        verdicts.Verdict.UNKNOWN: "Errors occurred during analysis, but no anomalies found. ಠ~ಠ",
        verdicts.Verdict.FAILED: "A checker failed, and no anomalies were found. ಠ_ಠ",
    }[verdicts.verdict(results)]
    where = "" if store is None else f"\n\nThe results are in {store.path}"
    log.info("%s\n\n%s%s", pretty(results), verdict, where)
    return test


def pretty(value: Any) -> str:
    """`value` as a log shows it, which no value may break."""
    try:
        return pprint.pformat(value, sort_dicts=False)
    except Exception as error:
        return f"<it cannot be shown: {type(error).__name__}>"


# Set-up and tear-down


def _set_up(test: Test, patience: float | None) -> None:
    nodes: Sequence[str] = test["nodes"]
    barrier = threading.Barrier(len(nodes))

    def nemesis_up(loop: Loop) -> None:
        test["nemesis"] = loop.settle(test["nemesis"].setup(test))

    def node_up(node: str) -> Callable[[Loop], None]:
        def up(loop: Loop) -> None:
            try:
                opened = loop.settle(test["client"].open(test, node))
                try:
                    loop.settle(opened.teardown(test))
                    barrier.wait()
                    loop.settle(opened.setup(test))
                finally:
                    loop.settle(opened.close(test))
            except BaseException:
                # The others must not wait for this one for ever.
                barrier.abort()
                raise

        return up

    ups = [(f"jepsen node {node}", node_up(node)) for node in nodes]
    errors = [error for _, error in _in_parallel([("jepsen nemesis", nemesis_up), *ups], patience)]
    # A broken barrier only follows from an error elsewhere.
    errors.sort(key=lambda error: isinstance(error, threading.BrokenBarrierError))
    if errors:
        # Nor for one that does not end.
        barrier.abort()
        raise SetupError(f"The set-up failed: {errors[0]!r}") from errors[0]


@contextlib.contextmanager
def _torn_down(test: Test, patience: float | None) -> Iterator[None]:
    """Tears down after the body. What the nemesis' tear-down raises is raised, for the faults may
    still be there. A client's is logged: its node may be down, and the history is complete.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception):
            # After an interrupt, tear down what still responds, and do not wait for the rest.
            patience = min(patience or math.inf, _INTERRUPTED_PATIENCE)
        _tear_down(test, patience)
        raise
    error_of_nemesis = _tear_down(test, patience)
    if error_of_nemesis is not None:
        raise TeardownError(
            f"The nemesis' tear-down raised {error_of_nemesis!r}"
        ) from error_of_nemesis


def _tear_down(test: Test, patience: float | None) -> BaseException | None:
    """Tears down, and returns what the nemesis raised."""

    def nemesis_down(loop: Loop) -> None:
        loop.settle(test["nemesis"].teardown(test))

    def node_down(node: str) -> Callable[[Loop], None]:
        def down(loop: Loop) -> None:
            opened = loop.settle(test["client"].open(test, node))
            try:
                loop.settle(opened.teardown(test))
            finally:
                loop.settle(opened.close(test))

        return down

    downs = [(f"jepsen node {node}", node_down(node)) for node in test["nodes"]]
    if test.get("leave_db_running"):
        downs = []
    of_nemesis: BaseException | None = None
    for name, error in _in_parallel([("jepsen nemesis", nemesis_down), *downs], patience):
        log.warning("Error while tearing down, in %s: %r", name, error, exc_info=error)
        if name == "jepsen nemesis" and not isinstance(error, LeftBehind):
            of_nemesis = error
    return of_nemesis


def _in_parallel(
    parts: Sequence[tuple[str, Callable[[Loop], object]]], patience: float | None
) -> list[tuple[str, BaseException]]:
    """Calls each function in a thread of its name, with the thread's event loop, and returns what
    they raised, with the name. Those that take longer than `patience` seconds are left behind, with
    a LeftBehind.
    """
    errors: list[tuple[str, BaseException]] = []

    def call(name: str, function: Callable[[Loop], object]) -> None:
        try:
            with contextlib.closing(Loop()) as loop:
                function(loop)
        except BaseException as error:
            errors.append((name, error))

    threads = [
        threading.Thread(target=call, args=part, name=part[0], daemon=True) for part in parts
    ]
    deadline = None if patience is None else time.monotonic() + patience
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds_left(deadline))
        if thread.is_alive():
            left = LeftBehind(f"{thread.name} does not end; it is left behind.")
            errors.append((thread.name, left))
    return list(errors)


def _linger(composer: Composer) -> None:
    """Lets the library answer later commands, until a signal or `Composer.close` ends that."""
    log.info("Answering later commands until this is ended by a signal")
    with contextlib.suppress(KeyboardInterrupt):
        while composer.next() is not Signal.CLOSED:
            pass
