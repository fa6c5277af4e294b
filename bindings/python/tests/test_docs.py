"""The tutorial's programs run."""

from __future__ import annotations

import json
import re

from driving import HERE, Driver, eventually

TEXT = (HERE.parents[2] / "docs" / "python.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.S)


def test_the_register(driver: Driver) -> None:
    *parts, _ = BLOCKS
    register = driver.tmp / "register.py"
    path = driver.tmp / "register"
    register.write_text("\n".join(parts).replace("/tmp/register", str(path)))
    store = ("--store-dir", str(driver.store))
    assert driver.python(str(register), "test", "--time-limit", "0.3", *store).result()[0] == 0
    harness = driver.python(str(register), "antithesis", *store)
    eventually(lambda: driver.alive(harness))
    assert driver.native("op").result()[0] == 0
    assert driver.native("check").result() == (0, "checked: valid\n")
    assert harness.result()[0] == 0
    found = json.loads((driver.store / "latest" / "results.json").read_text())
    assert found["values"] == {"valid": True, "wrong": []}


def test_the_harness_of_ones_own(driver: Driver) -> None:
    program = f"do_something = lambda: 'something'\n{BLOCKS[-1]}"
    harness = driver.python("-c", program)
    eventually(lambda: driver.alive(harness))
    assert driver.op().result() == (0, "something\n")
    assert driver.check().result() == (0, "checked\n")
    assert harness.result()[0] == 0
