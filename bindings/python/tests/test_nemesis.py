"""Nemeses: composed, renamed, bounded; and those that break real processes and files."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import pytest
from driving import LONG, eventually

from jepsen_antithesis import Keyword, Nemesis, Op, Test, core, nemesis
from jepsen_antithesis import generator as gen
from jepsen_antithesis.nemesis import signalling

TEST: Test = {"nodes": ["n1", "n2", "n3"]}


class Recording(Nemesis):
    """Says what it was told."""

    def __init__(self, name: str, *fs: Any, fail: str | None = None) -> None:
        self.name = name
        self.known = frozenset(fs)
        self.fail = fail
        self.seen: list[Any] = []

    def note(self, what: Any) -> None:
        self.seen.append(what)
        if what == self.fail:
            raise RuntimeError(f"{self.name} fails in {what}")

    def setup(self, test: Test) -> Nemesis:
        self.note("setup")
        return self

    def invoke(self, test: Test, op: Op) -> Op:
        self.note(op["f"])
        return {**op, "type": "info", "value": self.name}

    def teardown(self, test: Test) -> None:
        self.note("teardown")

    def fs(self) -> AbstractSet[Any]:
        return self.known


def invoke(it: Nemesis, f: Any, value: Any = None) -> Any:
    op = it.invoke(TEST, {"type": "info", "process": "nemesis", "f": f, "value": value})
    assert (op["type"], op["f"], op["process"]) == ("info", f, "nemesis")
    return op["value"]


class TestCompose:
    def test_by_sets_dicts_and_functions(self) -> None:
        a, b, c, d = (Recording(name) for name in "abcd")
        it = nemesis.compose(
            [
                ({"kill", "start"}, a),
                ({"slow": "start", "fast": "stop"}, b),
                (lambda f: f[1] if isinstance(f, tuple) else None, c),
                (("x", "y"), d),
            ]
        ).setup(TEST)
        fs = ["kill", "start", "slow", "fast", ("of c", "start"), "y"]
        assert [invoke(it, f) for f in fs] == ["a", "a", "b", "b", "c", "d"]
        assert a.seen == ["setup", "kill", "start"]
        assert b.seen == ["setup", "start", "stop"]
        assert c.seen == ["setup", "start"]
        with pytest.raises(ValueError, match="No nemesis takes f 'other'"):
            invoke(it, "other")

    def test_by_what_they_understand(self) -> None:
        it = nemesis.compose([Recording("a", "kill"), Recording("b", "pause"), nemesis.Noop()])
        assert (invoke(it, "pause"), invoke(it, "kill")) == ("b", "a")
        assert it.fs() == {"kill", "pause"}
        with pytest.raises(ValueError, match="both take f 'kill'"):
            nemesis.compose([Recording("a", "kill"), Recording("b", "kill")])
        with pytest.raises(NotImplementedError, match="has no fs"):
            nemesis.compose([Nemesis()])

    def test_by_a_dict(self) -> None:
        it = nemesis.compose({frozenset({"kill"}): Recording("a"), (lambda f: f): Recording("b")})
        assert (invoke(it, "kill"), invoke(it, "other")) == ("a", "b")
        with pytest.raises(NotImplementedError, match="known to a function only"):
            it.fs()

    @pytest.mark.parametrize("routes", [5, "kill", None])
    def test_what_is_no_route(self, routes: Any) -> None:
        with pytest.raises(TypeError, match="does not say which f"):
            nemesis.compose([(routes, Recording("a"))])

    def test_nested(self) -> None:
        inner = nemesis.compose([Recording("a", "start"), Recording("b", "stop")])
        it = nemesis.compose([({"on": "start", "off": "stop"}, inner), Recording("c", "start")])
        assert [invoke(it, f) for f in ("on", "off", "start")] == ["a", "b", "c"]

    def test_every_one_is_torn_down(self) -> None:
        a, b, c = Recording("a", fail="teardown"), Recording("b", fail="teardown"), Recording("c")
        it = nemesis.compose([({"a"}, a), ({"b"}, b), ({"c"}, c)]).setup(TEST)
        with pytest.raises(RuntimeError, match="a fails in teardown"):
            it.teardown(TEST)
        assert c.seen == ["setup", "teardown"]

    def test_those_set_up_are_torn_down_when_another_cannot_be(self) -> None:
        a, b, c = Recording("a"), Recording("b", fail="setup"), Recording("c")
        with pytest.raises(RuntimeError, match="b fails in setup"):
            nemesis.compose([({"a"}, a), ({"b"}, b), ({"c"}, c)]).setup(TEST)
        assert (a.seen, c.seen) == (["setup", "teardown"], [])

    def test_what_a_setup_returns_is_used(self) -> None:
        class Other(Recording):
            def setup(self, test: Test) -> Nemesis:
                return Recording("other", "x")

        assert invoke(nemesis.compose([Other("first", "x")]).setup(TEST), "x") == "other"


@pytest.mark.parametrize("lift", [lambda f: ("db", f), {"start": ("db", "start")}])
def test_f_map_goes_with_the_generators(lift: Any) -> None:
    inner = Recording("a", "start")
    it = nemesis.f_map(lift, inner)
    ops = gen.testing.quick(gen.nemesis(gen.f_map(lift, {"f": "start"})))
    assert invoke(it, ops[0]["f"]) == "a"
    assert (inner.seen, it.fs()) == (["start"], {("db", "start")})


class TestTimeout:
    def test_what_takes_too_long_goes_on_beside_what_follows(self) -> None:
        go_on, ended = threading.Event(), threading.Event()

        class Slow(Recording):
            def invoke(self, test: Test, op: Op) -> Op:
                if op["f"] == "slow":
                    go_on.wait(LONG)
                    ended.set()
                return {**op, "type": "info", "value": "done"}

        it = nemesis.timeout(0.05, Slow("a", "slow", "quick")).setup(TEST)
        assert invoke(it, "slow") == Keyword("timeout")
        assert invoke(nemesis.timeout(LONG, Slow("a")), "quick") == "done"
        go_on.set()
        assert ended.wait(LONG)
        assert it.fs() == {"slow", "quick"}

    def test_what_it_raises_is_raised(self) -> None:
        with pytest.raises(RuntimeError, match="a fails in x"):
            invoke(nemesis.timeout(LONG, Recording("a", fail="x")), "x")


# Says its pid and then, on every line, when it runs.
COUNTER = "import os, sys, time\nprint(os.getpid(), flush=True)\nwhile True: time.sleep(0.01)"


class Running:
    """Programs that run until the test ends, under a name of their own."""

    def __init__(self, tmp: Path) -> None:
        # Short enough for the kernel's name of a process, and nobody else's.
        self.name = f"db{os.getpid() % 100000}{abs(hash(tmp)) % 10000}"
        self.path = tmp / self.name
        self.path.symlink_to(sys.executable)
        self.popened: list[subprocess.Popen[str]] = []

    def start(self, test: Test | None = None, *args: str) -> int:
        process = subprocess.Popen(
            [str(self.path), "-c", COUNTER, *args], stdout=subprocess.PIPE, text=True
        )
        self.popened.append(process)
        assert process.stdout is not None
        # It runs when it has said so.
        return int(process.stdout.readline())

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.popened:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path) as running:
        yield running


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def children_of(pid: int) -> list[int]:
    parents = {p.pid: signalling._stat(p.pid)[2] for p in signalling._all_processes()}
    return [child for child, parent in parents.items() if parent == pid]


class TestProcesses:
    def test_kill(self, running: Running) -> None:
        pids = sorted(running.start() for _ in range(3))
        it = nemesis.processes(running.name)
        assert invoke(it, "kill") == [Keyword("killed"), pids]
        # They have ended when the operation has.
        assert [process.poll() for process in running.popened] == [-signal.SIGKILL] * 3
        assert invoke(it, "kill") == Keyword("no-target")

    def test_pause_and_resume(self, running: Running) -> None:
        pid = running.start()
        it = nemesis.processes(running.name)
        assert invoke(it, "pause") == [Keyword("paused"), [pid]]
        assert state(pid) == "T"
        assert invoke(it, "resume") == [Keyword("resumed"), [pid]]
        assert state(pid) != "T"

    def test_what_is_paused_can_be_killed(self, running: Running) -> None:
        running.start()
        it = nemesis.processes(running.name)
        invoke(it, "pause")
        invoke(it, "kill")
        assert running.popened[0].poll() == -signal.SIGKILL
        it.teardown(TEST)

    def test_the_tear_down_resumes(self, running: Running) -> None:
        pid = running.start()
        it = nemesis.processes(running.name)
        invoke(it, "pause")
        it.teardown(TEST)
        eventually(lambda: state(pid) != "T")

    def test_start(self, running: Running) -> None:
        it = nemesis.processes(running.name, start=running.start)
        assert it.fs() == {"kill", "pause", "resume", "start"}
        started, pid = invoke(it, "start")
        assert (started, len(running.popened)) == (Keyword("started"), 1)
        assert invoke(it, "start") == Keyword("already-running")
        assert invoke(it, "kill") == [Keyword("killed"), [pid]]
        assert invoke(it, "start")[0] == Keyword("started")

    def test_without_a_start(self) -> None:
        with pytest.raises(ValueError, match=r"one of \['kill', 'pause', 'resume'\], not 'start'"):
            invoke(nemesis.processes("nothing"), "start")

    @pytest.mark.parametrize(
        "target",
        [
            lambda running, pid: running.name,
            lambda running, pid: str(running.path),
            lambda running, pid: re.compile(f"{running.name} .*--shard=1", re.S),
            lambda running, pid: pid,
            lambda running, pid: [pid],
            lambda running, pid: lambda: {pid},
        ],
        ids=["name", "path", "pattern", "pid", "pids", "function"],
    )
    def test_targets(self, target: Callable[..., Any], running: Running) -> None:
        pid = running.start(None, "--shard=1")
        found = nemesis.find_processes(target(running, pid))
        assert [process.pid for process in found] == [pid]
        assert found[0].command[0] == str(running.path)
        # The operation may say which.
        value = target(running, pid)
        assert invoke(nemesis.processes("nothing"), "kill", value) == [Keyword("killed"), [pid]]

    def test_a_pattern_that_others_have_too(self, running: Running) -> None:
        one, two = running.start(None, "--shard=1"), running.start(None, "--shard=2")
        target = re.compile(f"{running.name} .*--shard=2", re.S)
        assert invoke(nemesis.processes(target), "kill") == [Keyword("killed"), [two]]
        assert state(one) != "Z"

    def test_never_this_process_its_ancestors_or_process_1(self) -> None:
        for target in ([1, os.getpid(), os.getppid()], re.compile("python|pytest")):
            pids = {process.pid for process in nemesis.find_processes(target)}
            assert pids.isdisjoint({1, os.getpid(), os.getppid()})

    def test_never_a_process_of_another_container(self, tmp_path: Path) -> None:
        """One in namespaces of its own, which this one sees."""
        program = [sys.executable, "-c", COUNTER]
        unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
        with subprocess.Popen(
            [*unshare, *program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            if not process.stdout.readline():
                pytest.skip("namespaces cannot be made here")
            try:
                children = children_of(process.pid)
                inner = children[0]
                assert nemesis.find_processes(inner) == []
                assert invoke(nemesis.processes(inner), "kill") == Keyword("no-target")
                assert state(inner) != "Z"
                os.kill(inner, signal.SIGKILL)
            finally:
                process.kill()

    def test_a_process_of_another_user_whose_namespaces_may_not_be_read(
        self, running: Running
    ) -> None:
        """Root in a container without CAP_SYS_PTRACE, and a database with a user of its own."""
        if os.getuid() != 0 or not shutil.which("setpriv"):
            pytest.skip("needs root and setpriv")
        database = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "1000"]
        program = (
            "import os, sys\n"
            "from jepsen_antithesis import nemesis\n"
            "pid = int(sys.argv[1])\n"
            "try:\n"
            "    os.readlink(f'/proc/{pid}/ns/pid')\n"
            "except PermissionError:\n"
            "    op = {'f': 'kill', 'value': None}\n"
            "    print(nemesis.processes(pid).invoke({}, op)['value'])\n"
        )
        without = ["setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"]
        with subprocess.Popen(database) as process:
            try:
                cmdline = Path(f"/proc/{process.pid}/cmdline")
                eventually(lambda: cmdline.read_bytes().startswith(b"sleep"))
                source = str(Path(nemesis.__file__).parents[2])
                harness = subprocess.run(
                    [*without, sys.executable, "-c", program, str(process.pid)],
                    env={**os.environ, "PYTHONPATH": source},
                    capture_output=True,
                    text=True,
                )
                if not harness.stdout:
                    pytest.skip(f"capabilities cannot be dropped here: {harness.stderr}")
                assert harness.stdout == f"['killed', [{process.pid}]]\n"
                assert process.wait(LONG) == -signal.SIGKILL
            finally:
                process.kill()

    @pytest.mark.parametrize(
        ("path", "group", "within"),
        [
            ("/", "/", True),
            ("/a/b", "/a", True),
            ("/ab", "/a", False),
            ("/", "/a", False),
            ("/system.slice/db", "/user.slice", False),
            ("/../other", "/", False),
        ],
    )
    def test_control_groups(self, path: str, group: str, within: bool) -> None:
        assert signalling._is_within(path, group) is within

    def test_a_number_that_another_process_has_by_now(self, running: Running) -> None:
        pid = running.start()
        (found,) = nemesis.find_processes(pid)
        earlier = signalling.Process(pid, found.started - 1, found.command)
        assert not signalling._kill(earlier)
        assert running.popened[0].poll() is None
        assert signalling._kill(found)

    @pytest.mark.parametrize("error", [OSError(38, "no such call"), PermissionError(1, "refused")])
    def test_where_a_sandbox_has_no_descriptors_of_processes(
        self, error: OSError, running: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(pid: int) -> int:
            raise error

        pid = running.start()
        monkeypatch.setattr(os, "pidfd_open", refuse)
        assert invoke(nemesis.processes(running.name), "pause") == [Keyword("paused"), [pid]]
        assert invoke(nemesis.processes(running.name), "kill") == [Keyword("killed"), [pid]]
        assert invoke(nemesis.processes(pid), "kill") == Keyword("no-target")

    def test_those_that_are_forked_meanwhile(self, running: Running) -> None:
        """A server whose workers are forked anew as they die."""
        program = (
            "import os, time, sys\n"
            "print(os.getpid(), flush=True)\n"
            "while True:\n"
            "    if not os.fork():\n"
            "        time.sleep(1000)\n"
            "    time.sleep(0.002)\n"
        )
        process = subprocess.Popen(
            [str(running.path), "-c", program],
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        running.popened.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        eventually(lambda: len(nemesis.find_processes(running.name)) > 20)
        try:
            invoke(nemesis.processes(running.name), "kill")
            assert nemesis.find_processes(running.name) == []
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_hammer_time(running: Running) -> None:
    pid = running.start()
    it = nemesis.hammer_time(running.name)
    assert invoke(it, "start") == {"n1": [Keyword("paused"), [pid]]}
    assert state(pid) == "T"
    assert invoke(it, "stop") == {"n1": [Keyword("resumed"), [pid]]}
    assert state(pid) != "T"
    assert invoke(nemesis.hammer_time(running.name, lambda nodes: None), "start") == (
        Keyword("no-target")
    )


class TestStartStopper:
    @pytest.mark.parametrize(
        ("targeter", "chosen"),
        [
            (lambda nodes: nodes[0], ["n1"]),
            (lambda test, nodes: nodes[:2], ["n1", "n2"]),
            (lambda nodes: {"n3"}, ["n3"]),
        ],
    )
    def test_start_and_stop(self, targeter: Any, chosen: list[str]) -> None:
        it = nemesis.node_start_stopper(
            targeter, lambda test, node: f"+{node}", lambda test, node: f"-{node}"
        )
        assert invoke(it, "stop") == Keyword("not-started")
        assert invoke(it, "start") == {node: f"+{node}" for node in chosen}
        assert "already disrupting" in invoke(it, "start")
        assert invoke(it, "stop") == {node: f"-{node}" for node in chosen}
        assert invoke(it, "stop") == Keyword("not-started")

    def test_the_tear_down_stops_also_what_began_and_failed(self) -> None:
        stopped: list[str] = []

        def start(test: Test, node: str) -> None:
            raise RuntimeError("half way")

        it = nemesis.node_start_stopper(
            lambda nodes: nodes[0], start, lambda test, node: stopped.append(node)
        )
        with pytest.raises(RuntimeError):
            invoke(it, "start")
        it.teardown(TEST)
        it.teardown(TEST)
        assert stopped == ["n1"]


class TestFiles:
    def test_truncate(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        path.write_bytes(b"0123456789")
        plan = {"file": str(path), "drop": 4}
        assert invoke(nemesis.truncate_file(), "truncate", plan) == plan
        assert path.read_bytes() == b"012345"
        assert invoke(nemesis.truncate_file(), "truncate", {"n1": plan}) == {"n1": plan}
        assert path.read_bytes() == b"01"
        invoke(nemesis.truncate_file(), "truncate", plan)
        assert path.read_bytes() == b""

    def test_a_file_of_a_directory(self, tmp_path: Path) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "a").write_bytes(b"abc")
        done = invoke(nemesis.truncate_file(), "truncate", {"file": str(tmp_path), "drop": 1})
        assert done["file"] == str(tmp_path / "a")
        with pytest.raises(FileNotFoundError, match="no file in"):
            invoke(nemesis.truncate_file(), "truncate", {"file": str(tmp_path / "sub"), "drop": 1})

    @pytest.mark.parametrize("probability", [0, 0.001, 0.5, 1])
    def test_bitflip(self, probability: float, tmp_path: Path) -> None:
        path = tmp_path / "data"
        size = 20_000
        path.write_bytes(bytes(size))
        plan = {"file": str(path), "probability": probability}
        done = invoke(nemesis.bitflip(), "bitflip", plan)
        flipped = sum(byte.bit_count() for byte in path.read_bytes())
        assert (done["flipped"], path.stat().st_size) == (flipped, size)
        mean = size * 8 * probability
        # Ten standard deviations.
        assert abs(flipped - mean) <= 10 * (mean * (1 - probability)) ** 0.5

    def test_plans_that_are_none(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="which file"):
            invoke(nemesis.truncate_file(), "truncate", None)
        with pytest.raises(ValueError, match="between 0 and 1"):
            (tmp_path / "x").write_bytes(b"x")
            invoke(nemesis.bitflip(), "bitflip", {"file": str(tmp_path / "x"), "probability": 2})


def test_a_whole_test_kills_and_restarts_its_system(running: Running) -> None:
    it = nemesis.compose(
        [({"kill-db": "kill", "start-db": "start"}, nemesis.processes(running.name, running.start))]
    )
    test = core.run_case(
        core.prepare_test(
            {
                **core.noop_test(),
                "name": None,
                "nemesis": it,
                "generator": gen.nemesis(
                    [{"type": "info", "f": f} for f in ("start-db", "kill-db", "start-db")]
                ),
            }
        )
    )
    values = [op["value"] for op in test["history"] if op["value"] is not None]
    assert [value[0] for value in values] == ["started", "killed", "started"]
    assert [process.poll() for process in running.popened] == [-signal.SIGKILL, None]
