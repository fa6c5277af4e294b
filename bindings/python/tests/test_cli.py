"""The command line, and harnesses as processes of their own."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from driving import EXAMPLES, LONG, PLAIN, Driver, Script, eventually, results

from jepsen_antithesis import History, Test, cli, client
from jepsen_antithesis import generator as gen
from jepsen_antithesis.rand import rng

BANK = str(EXAMPLES / "bank.py")


def options(*argv: str, name: str = "test") -> dict[str, Any]:
    """What a test function is given for a command line."""
    seen: dict[str, Any] = {}

    def test_fn(options: dict[str, Any]) -> Test:
        seen.update(options)
        raise InterruptedError

    commands = (cli.single_test_cmd(test_fn), cli.antithesis_cmd(test_fn))
    assert cli.main(*commands, argv=[name, *argv]) == 255
    return seen


class TestOptions:
    def test_defaults_are_jepsens(self) -> None:
        found = options()
        assert found["nodes"] == ["n1", "n2", "n3", "n4", "n5"]
        assert found["concurrency"] == 5
        assert found["time_limit"] == 60
        assert found["test_count"] == 1
        assert found["leave_db_running"] is False
        assert found["argv"] == ["test"]

    def test_a_driven_test_has_no_time_limit(self) -> None:
        assert options(name="antithesis")["time_limit"] is None
        assert options("--time-limit", "7", name="antithesis")["time_limit"] == 7

    @pytest.mark.parametrize(
        ("concurrency", "number"), [("5", 5), ("1n", 3), ("2n", 6), ("10", 10)]
    )
    def test_concurrency(self, concurrency: str, number: int) -> None:
        found = options("--nodes", "a,b,c", "--concurrency", concurrency)
        assert found["concurrency"] == number

    def test_nodes_are_merged(self, tmp_path: Path) -> None:
        path = tmp_path / "nodes"
        path.write_text("a\nb\n")
        found = options("--nodes-file", str(path), "--nodes", "c, d", "-n", "e", "--node", "f")
        assert found["nodes"] == list("abcdef")

    def test_ones_own(self) -> None:
        seen: dict[str, Any] = {}

        def test_fn(options: dict[str, Any]) -> Test:
            seen.update(options)
            raise InterruptedError

        command = cli.single_test_cmd(
            test_fn,
            opt_spec=lambda parser: parser.add_argument("--bug", action="store_true"),
            opt_fn=lambda options: {**options, "more": 1},
        )
        cli.main(command, argv=["test", "--bug"])
        assert seen["bug"] is True
        assert seen["more"] == 1

    def test_seed_repeats_random_choices(self) -> None:
        def draw() -> list[int]:
            options("--seed", "7")
            return [rng.randrange(1000) for _ in range(5)]

        assert draw() == draw()

    @pytest.mark.parametrize(
        "argv",
        [
            [],
            ["nonsense"],
            ["test", "--nonsense"],
            ["test", "--concurrency", "many"],
            ["test", "--concurrency", "0"],
            ["test", "--concurrency", "3m"],
            ["test", "--time-limit", "0"],
            ["test", "--time-limit", "soon"],
            ["test", "--test-count", "-1"],
            ["test", "--nodes-file", "/nowhere/nodes"],
            ["test", "--fifo-dir", "/tmp"],
            ["antithesis", "--on-exhausted", "panic"],
            ["antithesis", "--unknown-status", "256"],
        ],
    )
    def test_wrong_ones_exit_254(self, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        def test_fn(options: dict[str, Any]) -> Test:
            raise AssertionError("not reached")

        commands = (cli.single_test_cmd(test_fn), cli.antithesis_cmd(test_fn))
        with pytest.raises(SystemExit) as exited:
            cli.main(*commands, argv=argv)
        assert exited.value.code == 254
        assert "usage: " in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (["--time-limit", "-3"], "'-3' is not a positive number of seconds"),
            (["--time-limit", "nan"], "'nan' is not a positive number of seconds"),
            (["--drain-timeout", "soon"], "'soon' is not a positive number of seconds"),
            (["--test-count", "0"], "'0' is not a positive whole number"),
            (["--unknown-status", "300"], "'300' is not an exit status, from 0 to 255"),
            (["--checker-failed-status", "-1"], "'-1' is not an exit status, from 0 to 255"),
            (["--concurrency", "0"], "must be a positive integer"),
            (["--after-check", "lingr"], "choose from"),
        ],
    )
    def test_wrong_ones_are_told_in_words(
        self, argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as exited:
            options(*argv, name="antithesis")
        assert exited.value.code == 254
        told = capsys.readouterr().err
        assert message in told
        assert "_positive" not in told

    def test_wrong_ones_of_the_test_exit_254(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        def test_fn(options: dict[str, Any]) -> Test:
            return {**options, "name": "wrong", "concurrency": 0}

        argv = ["test", "--store-dir", str(tmp_path)]
        assert cli.main(cli.single_test_cmd(test_fn), argv=argv) == 254
        assert "The test's concurrency is 0" in caplog.text
        assert list(tmp_path.iterdir()) == []

    def test_help(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as exited:
            cli.run(cli.antithesis_cmd(lambda options: options), argv=["antithesis", "--help"])
        assert exited.value.code == 0
        assert "--drain-timeout" in capsys.readouterr().out


class TestExitStatus:
    @pytest.mark.parametrize(("valid", "status"), [(True, 0), (False, 1), ("unknown", 2)])
    def test_is_the_verdict(self, tmp_path: Path, valid: Any, status: int) -> None:
        def test_fn(options: dict[str, Any]) -> Test:
            return {
                **options,
                "name": "verdict",
                "checker": lambda test, history, opts: {"valid": valid},
            }

        argv = ["test", "--store-dir", str(tmp_path)]
        assert cli.main(cli.single_test_cmd(test_fn), argv=argv) == status

    def test_255_when_a_checker_fails(self, tmp_path: Path) -> None:
        def test_fn(options: dict[str, Any]) -> Test:
            return {**options, "name": "verdict", "checker": lambda test, history: {"valid": True}}

        argv = ["test", "--store-dir", str(tmp_path)]
        assert cli.main(cli.single_test_cmd(test_fn), argv=argv) == 255

    def test_255_when_the_harness_fails(self, tmp_path: Path) -> None:
        def test_fn(options: dict[str, Any]) -> Test:
            return {**options, "generator": 5}

        assert cli.main(cli.single_test_cmd(test_fn), argv=["test"]) == 255

    def test_a_test_is_repeated_until_it_is_not_valid(self, tmp_path: Path) -> None:
        runs: list[int] = []

        def test_fn(options: dict[str, Any]) -> Test:
            runs.append(1)
            n = len(runs)
            return {
                **options,
                "name": "repeated",
                "client": client.Noop(),
                "generator": gen.clients({"f": "read"}),
                "checker": lambda test, history, opts: {"valid": n < 3},
            }

        argv = ["test", "--store-dir", str(tmp_path), "--test-count"]
        assert cli.main(cli.single_test_cmd(test_fn), argv=[*argv, "2"]) == 0
        assert len(runs) == 2
        assert cli.main(cli.single_test_cmd(test_fn), argv=[*argv, "9"]) == 1
        assert len(runs) == 3
        assert len(list((tmp_path / "repeated").glob("2*"))) == 3


class TestAnalyze:
    """`analyze` comes with the other commands, and checks what an earlier run left."""

    @staticmethod
    def analyze(driver: Driver, *argv: str) -> int:
        db = ("--db", str(driver.tmp / "bank.db"), "--store-dir", str(driver.store))
        return driver.python(BANK, "analyze", *db, *argv).result()[0]

    def test_a_run_that_ended(self, driver: Driver) -> None:
        argv = ["--store-dir", str(driver.store), "--db", str(driver.tmp / "bank.db")]
        script = driver.python(BANK, "test", "--time-limit", "0.3", *argv)
        assert script.result()[0] == 0
        path = driver.store / "latest"
        before = json.loads((path / "results.json").read_text())
        edn = (path / "history.edn").read_text()
        (path / "results.json").unlink()
        # The keys of the balances are numbers, as they were.
        assert self.analyze(driver) == 0
        assert json.loads((path / "results.json").read_text()) == before
        assert (path / "history.edn").read_text() == edn

    def test_a_run_that_was_killed(self, driver: Driver) -> None:
        bank = TestBank().start(driver, "--bug")
        TestBank.ops(driver, 320)
        bank.kill(signal.SIGKILL)
        bank.process.wait(LONG)
        path = (driver.store / "latest").resolve()
        assert not (path / "results.json").exists()
        assert self.analyze(driver, str(path)) == 1
        found = json.loads((path / "results.json").read_text())
        assert found["bank"]["errors"]["wrong-total"]["count"] > 0

    def test_nothing(self, driver: Driver) -> None:
        assert self.analyze(driver) == 254
        assert self.analyze(driver, str(driver.tmp)) == 254


class TestBank:
    def start(self, driver: Driver, *argv: str) -> Script:
        store = ("--store-dir", str(driver.store), "--db", str(driver.tmp / "bank.db"))
        harness = driver.python(BANK, "antithesis", "--concurrency", "8", *store, *argv)
        log = driver.store / "bank" / "latest" / "history.jsonl"
        # The journal is there before the control directory, and set-up comes last.
        eventually(lambda: log.exists() and driver.alive(harness))
        return harness

    @staticmethod
    def ops(driver: Driver, n: int) -> None:
        """Runs `n` op commands, eight at a time."""
        for _ in range(n // 8):
            assert {r[0] for r in results([driver.native("op") for _ in range(8)])} == {0}

    def test_runs_by_itself(self, driver: Driver) -> None:
        argv = ["--store-dir", str(driver.store), "--db", str(driver.tmp / "bank.db")]
        script = driver.python(BANK, "test", "--time-limit", "0.5", "--concurrency", "8", *argv)
        assert script.result()[0] == 0
        found = json.loads((driver.store / "latest" / "results.json").read_text())
        assert found["bank"]["read_count"] > 10

    def test_keeps_its_money(self, driver: Driver) -> None:
        harness = self.start(driver)
        self.ops(driver, 80)
        assert driver.native("check").result() == (0, "checked: valid\n")
        assert harness.result()[0] == 0
        history = History.read(driver.store / "latest" / "history.jsonl")
        reads = [op for op in history.oks() if op["f"] == "read"]
        assert {sum(op["value"].values()) for op in reads} == {100}
        assert len(history.invokes()) == 80 + 8, "every thread reads after the check"

    def test_is_caught_when_it_does_not(self, driver: Driver) -> None:
        harness = self.start(driver, "--bug")
        self.ops(driver, 320)
        status, out = driver.native("check").result()
        assert status == 1
        assert out.startswith("checked: invalid; see ")
        assert harness.result()[0] == 1
        found = json.loads((driver.store / "latest" / "results.json").read_text())
        assert found["bank"]["errors"]["wrong-total"]["count"] > 0


IDLE = """
import sys
from jepsen_antithesis import cli, client, generator as gen
def test(options):
    return {
        **options, "name": "idle", "client": client.Noop(),
        "generator": gen.clients(gen.main_gen(gen.repeat({"f": "read"}))),
    }
