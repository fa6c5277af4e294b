"""The command line of a test.

>>> def my_test(options):
...     return {**options, "name": "register", "client": Client(), "generator": ..., "checker": ...}
>>> if __name__ == "__main__":
...     cli.run(cli.single_test_cmd(my_test), cli.antithesis_cmd(my_test))

Exit statuses: 0 valid, 1 invalid, 2 unknown, 130 interrupted, 254 wrong arguments, 255 the harness
itself failed, a checker included. SIGTERM is as Ctrl-C: the test is torn down, and what is known is
stored. ``antithesis`` exits 0 then: to be told to stop is no finding.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from . import antithesis, core, rand, serve
from .errors import ComposerError, LibraryError
from .options import DEFAULTS, OptionError, option
from .store import StoreError
from .types import Test
from .verdict import Verdict, verdict

log = logging.getLogger(__name__)

Options: TypeAlias = dict[str, Any]
TestFn: TypeAlias = Callable[[Options], Test]
"""Makes a test of the options: usually ``{**options, …}``."""
TestsFn: TypeAlias = Callable[[Options], Iterable[Test]]
"""Makes several tests of the options. One is made when the one before has ended."""
OptSpec: TypeAlias = Callable[[argparse.ArgumentParser], object]
"""Adds options of one's own to the parser."""

_USAGE_ERROR = 254
_CRASH = 255
_INTERRUPTED = 130


class Command:
    """A subcommand: its name, its options, and what it does. `main` returns the exit status;
    `companions` are commands that come with it.
    """

    def __init__(
        self,
        name: str,
        help: str,
        opt_specs: Sequence[OptSpec],
        main: Callable[[Options], int],
        opt_fn: Callable[[Options], Options],
        companions: Sequence[Command] = (),
    ) -> None:
        self.name = name
        self.help = help
        self.opt_specs = opt_specs
        self.main = main
        self.opt_fn = opt_fn
        self.companions = companions
        self.stopped_status = _INTERRUPTED
        """The exit status after SIGINT or SIGTERM."""


def single_test_cmd(
    test_fn: TestFn,
    *,
    opt_spec: OptSpec | None = None,
    opt_fn: Callable[[Options], Options] | None = None,
) -> Command:
    """``test``: runs the test by itself, ``--test-count`` times or until one is not valid.

    Comes with ``analyze``, which checks the history of an earlier run; see `core.analyze`. It makes
    the test of its own options, so give it those that the run had.

    `opt_spec` adds options to the parser; `opt_fn` changes the parsed options before the test is
    made of them.
    """

    def main(options: Options) -> int:
        status = 0
        for _ in range(options["test_count"]):
            status = _exit_status(core.run(test_fn(dict(options))))
            if status:
                break
        return status

    help = "run the test by itself"
    analyze = _analyze_cmd(test_fn, opt_spec, opt_fn)
    return _command("test", help, [_local_opt_spec], opt_spec, opt_fn, main, [analyze])


def antithesis_cmd(
    test_fn: TestFn,
    *,
    opt_spec: OptSpec | None = None,
    opt_fn: Callable[[Options], Options] | None = None,
) -> Command:
    """``antithesis``: runs the test as Antithesis' test commands say; see `core.run_antithesis`.
    Its verdict, its checkers and its clients' operations are properties (`antithesis.test`), unless
    ``--no-properties`` is given. Comes with ``analyze`` too.

    The parameters are those of `single_test_cmd`.
    """

    def main(options: Options) -> int:
        if options["test_count"] > 1:
            log.warning("Driven by Antithesis a test runs once, whatever --test-count says.")
        test = test_fn(dict(options))
        for key in _DRIVEN_KEYS & options.keys():
            test.setdefault(key, options[key])
        if antithesis.inside():
            # The container has to stay up.
            test.setdefault("after_check", "linger")
        if option(test, "properties"):
            test = antithesis.test(test)
        return _exit_status(core.run_antithesis(test))

    help = "run the test as Antithesis' test commands say"
    analyze = _analyze_cmd(test_fn, opt_spec, opt_fn)
    command = _command("antithesis", help, [_driven_opt_spec], opt_spec, opt_fn, main, [analyze])
    command.stopped_status = 0
    return command


