"""The API reference: every public name is described, and no reference leads nowhere."""

from __future__ import annotations

import ast
import enum
import functools
import importlib
import inspect
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pytest
from histories import HERE

API = HERE.parents[2] / "docs" / "api"

# By module, the text of its directive's options.
MODULES: dict[str, str] = {
    name: options
    for page in sorted(API.glob("*.rst"))
    for name, options in re.findall(
        r"^\.\. automodule:: (\S+)\n((?: +:.*\n)*)", page.read_text(), re.MULTILINE
    )
}


def unwanted(module: str) -> set[str]:
    """The names in a module that are not public."""
    found = re.search(r":exclude-members: (.*)", MODULES[module])
    return set(found[1].split(", ")) if found else set()


@functools.cache
def parsed(module: ModuleType) -> list[ast.stmt]:
    return ast.parse(inspect.getsource(module)).body


def commented(module: ModuleType) -> set[str]:
    """The constants and aliases of a module, or of those in it, that have a docstring."""
    found = set()
    for name, it in list(sys.modules.items()):
        if f"{name}.".startswith(f"{module.__name__}."):
            body = parsed(it)
            for statement, following in itertools.pairwise(body):
                if isinstance(statement, (ast.Assign, ast.AnnAssign)) and isinstance(
                    following, ast.Expr
                ):
                    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
                    found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return found


def assigned(module: ModuleType) -> set[str]:
    """The public constants and aliases that a module itself assigns."""
    found = set()
    for statement in parsed(module):
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            for target in getattr(statement, "targets", [getattr(statement, "target", None)]):
                if isinstance(target, ast.Name):
                    found.add(target.id)
    return {name for name in found if not name.startswith("_")} - {"log"}


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    left_out = unwanted(module.__name__)
    for name in getattr(module, "__all__", None) or list(vars(module)):
        it = getattr(module, name)
        if name in left_out or isinstance(it, TypeVar):
            continue
        own = getattr(it, "__module__", None) == module.__name__ and not name.startswith("_")
        if hasattr(module, "__all__") or own or name in assigned(module):
            yield name, it


def undescribed(module: ModuleType) -> Iterator[str]:
    if not module.__doc__:
        yield module.__name__
    described = commented(module)
    for name, it in public(module):
        at = f"{module.__name__}.{name}"
        if inspect.ismodule(it):
            continue
        if not (inspect.isroutine(it) or inspect.isclass(it)):
            if name not in described and name != "__version__":
                yield at
        elif not it.__doc__ or it.__doc__.startswith(f"{name}("):  # What a dataclass has.
            yield at
        if inspect.isclass(it) and not issubclass(it, enum.Enum):
            for part, member in vars(it).items():
                if isinstance(member, (classmethod, staticmethod)):
                    member = member.__func__
                if (inspect.isfunction(member) or isinstance(member, property)) and not (
                    part.startswith("_") or inspect.getdoc(getattr(it, part))
                ):
                    yield f"{at}.{part}"


def test_every_public_name_is_described() -> None:
    assert len(MODULES) > 20
    found = [name for module in MODULES for name in undescribed(importlib.import_module(module))]
    assert not found


def test_every_public_module_has_a_page() -> None:
    """A module that others are told to import from is in the reference."""
    told = set()
    for page in [*API.parent.glob("*.md"), *API.parent.glob("python/*.md")]:
        told |= set(re.findall(r"^from (jepsen_antithesis\S*) import", page.read_text(), re.M))
    assert told <= set(MODULES)


def test_it_is_built_without_a_warning(tmp_path: Path) -> None:
    """Which there would be for names that are not there, and for wrong markup."""
    pytest.importorskip("sphinx")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "text"]
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "doctrees"), str(API), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    checkers = (tmp_path / "checkers.txt").read_text()
    assert "jepsen_antithesis.checker.set_full(" in checkers
    assert "ForwardRef" not in checkers
