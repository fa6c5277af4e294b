"""The programs on the pages about Python run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from driving import HERE, Driver, eventually

DOCS = HERE.parents[2] / "docs"
PAGES = sorted((DOCS / "python").glob("*.md"))


def blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=lambda page: page.stem)
def test_a_page(page: Path, driver: Driver) -> None:
    """Blocks that have a command line are tests, each by itself; the others are one program."""
    plain: list[str] = []
    for number, block in enumerate(blocks(page)):
        if "cli.run(" not in block:
            plain.append(block)
            continue
        program = driver.tmp / f"program{number}.py"
        program.write_text(block.replace('PATH = "/tmp/', f'PATH = "{driver.tmp}/'))
        store = ("--store-dir", str(driver.store))
        ended = driver.python(str(program), "test", "--time-limit", "0.3", *store).result()
        assert ended[0] == 0, ended
        results = json.loads((driver.store / "latest" / "results.json").read_text())
        assert results["valid"] is True
    if plain:
        ended = driver.python("-c", "\n".join(plain)).result()
        assert ended[0] == 0, ended


def test_a_workload_is_driven_by_commands(driver: Driver) -> None:
    program = driver.tmp / "bank.py"
    (block,) = blocks(DOCS / "python" / "bank.md")
    program.write_text(block.replace('PATH = "/tmp/', f'PATH = "{driver.tmp}/'))
    harness = driver.python(str(program), "antithesis", "--store-dir", str(driver.store))
    eventually(lambda: driver.alive(harness))
    for _ in range(5):
        status, out = driver.native("op").result()
        assert status == 0
        assert ":f :read" in out or ":f :transfer" in out
    assert driver.native("check").result() == (0, "checked: valid\n")
    assert harness.result()[0] == 0
    results = json.loads((driver.store / "latest" / "results.json").read_text())
    assert results["read_count"] >= 1, "the final reads"


def test_every_page_is_linked_and_every_link_leads_somewhere() -> None:
    linked = set()
    for page in [DOCS / "python.md", *PAGES]:
        for link in re.findall(r"\]\(([^)#]+\.md)\)", page.read_text()):
            assert (page.parent / link).is_file(), f"{page}: {link}"
            linked.add((page.parent / link).resolve())
    assert {page.resolve() for page in PAGES} <= linked