def test_all_cmd(
    tests_fn: TestsFn,
    *,
    opt_spec: OptSpec | None = None,
    opt_fn: Callable[[Options], Options] | None = None,
) -> Command:
    """``test-all``: runs the tests that `tests_fn` makes of the options, one after the other, and
    says in the end what became of each. One that fails does not keep the others from running.

    The exit status is that of the worst: a harness that failed, invalid, unknown, valid. The other
    parameters are those of `single_test_cmd`.
    """

    def main(options: Options) -> int:
        outcomes: dict[Verdict, list[str]] = {outcome: [] for outcome in _OUTCOMES}
        for _ in range(options["test_count"]):
            for test in tests_fn(dict(options)):
                name = test.get("name")
                try:
                    outcome = verdict((test := core.run(test))["results"])
                except Exception:
                    log.critical("The test %s broke", name, exc_info=True)
                    outcome = Verdict.FAILED
                store = test.get("store")
                outcomes[outcome].append(str(name if store is None else store.path))
        for outcome, where in outcomes.items():
            if where:
                log.info("%s\n%s", _OUTCOMES[outcome], "\n".join(where))
        worst = next((outcome for outcome, where in outcomes.items() if where), Verdict.VALID)
        return _EXIT_STATUSES[worst]

    return _command(
        "test-all", "run all tests by themselves", [_local_opt_spec], opt_spec, opt_fn, main
    )


def serve_cmd() -> Command:
    """``serve``: shows the store in a browser. See `serve`."""

    def main(options: Options) -> int:
        base, host, port = options["store_dir"], options["host"], options["port"]
        try:
            server = serve.server(base, host, port)
        except OSError as error:
            where = f"the store {base}" if error.filename else f"{host}:{port}"
            raise OptionError(f"{where} cannot be served: {error.strerror or error}") from None
        with server:
            log.info("The store %s is on http://%s:%d", base, host, server.server_address[1])
            server.serve_forever()
        return 0

    help = "show the store in a browser"
    command = Command("serve", help, [_serve_opt_spec], main, lambda options: options)
    command.stopped_status = 0
    return command


def _analyze_cmd(
    test_fn: TestFn, opt_spec: OptSpec | None, opt_fn: Callable[[Options], Options] | None
) -> Command:
    def main(options: Options) -> int:
        path = options.pop("store") or Path(options["store_dir"], "latest")
        if not Path(path, "history.jsonl").is_file():
            raise argparse.ArgumentTypeError(f"analyze: there is no history.jsonl in {path}")
        return _exit_status(core.analyze(test_fn(dict(options)), path))

    help = "check the history of an earlier run again"
    return _command("analyze", help, [_analyze_opt_spec], opt_spec, opt_fn, main)