cli.run(cli.antithesis_cmd(test))
"""

ENDLESS = """
import os
from jepsen_antithesis import cli, client, generator as gen
class Torn(client.Noop):
    up = False
    def setup(self, test):
        Torn.up = True
    def teardown(self, test):
        if Torn.up:
            with open(os.environ["TORN"], "a") as file:
                file.write("down\\n")
def test(options):
    return {
        **options, "name": "idle", "client": Torn(),
        "generator": gen.clients(gen.main_gen(gen.delay(0.001, gen.repeat({"f": "read"})))),
    }
cli.run(cli.single_test_cmd(test), cli.antithesis_cmd(test))
"""

INVALID = """
from jepsen_antithesis import cli, client
def test(options):
    return {
        **options, "name": "idle", "client": client.Noop(),
        "checker": lambda test, history, opts: {"valid": False},
    }
cli.run(cli.antithesis_cmd(test))
"""

RANDOM = """
from jepsen_antithesis import cli, client, generator as gen
from jepsen_antithesis.rand import rng
def write():
    return {"f": "write", "value": rng.randrange(10**9)}
def test(options):
    main = gen.mix([write, gen.repeat({"f": "read"}), gen.stagger(0.02, gen.repeat({"f": "cas"}))])
    return {
        **options, "name": "idle", "client": client.Noop(),
        "generator": gen.clients(gen.phases(gen.main_gen(main), gen.once(write))),
    }
