"""What the tests drive a harness with: real scripts on real FIFOs."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from jepsen_antithesis import Client, Op, Test, _abi, checker, core
from jepsen_antithesis import generator as gen

# How long anything may take that ought to take milliseconds; never waited for in full.
LONG = 120.0

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[2] / "examples" / "python"

# The two lines of shell that must always work.
PLAIN = 'mkfifo "$1" && cat "$1"'
# The same, with the status that the mark on the FIFO holds; 99 when there is no mark.
MARKED = """
mkfifo "$1" || exit 98
exec 3<"$1"
cat <&3
mode=$((8#$(stat -Lc %a /proc/$$/fd/3)))
(( mode & 0100 )) || exit 99
exit $(( (mode & 077) | ((mode & 0600) >> 1) ))
"""


class Script:
    """A command that was started, in a process group of its own."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def result(self, timeout: float = LONG) -> tuple[int, str]:
        """Exit status and standard output; TimeoutExpired when it does not end."""
        out, _ = self.process.communicate(timeout=timeout)
        return self.process.returncode, out

    def kill(self, number: int = signal.SIGKILL) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def running(self) -> bool:
        return self.process.poll() is None


class Harness:
    """A harness in a thread of this process."""

    def __init__(self, test: Test) -> None:
        self.error: BaseException | None = None
        self.test: Test = {}
        self._thread = threading.Thread(target=self._run, args=(test,), daemon=True)
        self._thread.start()

    def _run(self, test: Test) -> None:
        try:
            self.test = core.run_antithesis(test)
        except BaseException as error:
            self.error = error

    def result(self, timeout: float = LONG) -> Test:
        """The test that it returned; raises what it raised."""
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "the harness does not end"
        if self.error is not None:
            raise self.error
        return self.test

    def running(self) -> bool:
        return self._thread.is_alive()


class Driver:
    """A control directory and a store in a temporary directory."""

    def __init__(self, tmp: Path) -> None:
        self.tmp = tmp
        self.dir = tmp / "fifos"
        self.store = tmp / "store"
        self.env = {**os.environ, "JEPSEN_FIFO_DIR": str(self.dir)}
        self.env.pop("ANTITHESIS_OUTPUT_DIR", None)
        self._ids = itertools.count()
        self._scripts: list[Script] = []

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *error: object) -> None:
        for script in self._scripts:
            script.kill()
            script.process.communicate()

    def start(self, *argv: str, **env: str) -> Script:
        script = Script(list(argv), {**self.env, **env})
        self._scripts.append(script)
        return script

    def python(self, *argv: str, **env: str) -> Script:
        return self.start(sys.executable, *argv, PYTHONPATH=os.pathsep.join(sys.path), **env)

    def script(self, name: str, text: str = MARKED) -> Script:
        return self.start("bash", "-c", text, name, str(self.dir / name))

    def op(self, text: str = MARKED) -> Script:
        return self.script(f"op-{next(self._ids)}", text)

    def check(self, text: str = MARKED) -> Script:
        return self.script(f"check-{next(self._ids)}", text)

    @property
    def command(self) -> str:
        """The command that comes with the library."""
        command = Path(_abi.library().path).with_name("jepsen-composer")
        assert command.exists(), f"{command} is missing; `make` builds it"
        return str(command)

    def native(self, *argv: str) -> Script:
        return self.start(self.command, *argv)

    def harness(self, test: Test) -> Harness:
        harness = Harness({"fifo_dir": self.dir, "store_dir": self.store, **test})
        client = test.get("client")
        if isinstance(client, Recorder):
            assert client.ready.wait(LONG), harness.error
        return harness

    def alive(self, harness: Script) -> bool:
        """Whether a harness holds the control directory; fails when `harness` has ended."""
        assert harness.running(), harness.process.communicate()
        return (self.dir / ".alive").exists()

    def fifos(self) -> list[str]:
        """The commands' FIFOs in the control directory."""
        return sorted(p.name for p in self.dir.iterdir() if not p.name.startswith("."))


class Recorder(Client):
    """Succeeds at everything, and remembers what was asked of it, in `effects`."""

    def __init__(self, nodes: int = 5) -> None:
        self.effects: list[Any] = []
        self.ready = threading.Event()
        self.lock = threading.Lock()
        self.nodes = nodes

    def setup(self, test: Test) -> None:
        self.record("setup")
        with self.lock:
            if self.effects.count("setup") == self.nodes:
                self.ready.set()

    def teardown(self, test: Test) -> None:
        self.record("teardown")

    def invoke(self, test: Test, op: Op) -> Op:
        self.record({k: v for k, v in op.items() if k != "time"})
        return {**op, "type": "ok"}

    def record(self, effect: Any) -> None:
        with self.lock:
            self.effects.append(effect)

    def taken(self) -> list[Any]:
        """The effects since the last call."""
        with self.lock:
            effects, self.effects = self.effects, []
        return effects


class Blocking(Recorder):
    """Operations begin, and end when they are told to."""

    def __init__(self, nodes: int = 5) -> None:
        super().__init__(nodes)
        self.begun: list[Op] = []
        self.changed = threading.Condition()
        self.let_go = threading.Event()

    def invoke(self, test: Test, op: Op) -> Op:
        with self.changed:
            self.begun.append(op)
            self.changed.notify_all()
        self.let_go.wait(LONG)
        return super().invoke(test, op)

    def await_begun(self, n: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= n, LONG), self.begun


def invocations(test: Test) -> list[Any]:
    """What the clients were asked for, in order."""
    return [op["f"] for op in test["history"].invokes()]


def fs(*names: str) -> list[Op]:
    return [{"f": name} for name in names]


def simple_test(client: Client, main: Any, final: Any = None, **more: Any) -> Test:
    """The test of most tests here: a main phase, then a final one."""
    return {
        "name": "simple",
        "client": client,
        "generator": gen.clients(gen.phases(gen.main_gen(main), final)),
        "checker": checker.stats(),
        **more,
    }


def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Waits for something that nothing can be waited on for."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.001)


def results(scripts: Iterable[Script]) -> list[tuple[int, str]]:
    return [script.result() for script in scripts]
