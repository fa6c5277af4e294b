"""Every workload, on a system that is right and on ones that are broken as systems are."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from typing import Any

import pytest

from jepsen_antithesis import Client, Op, Test, checker, core, workloads
from jepsen_antithesis import generator as gen

OPS = 300


def run(workload: Test, client: Any, *, ops: int = OPS, **more: Any) -> Test:
    """A whole test of so many operations in its main phase, and its results."""
    test = {**core.noop_test(), "name": None, "concurrency": 5, **workload, "client": client}
    test["generator"] = workloads.phases({**test, "generator": gen.limit(ops, test["generator"])})
    return core.run({**test, **more})


def verdict(test: Test) -> Any:
    results = test["results"]
    assert checker.failures(results) == [], results
    return results["valid"]


class Bank(workloads.bank.Client):
    """Accounts in memory. `broken` says how."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.lock = threading.Lock()
        self.balances: dict[int, int] = {}
        self.transfers = 0

    def setup(self, test: Test) -> None:
        with self.lock:
            self.balances = workloads.bank.first_balances(test)

    def read(self, test: Test) -> dict[int, int]:
        with self.lock:
            return dict(self.balances)

    def transfer(self, test: Test, debit: int, credit: int, amount: int) -> None:
        with self.lock:
            if self.balances[debit] < amount and self.broken != "overdrawn":
                raise workloads.Fail("insufficient funds")
            self.transfers += 1
            self.balances[debit] -= amount
            if self.broken != "lost credit" or self.transfers % 20:
                self.balances[credit] += amount


class TestBank:
    def test_right(self) -> None:
        test = run(workloads.bank.test(), Bank())
        assert verdict(test) is True
        fails = test["history"].fails()
        assert {op["error"] for op in fails} <= {"insufficient funds"}
        transfers = test["history"].oks().filter(lambda op: op["f"] == "transfer")
        assert len(transfers) > 20
        assert all(op["value"]["from"] != op["value"]["to"] for op in transfers)
        assert test["results"]["read_count"] >= 5, "each thread reads in the end"

    @pytest.mark.parametrize(
        ("broken", "kind"), [("lost credit", "wrong-total"), ("overdrawn", "negative-value")]
    )
    def test_broken(self, broken: str, kind: str) -> None:
        test = run(workloads.bank.test(), Bank(broken))
        assert verdict(test) is False
        assert list(test["results"]["errors"]) == [kind]

    def test_overdrafts_may_be_allowed(self) -> None:
        assert verdict(run(workloads.bank.test(negative_balances=True), Bank("overdrawn"))) is True

    def test_options(self) -> None:
        test = run(workloads.bank.test(accounts="ab", total_amount=7, max_transfer=1), Bank())
        assert verdict(test) is True
        amounts = {
            op["value"]["amount"] for op in test["history"].invokes() if op["f"] == "transfer"
        }
        assert amounts == {1}
        assert set(test["history"].oks()[-1]["value"]) == {"a", "b"}


class Set(workloads.set.Client):
    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.lock = threading.Lock()
        self.elements: list[int] = []
        self.late: list[int] = []

    def setup(self, test: Test) -> None:
        self.elements.clear()

    def add(self, test: Test, element: int) -> None:
        with self.lock:
            if self.broken == "lost" and element % 20 == 3:
                return
            if self.broken == "stale":
                self.late.append(element)
                return
            self.elements.append(element)

    def read(self, test: Test) -> Collection[int]:
        with self.lock:
            found = [*self.elements, *([-1] if self.broken == "unexpected" else [])]
            # What was added before one read is there in the next one.
            self.elements += self.late
            self.late.clear()
            return found


class TestSet:
    @pytest.mark.parametrize("linearizable", [False, True])
    def test_right(self, linearizable: bool) -> None:
        test = run(workloads.set.test(linearizable=linearizable), Set())
        assert verdict(test) is True
        assert test["results"]["stable_count"] == test["results"]["attempt_count"] > 100

    @pytest.mark.parametrize("broken", ["lost", "unexpected"])
    def test_broken(self, broken: str) -> None:
        test = run(workloads.set.test(), Set(broken))
        assert verdict(test) is False
        assert test["results"][f"{broken}_count"] > 0

    def test_stale(self) -> None:
        workload = workloads.set.test(reads=0.3, linearizable=True)
        test = run(workload, Set("stale"))
        assert verdict(test) is False
        assert test["results"]["stale_count"] > 0

    def test_a_final_read_is_tried_again(self) -> None:
        class Flaky(Set):
            failed = 0

            def read(self, test: Test) -> Collection[int]:
                if Flaky.failed < 8:
                    Flaky.failed += 1
                    raise workloads.Fail("not now")
                return super().read(test)

        test = run(workloads.set.test(reads=0), Flaky())
        assert verdict(test) is True
        assert Flaky.failed == 8


