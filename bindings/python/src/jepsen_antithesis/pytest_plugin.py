"""Tests for pytest: a test map that a test function returns, or runs by a fixture, has to be valid.

>>> @pytest.mark.jepsen
... def test_register():
...     return {**register_test(), "generator": gen.time_limit(5, ...)}

>>> def test_register(jepsen_run):
...     finished = jepsen_run({**register_test(), ...})
...     assert len(finished["history"]) > 100

An invalid history, a checker that failed, and a verdict that is unknown fail the test, with the
checker's summary. ``@pytest.mark.jepsen(unknown=True)`` and ``jepsen_run(test, unknown=True)``
accept one that is unknown. The store is in the test's ``tmp_path`` unless the test map names
another.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from . import core
from . import verdict as verdicts
from .types import Test

_MAX_SUMMARY = 4000


@pytest.fixture
def jepsen_run(tmp_path: Path) -> Callable[..., Test]:
    """Runs a test map, and returns it with ``history`` and ``results``; fails unless it is
    valid.
    """

    def run(test: Test, *, unknown: bool = False) -> Test:
        __tracebackhide__ = True
        return _run(test, tmp_path, unknown)

    return run


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "jepsen(unknown=False): the test function returns a Jepsen test map, which is run and has "
        "to be valid; with unknown=True its verdict may be unknown",
    )


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, Any, Any]:
    mark = pyfuncitem.get_closest_marker("jepsen")
    if mark is None:
        return (yield)
    function = pyfuncitem.obj
    if inspect.iscoroutinefunction(function):
        pytest.fail("A test function marked jepsen cannot be async", pytrace=False)
    returned: list[Any] = []

    def call(*args: Any, **kwargs: Any) -> None:
        returned.append(function(*args, **kwargs))

    # pytest itself looks at the names of the parameters, and warns about what is returned.
    call.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
    pyfuncitem.obj = call
    try:
        result = yield
    finally:
        pyfuncitem.obj = function
    if not returned or not isinstance(returned[0], Mapping):
        got = repr(returned[0] if returned else None)
        pytest.fail(f"A test function marked jepsen returns a test map, not {got:.200}", False)
    directory = pyfuncitem._request.getfixturevalue("tmp_path")
    _run(dict(returned[0]), directory, mark.kwargs.get("unknown", False))
    return result


def _run(test: Test, directory: Path, unknown: bool) -> Test:
    __tracebackhide__ = True
    finished = core.run({"store_dir": str(directory / "store"), **test})
    results = finished["results"]
    verdict = verdicts.verdict(results)
    if verdict is verdicts.Verdict.VALID:
        return finished
    if verdict is verdicts.Verdict.UNKNOWN and unknown:
        return finished
    store = finished["store"]
    path = None if store is None else store.path / "results.json"
    pytest.fail(f"{verdicts.line(results, path)}\n{_summary(results)}", pytrace=False)


def _summary(results: Mapping[str, Any]) -> str:
    shown = core.pretty(results)
    return shown if len(shown) <= _MAX_SUMMARY else f"{shown[:_MAX_SUMMARY]}\n…"
