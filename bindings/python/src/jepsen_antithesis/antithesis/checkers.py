"""Checkers that assert that their results are valid."""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

from .._details import cut
from .._sdk import AssertType, declare, is_heard
from ..checker.checking import OWN_ASSERTIONS, UNKNOWN, Check, Checker, Opts, merge_valid
from ..checker.composing import Compose
from ..edn import text
from ..history import History
from ..types import Test
from .assertions import always, sometimes


def checker(check: Check, name: str = "checker") -> Check:
    """`check`, with a property of that `name`: its result is never invalid; and with a property
    ``NAME has a verdict``: at some time its result is not unknown. Details are the result, cut
    where it is long. Returns `check` itself where nobody is told.
    """
    if not is_heard():
        return check
    declare(AssertType.ALWAYS, name)
    declare(AssertType.SOMETIMES, _has_verdict(name))
    return Always(check, name)


def checker_plus(check: Check, path: tuple[str, ...] = ("checker",)) -> Check:
    """`check`, with the properties of `checker` for each checker in it: those of a
    `checker.compose`, and those in the fields of a dataclass that is a checker. The names are the
    keys that lead to a checker, joined by spaces: ``checker``, ``checker bank``, ``checker bank per
    key``.

    What asserts by itself is left as it is, with all in it: whatever has a true attribute
    ``own_assertions``. `checker.stats` is left out too, since ``ok F`` says the same of each ``f``.
    """
    if not is_heard() or isinstance(check, Always) or getattr(check, OWN_ASSERTIONS, False):
        return check
    return checker(_with_parts(check, path), " ".join(path))


class Always:
    """A checker that asserts that the result of another one is valid, and is that one otherwise."""

    def __init__(self, check: Check, name: str) -> None:
        self.inner = check
        self.name = name

    def check(self, test: Test, history: History, opts: Opts) -> Mapping[str, Any]:
        """The result of the other one."""
        check = self.inner.check if isinstance(self.inner, Checker) else self.inner
        try:
            result = check(test, history, opts)
        except BaseException as error:
            self._tell(UNKNOWN, {"error": error})
            raise
        try:
            valid = merge_valid([result["valid"]])
        except Exception:  # It is no result, for the caller to complain about.
            valid = UNKNOWN
        self._tell(valid, result)
        return result

    __call__ = check

    def _tell(self, valid: Any, result: Any) -> None:
        details = cut(result)
        always(valid is not False, self.name, details)
        sometimes(valid != UNKNOWN, _has_verdict(self.name), details)

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("__"):
            raise AttributeError(name)  # Copying asks for these.
        return getattr(self.inner, name)


def _has_verdict(name: str) -> str:
    return f"{name} has a verdict"


def _with_parts(check: Any, path: tuple[str, ...]) -> Any:
    """`check` with its parts wrapped: itself, where it has none."""
    if isinstance(check, Compose):
        return _changed(check, {"checkers": _parts(check.checkers, path)})
    if not dataclasses.is_dataclass(check) or isinstance(check, type):
        return check
    fields = {field.name: getattr(check, field.name, None) for field in dataclasses.fields(check)}
    parts = {name: _part(part, longer(path, name, fields)) for name, part in fields.items()}
    changed = {name: part for name, part in parts.items() if part is not fields[name]}
    return _changed(check, changed) if changed else check


def _changed(check: Any, fields: Mapping[str, Any]) -> Any:
    """A copy of a dataclass with other `fields`. Not by dataclasses.replace, which calls the class,
    and that need not take its fields.
    """
    copied = copy.copy(check)
    for name, part in fields.items():
        object.__setattr__(copied, name, part)
    return copied


def _part(part: Any, path: tuple[str, ...]) -> Any:
    """What is in a dataclass. A function there may be anything, so only objects are checkers."""
    if isinstance(part, Checker):
        return checker_plus(part, path)
    if type(part) is dict:
        parts = {key: _part(item, longer(path, key, part)) for key, item in part.items()}
        return parts if any(map(operator.is_not, parts.values(), part.values())) else part
    if type(part) in (list, tuple):
        items = [_part(item, path) for item in part]
        return type(part)(items) if any(map(operator.is_not, items, part)) else part
    return part


def _parts(parts: Mapping[str, Check], path: tuple[str, ...]) -> dict[str, Check]:
    return {key: checker_plus(part, longer(path, key, parts)) for key, part in parts.items()}


def longer(path: tuple[str, ...], key: Any, siblings: Mapping[Any, Any]) -> tuple[str, ...]:
    """The path to a part. The only one there is needs no name of its own."""
    return (*path, text(key)) if len(siblings) > 1 else path