class Queue(workloads.queue.Client):
    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.lock = threading.Lock()
        self.elements: list[int] = []

    def setup(self, test: Test) -> None:
        self.elements.clear()

    def enqueue(self, test: Test, element: int) -> None:
        with self.lock:
            if self.broken == "lost" and element % 20 == 3:
                return
            self.elements.append(element + 10**6 * (self.broken == "unexpected"))
            if self.broken == "duplicated":
                self.elements.append(element)

    def dequeue(self, test: Test) -> int:
        with self.lock:
            if self.broken == "down":
                raise workloads.Fail("down")
            if not self.elements:
                raise workloads.queue.Empty
            return self.elements.pop(0)


class TestQueue:
    def test_right(self) -> None:
        test = run(workloads.queue.test(), Queue())
        assert verdict(test) is True
        results = test["results"]
        assert results["ok_count"] == results["acknowledged_count"] > 100

    @pytest.mark.parametrize("broken", ["lost", "unexpected"])
    def test_broken(self, broken: str) -> None:
        test = run(workloads.queue.test(), Queue(broken))
        assert verdict(test) is False
        assert test["results"][f"{broken}_count"] > 0

    def test_twice_is_counted(self) -> None:
        test = run(workloads.queue.test(), Queue("duplicated"))
        assert verdict(test) is True
        assert test["results"]["duplicated_count"] > 100

    def test_what_could_not_be_drained_is_not_lost(self) -> None:
        test = run(workloads.queue.test(), Queue("down"))
        assert verdict(test) == checker.UNKNOWN
        assert test["results"]["lost_count"] > 0
        assert "not found empty" in test["results"]["error"]

    def test_what_comes_from_nowhere_is_no_matter_of_draining(self) -> None:
        class Endless(Queue):
            def dequeue(self, test: Test) -> int:
                return -1

        test = run(workloads.queue.test(drain_time=0.2), Endless(), ops=50)
        assert verdict(test) is False


