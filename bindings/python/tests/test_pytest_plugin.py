"""The plugin for pytest, in a pytest of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

MODULE = """
    import pytest
    from jepsen_antithesis import checker, core, generator as gen

    def noop(valid):
        result = {"valid": valid, "why": "the reason"}
        return {**core.noop_test(), "nodes": ["n1"], "generator": gen.clients([{"f": "read"}]),
                "checker": lambda test, history, opts: result}
"""


def outcome(pytester: pytest.Pytester, tests: str) -> pytest.RunResult:
    source = Path(__file__).parents[1] / "src"
    pytester.makeini(
        f"[pytest]\npythonpath = {source}\naddopts = -p jepsen_antithesis.pytest_plugin"
    )
    pytester.syspathinsert(source)
    pytester.makepyfile(MODULE + tests)
    return pytester.runpytest_subprocess("-W", "error", "--strict-markers")


def test_a_test_that_is_marked_returns_a_test_map(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
    @pytest.mark.jepsen
    def test_valid(tmp_path):
        return {**noop(True), "store_dir": str(tmp_path / "mine")}

    @pytest.mark.jepsen
    def test_invalid():
        return noop(False)

    @pytest.mark.jepsen
    def test_unknown():
        return noop("unknown")

    @pytest.mark.jepsen(unknown=True)
    def test_accepted():
        return noop("unknown")

    @pytest.mark.jepsen
    def test_checker_that_fails():
        return {**noop(True), "checker": lambda test, history, opts: 1 / 0}

    @pytest.mark.jepsen
    def test_nothing():
        pass

    @pytest.mark.jepsen
    @pytest.mark.parametrize("valid", [True, False])
    def test_parameters(valid):
        return noop(valid)

    @pytest.mark.jepsen
    def test_that_raises():
        raise ValueError("before the run")
    """,
    )
    result.assert_outcomes(passed=3, failed=6)
    result.stdout.fnmatch_lines_random(
        [
            "checked: invalid; see */results.json",
            "*'why': 'the reason'*",
            "checked: unknown; *",
            "failed: the checker failed: ZeroDivisionError: *",
            "A test function marked jepsen returns a test map, not None",
            "E   *ValueError: before the run",
        ]
    )


def test_the_fixture_runs_a_test_map(pytester: pytest.Pytester) -> None:
    result = outcome(
        pytester,
        """
    def test_valid(jepsen_run, tmp_path):
        finished = jepsen_run(noop(True))
        assert [op["type"] for op in finished["history"]] == ["invoke", "ok"]
        assert (tmp_path / "store" / "noop" / "latest" / "results.json").exists()

    def test_invalid(jepsen_run):
        jepsen_run(noop(False))

    def test_unknown(jepsen_run):
        jepsen_run(noop("unknown"), unknown=True)
    """,
    )
    result.assert_outcomes(passed=2, failed=1)
    result.stdout.fnmatch_lines(["checked: invalid; see */results.json"])