cli.run(cli.antithesis_cmd(test))
"""

HANGING = """
import threading
from jepsen_antithesis import Client, cli, generator as gen
class Hanging(Client):
    def invoke(self, test, op):
        if op["f"] == "hang":
            threading.Event().wait()
        return {**op, "type": "ok"}
def test(options):
    main = [{"f": "read"}] * 3 + [gen.repeat({"f": "hang"})]
    return {
        **options, "name": "idle", "client": Hanging(),
        "generator": gen.clients(gen.main_gen(main)),
    }
cli.run(cli.antithesis_cmd(test))
"""


class TestProcess:
    def start(self, driver: Driver, text: str, *argv: str, **env: str) -> Script:
        harness = driver.python(
            "-c", text, "antithesis", "--store-dir", str(driver.store), *argv, **env
        )
        eventually(lambda: driver.alive(harness))
        return harness

    def test_lingers_inside_antithesis(self, driver: Driver) -> None:
        harness = self.start(driver, IDLE, ANTITHESIS_OUTPUT_DIR=str(driver.tmp))
        assert driver.op().result()[0] == 0
        first = driver.native("check").result()
        assert first == (0, "checked: valid\n")
        assert driver.native("check").result() == first
        assert driver.native("op").result()[0] == 0
        assert harness.running()
        harness.kill(signal.SIGTERM)
        assert harness.result()[0] == 0

    def test_exits_after_the_check_elsewhere(self, driver: Driver) -> None:
        harness = self.start(driver, IDLE)
        assert driver.op().result()[0] == 0
        assert driver.native("check").result() == (0, "checked: valid\n")
        assert harness.result()[0] == 0
        assert driver.fifos() == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it_and_releases_everybody(self, driver: Driver, number: int) -> None:
        harness = self.start(driver, HANGING, "--concurrency", "2")
        for _ in range(3):
            assert driver.op().result()[0] == 0
        waiting = [driver.op(PLAIN) for _ in range(4)]
        waiting += [driver.native("op", "--lost", "0") for _ in range(4)]
        eventually(lambda: len(driver.fifos()) == 8)
        sent = time.monotonic()
        harness.kill(number)
        assert harness.result()[0] == 0, "to be told to stop is no finding"
        assert time.monotonic() - sent < 10
        assert {status for status, _ in results(waiting)} == {0}
        assert driver.fifos() == []

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("command", ["test", "antithesis"])
    def test_a_signal_tears_down_and_stores_what_is_known(
        self, driver: Driver, number: int, command: str
    ) -> None:
        torn = driver.tmp / "torn"
        harness = driver.python(
            "-c", ENDLESS, command, "--store-dir", str(driver.store), TORN=str(torn)
        )
        if command == "antithesis":
            eventually(lambda: driver.alive(harness))
            assert driver.op().result()[0] == 0
        journal = driver.store / "idle" / "latest" / "history.jsonl"
        eventually(lambda: journal.exists() and len(History.read(journal)) >= 2)
        assert not torn.exists()
        harness.kill(number)
        assert harness.result()[0] == (130 if command == "test" else 0)
        assert torn.read_text() == "down\n" * 5
        path = driver.store / "latest"
        results = json.loads((path / "results.json").read_text())
        assert results["valid"] == "unknown"
        assert "interrupted" in results["error"]
        history = History.read(journal)
        assert len((path / "history.edn").read_text().splitlines()) == len(history)
        assert {op["type"] for op in history} >= {"invoke", "ok"}

    def test_told_to_stop_after_an_invalid_history_it_exits_0(self, driver: Driver) -> None:
        """The check has raised the alarm, and one is enough."""
        harness = self.start(driver, INVALID, "--after-check", "linger")
        status, out = driver.native("check").result()
        assert (status, out[:16]) == (1, "checked: invalid")
        assert harness.running()
        harness.kill(signal.SIGTERM)
        assert harness.result()[0] == 0
        assert json.loads((driver.store / "latest" / "results.json").read_text()) == {
            "valid": False
        }

    def test_a_seed_repeats_a_driven_run(self, driver: Driver) -> None:
        def run() -> list[Any]:
            harness = self.start(driver, RANDOM, "--concurrency", "1", "--seed", "7")
            # Some operations wait for their time, and commands come in between.
            assert {status for status, _ in results([driver.op() for _ in range(20)])} == {0}
            assert driver.native("check").result()[0] == 0
            assert harness.result()[0] == 0
            history = History.read(driver.store / "latest" / "history.jsonl")
            return [(op["f"], op["value"], op["process"]) for op in history]

        first = run()
        assert len(first) == 42
        assert len(set(first)) > 10
        assert run() == first

    def test_killed_it_leaves_its_history_and_no_native_command(self, driver: Driver) -> None:
        harness = self.start(driver, HANGING, "--concurrency", "2")
        for _ in range(3):
            assert driver.op().result()[0] == 0
        waiting = [driver.native("op", "--lost", "0", "--wait", "0.5") for _ in range(4)]
        check = driver.native("check", "--wait", "0.5")
        eventually(lambda: len(driver.fifos()) >= 2)
        harness.kill(signal.SIGKILL)
        harness.process.wait(LONG)
        assert {status for status, _ in results(waiting)} == {0}
        assert check.result()[0] == 75
        history = History.read(driver.store / "latest" / "history.jsonl")
        assert [op["type"] for op in history[:6]] == ["invoke", "ok"] * 3
        assert [op["index"] for op in history] == list(range(len(history)))

    def test_killed_at_any_moment_no_native_command_fails(self, driver: Driver) -> None:
        """Also between two steps of the protocol; and the next harness works at once."""
        for moment in (0.0, 0.003, 0.01, 0.03, 0.1):
            harness = self.start(driver, IDLE)
            ops = [
                driver.start(
                    "sh",
                    "-c",
                    "while [ -e $0 ]; do $1 op --lost 0 --wait 0 || exit; done",
                    str(driver.dir / ".alive"),
                    driver.command,
                )
                for _ in range(4)
            ]
            eventually(lambda: (driver.store / "latest" / "history.jsonl").stat().st_size > 2000)
            time.sleep(moment)
            harness.kill(signal.SIGKILL)
            harness.process.wait(LONG)
            (driver.dir / ".alive").unlink()
            assert {status for status, _ in results(ops)} == {0}
            history = History.read(driver.store / "latest" / "history.jsonl")
            assert [op["index"] for op in history] == list(range(len(history)))

    def test_a_harness_after_a_killed_one_works_at_once(self, driver: Driver) -> None:
        killed = self.start(driver, HANGING)
        left = driver.op(PLAIN)
        eventually(driver.fifos)
        killed.kill(signal.SIGKILL)
        killed.process.wait(LONG)
        harness = driver.python("-c", IDLE, "antithesis", "--store-dir", str(driver.store))
        assert left.result() == (0, ""), "released"
        assert driver.native("op").result()[0] == 0
        assert driver.native("check").result() == (0, "checked: valid\n")
        assert harness.result()[0] == 0

    def test_a_second_one_is_refused(self, driver: Driver) -> None:
        first = self.start(driver, IDLE)
        second = driver.python("-c", IDLE, "antithesis", "--store-dir", str(driver.store))
        _, err = second.process.communicate(timeout=LONG)
        assert second.process.returncode == 255
        assert str(first.process.pid) in err
        assert driver.native("check").result()[0] == 0

    def test_progress_is_shown_on_a_terminal(self, driver: Driver) -> None:
        leader, follower = os.openpty()
        env = {**driver.env, "PYTHONPATH": os.pathsep.join(sys.path)}
        argv = [sys.executable, BANK, "test", "--time-limit", "0.5", "--concurrency", "8"]
        argv += ["--store-dir", str(driver.store), "--db", str(driver.tmp / "bank.db")]
        with subprocess.Popen(argv, env=env, stderr=follower, stdout=follower) as process:
            os.close(follower)
            shown = b""
            try:
                while chunk := os.read(leader, 65536):
                    shown += chunk
            except OSError:
                pass  # How a terminal ends whose other side is closed.
            os.close(leader)
        assert process.returncode == 0
        counts = [int(n) for n in re.findall(rb"\r\x1b\[K(\d+) operations: \d+ ok", shown)]
        assert len(counts) > 2
        assert counts == sorted(counts)
        history = History.read(driver.store / "latest" / "history.jsonl")
        assert counts[-1] == len(history.invokes())


def test_an_operation_costs_the_harness_little(driver: Driver) -> None:
    """Some three times the CPU time of its client, which is in Python too, checker and start
    included.
    """
    harness = driver.python(
        "-c", IDLE, "antithesis", "--store-dir", str(driver.store), "--concurrency", "10"
    )
    eventually(lambda: driver.alive(harness))
    assert driver.op().result()[0] == 0
    n, workers = 200, 10
    before = cpu_of_children()
    clients = [driver.python("-c", RAW, str(driver.dir), str(i), str(n)) for i in range(workers)]
    assert {status for status, _ in results(clients)} == {0}
    of_clients = cpu_of_children() - before
    assert driver.native("check").result()[0] == 0
    before = cpu_of_children()
    assert harness.result()[0] == 0
    of_harness = cpu_of_children() - before
    assert of_harness < 8 * of_clients
    history = History.read(driver.store / "latest" / "history.jsonl")
    assert len(history.oks()) == n * workers + 1


def cpu_of_children() -> float:
    """The CPU time of all children that were waited for, in seconds."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


RAW = """
import os, sys
directory, me, n = sys.argv[1:]
for i in range(int(n)):
    path = f"{directory}/op-{me}-{i}"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY)
    data = b""
    while chunk := os.read(fd, 65536):
        data += chunk
    assert b":type :ok" in data, data
    os.close(fd)
"""