class Registers(workloads.register.Client):
    """Registers in memory, of which there may be a copy that lags behind."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.lock = threading.Lock()
        self.values: dict[int, int] = {}
        self.copy: dict[int, int] = {}
        self.reads = 0

    def read(self, test: Test, key: int) -> int | None:
        with self.lock:
            self.reads += 1
            if self.broken == "stale" and self.reads % 5 == 0:
                return self.copy.get(key)
            if self.broken == "forgetful" and self.reads % 10 == 0:
                return None
            self.copy[key] = self.values.get(key, -1)
            return self.values.get(key)

    def write(self, test: Test, key: int, value: int) -> None:
        with self.lock:
            # All but the first of a key: of the ones that are lost, few can be told from late ones.
            if self.broken != "lost" or key not in self.values:
                self.values[key] = value

    def cas(self, test: Test, key: int, old: int, new: int) -> bool:
        with self.lock:
            if self.values.get(key) != old and self.broken != "unequal":
                return False
            self.values[key] = new
            return True


class TestRegister:
    def test_right(self) -> None:
        test = run(workloads.register.test(per_key_limit=50), Registers())
        assert verdict(test) is True
        assert len(test["results"]["results"]) > 3, "several keys"
        kinds = {(op["f"], op["type"]) for op in test["history"]}
        assert {("cas", "ok"), ("cas", "fail"), ("read", "ok"), ("write", "ok")} <= kinds
        reads = [op["value"].value for op in test["history"].oks() if op["f"] == "read"]
        assert all(value in (*range(5), workloads.register.ABSENT) for value in reads)

    @pytest.mark.parametrize("broken", ["stale", "lost", "unequal", "forgetful"])
    def test_broken(self, broken: str) -> None:
        test = run(workloads.register.test(), Registers(broken), ops=600)
        assert verdict(test) is False
        assert test["results"]["failures"]

    @pytest.mark.parametrize(
        ("clients", "size"), [(1, 1), (2, 2), (3, 3), (5, 5), (6, 6), (7, 7), (8, 4), (20, 4)]
    )
    def test_groups_of_threads(self, clients: int, size: int) -> None:
        """As many threads a register as divide the threads there are, with reads and writes."""
        workload = workloads.register.test(per_key_limit=20)
        ctx = gen.testing.n_nemesis_context(clients)
        ops = gen.testing.perfect(ctx, gen.limit(40 * clients, workloads.phases(workload)))
        users: dict[int, set[int]] = {}
        for op in ops:
            users.setdefault(op["value"].key, set()).add(op["process"])
        assert max(map(len, users.values())) == size
        assert {op["f"] for op in ops} == {"read", "write", "cas"}
        assert len(users) > clients // size, "each group goes on to another one"

    def test_a_size_of_ones_own(self) -> None:
        workload = workloads.register.test(threads=2, per_key_limit=None)
        ops = gen.testing.perfect(
            gen.testing.n_nemesis_context(4), gen.limit(100, workloads.phases(workload))
        )
        assert {op["value"].key for op in ops} == {0, 1}


class Transactions:
    """Lists or registers in memory. `broken` says how."""

    def __init__(self, broken: str = "") -> None:
        self.broken = broken
        self.lock = threading.Lock()
        self.state: dict[int, Any] = {}
        self.before: dict[int, Any] = {}
        self.count = 0

    def txn(self, test: Test, micro_ops: list[list[Any]]) -> list[list[Any]]:
        with self.lock:
            self.count += 1
            rare = self.count % 20 == 0
            seen = self.before if self.broken == "stale" and rare else self.state
            done = []
            writes = dict(self.state)
            for f, key, value in micro_ops:
                if f == "r":
                    value = (writes if seen is self.state else seen).get(key)
                    if self.broken == "forked" and (self.count + key) % 2:
                        value = None
                elif f == "append":
                    lost = self.broken == "lost" and rare
                    writes[key] = [*writes.get(key, ()), *([] if lost else [value])]
                else:
                    writes[key] = value
                done.append([f, key, value])
            if self.broken == "aborted" and rare:
                self.state = writes
                raise workloads.Fail("conflict")
            if self.count % 7 == 0:
                raise workloads.Fail("conflict")
            if self.count % 5 == 0:
                self.before = self.state
            self.state = writes
            return done


class Lists(Transactions, workloads.append.Client):
    pass


class Registry(Transactions, workloads.long_fork.Client):
    pass


class TestAppend:
    def test_right(self) -> None:
        test = run(workloads.append.test(key_count=3, max_txn_length=4), Lists())
        assert test["results"] == {"valid": True}
        assert {op["type"] for op in test["history"]} == {"invoke", "ok", "fail"}

    @pytest.mark.parametrize(
        ("broken", "anomaly"), [("stale", "G-single"), ("lost", "G"), ("aborted", "G1a")]
    )
    def test_broken(self, broken: str, anomaly: str) -> None:
        workload = workloads.append.test(key_count=2, max_txn_length=4)
        test = run(workload, Lists(broken), ops=1000)
        assert verdict(test) is False
        assert any(t.startswith(anomaly) for t in test["results"]["anomaly_types"])

    def test_a_weaker_model(self) -> None:
        workload = workloads.append.test(key_count=2, consistency_models=["read-uncommitted"])
        assert verdict(run(workload, Lists("stale"))) is True


class TestLongFork:
    def test_right(self) -> None:
        test = run(workloads.long_fork.test(n=3), Registry())
        assert verdict(test) is True
        assert test["results"]["reads_count"] > 50

    def test_broken(self) -> None:
        test = run(workloads.long_fork.test(), Registry("forked"))
        assert verdict(test) is False
        assert test["results"]["forks"]


class TestClients:
    def test_coroutines(self) -> None:
        class AsyncBank(workloads.bank.Client):
            def __init__(self) -> None:
                self.bank = Bank()

            async def setup(self, test: Test) -> None:  # type: ignore[override]
                self.bank.setup(test)

            async def read(self, test: Test) -> dict[int, int]:  # type: ignore[override]
                await asyncio.sleep(0)
                return self.bank.read(test)

            async def transfer(self, test: Test, debit: int, credit: int, amount: int) -> None:
                await asyncio.sleep(0)
                self.bank.transfer(test, debit, credit, amount)

        test = run(workloads.bank.test(total_amount=10), AsyncBank())
        assert verdict(test) is True
        assert len(test["history"].oks()) > 100
        assert {op["error"] for op in test["history"].fails()} == {"insufficient funds"}

    def test_what_is_not_filled_in_is_missed_at_once(self) -> None:
        class Half(workloads.bank.Client):
            def read(self, test: Test) -> dict[Any, int]:
                return {}

        with pytest.raises(TypeError, match="transfer"):
            Half()  # type: ignore[abstract]

    @pytest.mark.parametrize("client", [Bank(), Set(), Queue(), Registers()])
    def test_an_operation_that_it_does_not_have(self, client: Client) -> None:
        op: Op = {"type": "invoke", "f": "what", "value": (0, None), "process": 0}
        with pytest.raises(ValueError, match="has no operation 'what'"):
            client.invoke({}, op)

    def test_failures_say_why(self) -> None:
        class Failing(Set):
            def add(self, test: Test, element: int) -> None:
                raise workloads.Fail

            def read(self, test: Test) -> Collection[int]:
                raise workloads.Fail({"code": 40001}, "more")

        invoke: Callable[[str], Op] = lambda f: Failing().invoke({}, {"f": f, "value": 1})  # noqa: E731
        assert invoke("add") == {"f": "add", "value": 1, "type": "fail", "error": "Fail"}
        assert invoke("read")["error"] == {"code": 40001}


def test_phases_keep_the_parts_apart() -> None:
    test = {
        "generator": gen.repeat({"f": "main"}),
        "final_generator": gen.each_thread({"f": "final"}),
    }
    nemesis = gen.limit(3, gen.repeat({"type": "info", "f": "break"}))
    ops = gen.testing.perfect_ops(workloads.phases(test, 100e-9, nemesis))
    fs = [(op["f"], op["process"] == "nemesis") for op in ops]
    assert set(fs) == {("main", False), ("final", False), ("break", True)}
    assert [f for f, _ in fs].index("final") > max(
        i for i, (f, _) in enumerate(fs) if f in ("main", "break")
    )
    assert sum(f == "final" for f, _ in fs) == 4, "each thread, invoked and completed"
    del test["final_generator"]
    assert gen.testing.perfect(workloads.phases(test, 20e-9))
