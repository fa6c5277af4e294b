"""The tutorial's programs run."""

from __future__ import annotations

import json
import re

import pytest
from driving import HERE, Driver, eventually

TEXT = (HERE.parents[2] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_register(driver: Driver) -> None:
    last = next(i for i, block in enumerate(BLOCKS) if "cli.run(" in block)
    register = driver.tmp / "register.py"
    path = driver.tmp / "register"
    register.write_text("\n".join(BLOCKS[: last + 1]).replace("/tmp/register", str(path)))
    store = ("--store-dir", str(driver.store))
    assert driver.python(str(register), "test", "--time-limit", "0.3", *store).result()[0] == 0
    harness = driver.python(str(register), "antithesis", *store)
    eventually(lambda: driver.alive(harness))
    assert driver.native("op").result()[0] == 0
    assert driver.native("check").result() == (0, "checked: valid\n")
    assert harness.result()[0] == 0
    found = json.loads((driver.store / "latest" / "results.json").read_text())
    assert found["values"] == {"valid": True, "wrong": []}


@pytest.mark.parametrize(("options", "status"), [((), 0), (("--bug",), 1)])
def test_the_transactions(options: tuple[str, ...], status: int, driver: Driver) -> None:
    (block,) = [block for block in BLOCKS if block.startswith("# lists.py")]
    program = driver.tmp / "lists.py"
    program.write_text(block)
    argv = ("test", "--time-limit", "0.5", "--store-dir", str(driver.store), *options)
    assert driver.python(str(program), *argv).result()[0] == status
    latest = driver.store / "latest"
    found = json.loads((latest / "results.json").read_text())
    assert found["txns"]["valid"] is not bool(options)
    assert (latest / "rate.png").exists()
    if options:
        assert "serializable" in [*found["txns"]["not"], *found["txns"]["also_not"]]
        assert list((latest / "elle").glob("*.txt"))


def test_the_harness_of_ones_own(driver: Driver) -> None:
    program = f"do_something = lambda: 'something'\n{BLOCKS[-1]}"
    harness = driver.python("-c", program)
    eventually(lambda: driver.alive(harness))
    assert driver.op().result() == (0, "something\n")
    assert driver.check().result() == (0, "checked\n")
    assert harness.result()[0] == 0