@contextlib.contextmanager
def _told_to_stop(stopped: list[int]) -> Iterator[None]:
    """In the body, SIGTERM and SIGINT raise KeyboardInterrupt; `stopped` collects their numbers.
    Without effect outside of the main thread, where Python handles no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> NoReturn:
        stopped.append(number)
        raise KeyboardInterrupt

    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Not where it is ignored, as in the background of a shell, or handled by somebody else.
        numbers.append(signal.SIGINT)
    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler or signal.SIG_DFL)


def run(*commands: Command, argv: Sequence[str] | None = None) -> NoReturn:
    """Runs the subcommand that `argv` (default: the process' arguments) names, and exits."""
    sys.exit(main(*commands, argv=argv))


def main(*commands: Command, argv: Sequence[str] | None = None) -> int:
    """As `run`, but returns the exit status. Wrong arguments still exit."""
    parser = _Parser(description="Run a Jepsen-style test.")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    companions = (companion for command in commands for companion in command.companions)
    named: dict[str, Command] = {}
    for command in (*commands, *companions):
        if command.name in named:
            continue
        named[command.name] = command
        sub = subparsers.add_parser(command.name, help=command.help, description=command.help)
        for opt_spec in command.opt_specs:
            opt_spec(sub)
        sub.set_defaults(command=command)
    arguments = sys.argv[1:] if argv is None else list(argv)
    options = vars(parser.parse_args(arguments))
    command = options.pop("command")
    options["argv"] = arguments
    stopped: list[int] = []
    level = logging.DEBUG if options.pop("verbose") else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s [%(threadName)s] %(message)s")
    try:
        options = command.opt_fn(options)
        if options.get("seed") is not None:
            rand.seed(options["seed"])
        log.info("Test options:\n%s", options)
        with _told_to_stop(stopped):
            status: int = command.main(options)
        return command.stopped_status if stopped else status
    except argparse.ArgumentTypeError as error:
        parser.error(str(error))
    except OptionError as error:
        log.critical("%s", error)
        return _USAGE_ERROR
    except (ComposerError, LibraryError, StoreError) as error:
        log.critical("%s", error)
        log.debug("Where that was", exc_info=True)
        return _CRASH
    except KeyboardInterrupt:
        return int(command.stopped_status)
    except Exception:
        if stopped:
            log.info("The test was told to stop, and has stopped", exc_info=True)
            return int(command.stopped_status)
        log.critical("Oh jeez, I'm sorry, the test broke. Here's why:", exc_info=True)
        return _CRASH


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # argparse's 2 would say "unknown".
        self.print_usage(sys.stderr)
        self.exit(_USAGE_ERROR, f"{self.prog}: {message}\n")


def _command(
    name: str,
    help: str,
    specs: list[OptSpec],
    opt_spec: OptSpec | None,
    opt_fn: Callable[[Options], Options] | None,
    main: Callable[[Options], int],
    companions: Sequence[Command] = (),
) -> Command:
    """A command that has the options of a test."""

    def resolved(options: Options) -> Options:
        options = _resolve(options)
        return options if opt_fn is None else opt_fn(options)

    own = [] if opt_spec is None else [opt_spec]
    return Command(name, help, [*specs, *own], main, resolved, companions)


def _test_opt_spec(parser: argparse.ArgumentParser, time_limit: float | None) -> None:
    add = parser.add_argument
    add("-n", "--node", action="append", metavar="HOSTNAME", help="a node; may be repeated")
    add("--nodes", metavar="LIST", help="nodes, separated by commas")
    add("--nodes-file", metavar="FILE", help="a file of nodes, one a line")
    add(
        "--concurrency",
        default="1n",
        metavar="NUMBER",
        help="how many client threads; 3n for 3 for each node (default: %(default)s)",
    )
    add(
        "--time-limit",
        type=_positive_float,
        default=time_limit,
        metavar="SECONDS",
        help=f"how long the test's generator runs (default: {time_limit or 'until the check'})",
    )
    add(
        "--test-count",
        type=_positive_int,
        default=1,
        metavar="NUMBER",
        help="how many times to run the test (default: %(default)s)",
    )
    add("--seed", type=int, help="makes random choices repeatable")
    add("--leave-db-running", action="store_true", help="leave the system as it is at the end")
    add("--store-dir", default="store", metavar="DIR", help="where results go (default: store)")
    add("-v", "--verbose", action="store_true", help="log every operation")


def _local_opt_spec(parser: argparse.ArgumentParser) -> None:
    _test_opt_spec(parser, time_limit=60)


def _analyze_opt_spec(parser: argparse.ArgumentParser) -> None:
    _test_opt_spec(parser, time_limit=None)
    parser.add_argument(
        "store",
        nargs="?",
        metavar="STORE",
        help="the directory of the run (default: latest in the store)",
    )


def _serve_opt_spec(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "-b",
        "--host",
        default="127.0.0.1",
        help="the address to listen on (default: %(default)s; 0.0.0.0 for everyone)",
    )
    add(
        "-p",
        "--port",
        type=_port,
        default=8080,
        help="the port to listen on; 0 for any (default: %(default)s)",
    )
    add("--store-dir", default="store", metavar="DIR", help="the store (default: %(default)s)")
    add("-v", "--verbose", action="store_true", help="log every request")


def _driven_opt_spec(parser: argparse.ArgumentParser) -> None:
    _test_opt_spec(parser, time_limit=None)
    # Only what is given: the test may have said the rest.
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--fifo-dir", metavar="DIR", help="control directory (default: $JEPSEN_FIFO_DIR)")
    add("--shared", action="store_true", help="accept one that other users may write to")
    add(
        "--on-open",
        choices=("release", "adopt"),
        help="commands that wait already: release them (default), or adopt them as operations",
    )
    add(
        "--on-exhausted",
        choices=("wait", "finish"),
        help="when the generator ends: wait for the check (default), or analyse at once",
    )
    add(
        "--after-check",
        choices=("linger", "exit"),
        help="stay and answer later checks (default inside Antithesis), or exit",
    )
    add(
        "--op-release-after",
        type=_positive_float,
        metavar="SECONDS",
        help=f"how long a command waits for its operation {_default('op_release_after')}",
    )
    add(
        "--drain-timeout",
        type=_positive_float,
        metavar="SECONDS",
        help=f"how long the check waits for operations to end {_default('drain_timeout')}",
    )
    add(
        "--setup-timeout",
        type=_positive_float,
        metavar="SECONDS",
        help=f"how long the set-up may take {_default('setup_timeout')}",
    )
    add(
        "--unknown-status",
        type=_status,
        metavar="STATUS",
        help=f"exit status of a check that finds no verdict {_default('unknown_status')}",
    )
    add(
        "--checker-failed-status",
        type=_status,
        metavar="STATUS",
        help=f"exit status of a check when a checker failed {_default('checker_failed_status')}",
    )
    add(
        "--no-properties",
        dest="properties",
        action="store_false",
        help="tell Antithesis of no properties but the test's own",
    )
    add(
        "--events",
        choices=("auto", "on", "off"),
        help="tell Antithesis of operations; auto: up to 100 a second (default: auto)",
    )
    parser.argument_default = None


def _default(key: str) -> str:
    return f"(default: {DEFAULTS[key]:g})"


_DRIVEN_KEYS = {
    "fifo_dir",
    "shared",
    "on_open",
    "on_exhausted",
    "after_check",
    "op_release_after",
    "drain_timeout",
    "setup_timeout",
    "unknown_status",
    "checker_failed_status",
    "properties",
    "events",
    "store_dir",
}


def _resolve(options: Options) -> Options:
    """Merges the ways to name nodes, and makes concurrency a number."""
    nodes: list[str] = []
    if path := options.pop("nodes_file"):
        try:
            nodes += Path(path).read_text().split()
        except OSError as error:
            raise argparse.ArgumentTypeError(f"--nodes-file: {error}") from None
    nodes += [n for n in re.split(r",\s*", options.pop("nodes") or "") if n]
    nodes += options.pop("node") or []
    nodes = nodes or list(core.DEFAULT_NODES)
    match = re.fullmatch(r"(\d+)(n?)", options["concurrency"])
    if not match or not int(match[1]):
        raise argparse.ArgumentTypeError(
            f"--concurrency {options['concurrency']}: must be a positive integer, optionally "
            "followed by n"
        )
    concurrency = int(match[1]) * (len(nodes) if match[2] else 1)
    return {**options, "nodes": nodes, "concurrency": concurrency}


# The worst first.
_OUTCOMES = {
    Verdict.FAILED: "Broken tests",
    Verdict.INVALID: "Invalid tests",
    Verdict.UNKNOWN: "Tests of which it is not known",
    Verdict.VALID: "Valid tests",
}

_EXIT_STATUSES = {
    Verdict.VALID: 0,
    Verdict.INVALID: 1,
    Verdict.UNKNOWN: 2,
    Verdict.FAILED: _CRASH,
}


def _exit_status(test: Test) -> int:
    return _EXIT_STATUSES[verdict(test["results"])]


def _positive_int(text: str) -> int:
    return int(_number(text, int, lambda n: n > 0, "a positive whole number"))


def _positive_float(text: str) -> float:
    return _number(text, float, lambda n: n > 0, "a positive number of seconds")


def _port(text: str) -> int:
    return int(_number(text, int, lambda n: 0 <= n <= 65535, "a port, from 0 to 65535"))


def _status(text: str) -> int:
    return int(_number(text, int, lambda n: 0 <= n <= 255, "an exit status, from 0 to 255"))


def _number(text: str, kind: type[float], allowed: Callable[[float], bool], what: str) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not allowed(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return value
