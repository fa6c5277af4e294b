"""Histories, EDN and the store."""

from __future__ import annotations

import json
import logging
import math
import resource
import signal
from pathlib import Path
from typing import Any

import edn_format
import pytest

from jepsen_antithesis import History, Keyword, edn
from jepsen_antithesis.store import Store, logging_to, to_json
from jepsen_antithesis.worker import describe


def op(index: int, process: Any, kind: str, f: str = "read", value: Any = None) -> dict[str, Any]:
    return {
        "index": index,
        "time": index * 10,
        "type": kind,
        "process": process,
        "f": f,
        "value": value,
    }


class TestEdn:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (None, "nil"),
            (True, "true"),
            (False, "false"),
            (-7, "-7"),
            (2**63 - 1, "9223372036854775807"),
            (2**63, "9223372036854775808N"),
            (1.5, "1.5"),
            (1e300, "1e+300"),
            (math.nan, "##NaN"),
            (math.inf, "##Inf"),
            (-math.inf, "##-Inf"),
            ("text", '"text"'),
            ('a "quoted"\nline\\', '"a \\"quoted\\"\\nline\\\\"'),
            ("ünïcode", '"ünïcode"'),
            (Keyword("append"), ":append"),
            (Keyword("no keyword"), '"no keyword"'),
            (b"bytes\xff", '"bytes\\\\xff"'),
            ([1, (2, [3])], "[1 [2 [3]]]"),
            ({"a": 1, "b-c": None}, "{:a 1, :b-c nil}"),
            ({1: 2, "not a keyword": 3, (1, 2): 4}, '{1 2, "not a keyword" 3, [1 2] 4}'),
            ({3, 1, 2}, "#{1 2 3}"),
            (Path("/x"), '"/x"'),
        ],
    )
    def test_values(self, value: Any, text: str) -> None:
        assert edn.dumps(value) == text

    def test_operations(self) -> None:
        assert edn.dump_op(op(0, 3, "invoke")) == (
            "{:index 0, :time 0, :type :invoke, :process 3, :f :read, :value nil}"
        )
        assert ":process :nemesis" in edn.dump_op(op(0, "nemesis", "info"))

    def test_what_contains_itself_is_a_string(self) -> None:
        value: list[Any] = [1]
        value.append(value)
        assert edn.dump_op({"type": "ok", "value": value}) == '{:type :ok, :value "[1, [...]]"}'

    def test_transactions_as_elle_has_them(self) -> None:
        text = edn.dump_op(op(0, 0, "ok", "txn", [["append", 1, 2], ("r", 1, [2, 3])]))
        assert ":value [[:append 1 2] [:r 1 [2 3]]]" in text

    def test_a_reader_reads_it_back(self) -> None:
        value: dict[str, Any] = {"a": [1, 2.5, "x\ty\u2028z", None, True, {7: "b"}], "deep": [[[]]]}
        read = edn_format.loads(edn.dumps(value))
        back = {k.name: v for k, v in read.items()}
        assert list(back["a"][:5]) == value["a"][:5]
        assert dict(back["a"][5]) == {7: "b"}


class TestHistory:
    ops = (
        op(0, 0, "invoke"),
        op(1, "nemesis", "info", "break"),
        op(2, 1, "invoke"),
        op(3, 0, "ok"),
        op(4, "nemesis", "info", "break"),
        op(5, 0, "invoke"),
        op(6, 1, "info"),
        op(7, "nemesis", "info", "break"),
    )

    def test_pairs(self) -> None:
        history = History(self.ops)
        pairs = {0: 3, 2: 6, 1: 4}
        for invocation, completion in pairs.items():
            assert history.completion(history[invocation]) is history[completion]
            assert history.invocation(history[completion]) is history[invocation]
        assert history.completion(history[5]) is None
        assert history.completion(history[7]) is None

    def test_pairs_follow_what_is_appended(self) -> None:
        history = History(self.ops)
        assert history.completion(history[5]) is None
        history.append(op(8, 0, "fail"))
        assert history.completion(history[5]) == op(8, 0, "fail")

    def test_filters(self) -> None:
        history = History(self.ops)
        assert [o["index"] for o in history.invokes()] == [0, 2, 5]
        assert [o["index"] for o in history.oks()] == [3]
        assert [o["index"] for o in history.client_ops()] == [0, 2, 3, 5, 6]
        assert history[1:3] == list(self.ops[1:3])
        assert len(history) == 8

    def test_filters_and_slices_are_histories(self) -> None:
        history = History([*self.ops, op(8, 0, "fail")])
        assert [o["index"] for o in history.fails()] == [8]
        assert [o["index"] for o in history.infos()] == [1, 4, 6, 7]
        for part in (history.oks(), history[3:], history.client_ops()[2:]):
            assert isinstance(part, History)
            assert part.invocation(history[3]) is history[0]
            assert part.completion(history[5]) is history[8]
        assert history.client_ops().oks().infos() == []

    def test_pairs_are_invocations_with_their_completions(self) -> None:
        history = History(self.ops)
        pairs = [(a["index"], b and b["index"]) for a, b in history.pairs()]
        assert pairs == [(0, 3), (1, 4), (2, 6), (5, None), (7, None)]
        assert [(a["index"], b and b["index"]) for a, b in history.oks().pairs()] == [(0, 3)]
        reads = history.filter(lambda o: o["f"] == "read")
        pairs = [(a["index"], b and b["index"]) for a, b in reads.pairs()]
        assert pairs == [(0, 3), (2, 6), (5, None)]

    def test_pairs_of_a_history_with_gaps(self) -> None:
        history = History(o for o in self.ops if o["process"] != "nemesis")
        assert history.completion(history[1]) == self.ops[6]
        pairs = [(a["index"], b and b["index"]) for a, b in history.pairs()]
        assert pairs == [(0, 3), (2, 6), (5, None)]

    def test_a_part_is_not_appended_to(self) -> None:
        with pytest.raises(TypeError, match="part of one"):
            History(self.ops).oks().append(op(8, 0, "ok"))

    def test_is_read_up_to_the_last_whole_line(self, tmp_path: Path) -> None:
        path = tmp_path / "history.jsonl"
        path.write_text(json.dumps(self.ops[0]) + "\n" + json.dumps(self.ops[1])[:20])
        assert list(History.read(path)) == [self.ops[0]]


class TestStore:
    def test_journal_is_on_disk_at_once(self, tmp_path: Path) -> None:
        store = Store("name", tmp_path)
        store.journal(op(0, 0, "invoke"))
        assert list(History.read(store.path / "history.jsonl")) == [op(0, 0, "invoke")]
        store.close()

    @pytest.mark.parametrize(
        "value",
        [
            *(math.inf, -math.inf, [0.1, {"x": math.inf}]),
            *((1, 2), [("append", 1, [2])], {1: 10, 2: 20}, {(1, 2): {3: 4}}, {"$set": [1]}),
            *({1, 2}, frozenset({"a"}), {"s": {(1, 2)}}, b"\x00\xff", {None: True, 1.5: "x"}),
            *("\udcff", "ünïcode", "\u2028", [], {}, (), 2**80),
        ],
    )
    def test_journal_loses_nothing(self, tmp_path: Path, value: Any) -> None:
        written = op(0, 0, "ok", value=value)
        store = Store("name", tmp_path)
        store.journal(written)
        store.close()
        path = store.path / "history.jsonl"
        [back] = History.read(path)
        assert back == written
        assert repr(back["value"]) == repr(value), "of the same types"
        # Any reader of JSON can read it.
        json.loads(path.read_bytes(), parse_constant=pytest.fail)

    def test_journal_keeps_keywords_and_what_is_no_number(self, tmp_path: Path) -> None:
        store = Store("name", tmp_path)
        store.journal(op(0, 0, "ok", value=[math.nan, Keyword("x")]))
        store.close()
        [back] = History.read(store.path / "history.jsonl")
        assert math.isnan(back["value"][0])
        assert isinstance(back["value"][1], Keyword)

    def test_journal_of_what_has_no_encoding_is_its_string(self, tmp_path: Path) -> None:
        cyclic: list[Any] = [1]
        cyclic.append(cyclic)
        store = Store("name", tmp_path)
        store.journal(op(0, 0, "ok", value=[Path("/x"), cyclic]))
        store.close()
        [back] = History.read(store.path / "history.jsonl")
        assert back["value"] == ["/x", [1, "…"]]

    def test_journal_takes_a_line_in_parts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A file that grows beyond its limit takes what fits, and only then says so."""
        store = Store("name", tmp_path)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        previous = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (40, hard))
            with pytest.raises(OSError, match="too large"):
                store.journal(op(0, 0, "ok", value="x" * 100))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, previous)
        path = store.path / "history.jsonl"
        assert path.read_bytes() == b"", "no part of a line"
        store.journal(op(0, 0, "ok"))
        store.close()
        assert list(History.read(path)) == [op(0, 0, "ok")]

    def test_runs_of_the_same_name_do_not_meet(self, tmp_path: Path) -> None:
        stores = [Store("name", tmp_path) for _ in range(5)]
        assert len({store.path for store in stores}) == 5
        for link in (tmp_path / "latest", tmp_path / "current", tmp_path / "name" / "latest"):
            assert link.resolve() == stores[-1].path.resolve()
        for store in stores:
            store.close()

    @pytest.mark.parametrize("name", ["a/b", "../up", "..", "", "x" * 50 + " y"])
    def test_names_stay_inside(self, tmp_path: Path, name: str) -> None:
        base = tmp_path / "base"
        store = Store(name, base)
        assert store.path.resolve().parent.parent == base.resolve()
        store.close()

    def test_logging(self, tmp_path: Path) -> None:
        with logging_to(tmp_path / "jepsen.log"):
            logging.getLogger("some.library").info("hello")
        logging.getLogger("some.library").warning("not here")
        text = (tmp_path / "jepsen.log").read_text()
        assert "INFO [MainThread] some.library: hello" in text
        assert "not here" not in text


class TestJson:
    def test_what_json_has_not(self) -> None:
        class Odd:
            def __str__(self) -> str:
                return "odd"

        value = {"set": {2, 1}, "bytes": b"\xff", "path": Path("/x"), "odd": Odd(), 1: (2,)}
        assert json.loads(to_json(value)) == {
            "set": [1, 2],
            "bytes": "\\xff",
            "path": "/x",
            "odd": "odd",
            "1": [2],
        }

    def test_numbers_that_are_not_finite(self) -> None:
        text = to_json({"worst": math.nan, "best": [math.inf, -math.inf]})
        assert json.loads(text, parse_constant=pytest.fail) == {
            "worst": "NaN",
            "best": ["Infinity", "-Infinity"],
        }

    def test_what_is_nested_too_deeply(self) -> None:
        deep: Any = []
        for _ in range(5000):
            deep = [deep]
        # How deep is too deep depends on Python's version; the verdict is there in any case.
        assert to_json({"valid": False, "deep": deep}).startswith('{"valid": false, "deep": [[')

    def test_keys_of_any_kind(self) -> None:
        assert json.loads(to_json({(1, 2): {(3,): 4}})) == {"(1, 2)": {"(3,)": 4}}

    def test_what_contains_itself(self) -> None:
        value: dict[str, Any] = {"a": 1}
        value["self"] = value
        assert json.loads(to_json(value)) == {"a": 1, "self": "…"}

    def test_what_has_no_string(self) -> None:
        class Shy:
            def __str__(self) -> str:
                raise RuntimeError("no")

            __repr__ = __str__

        shown = "<Shy whose string cannot be made: RuntimeError>"
        assert json.loads(to_json({"shy": {Shy()}, Shy(): 1})) == {"shy": [shown], shown: 1}
        assert edn.dumps(Shy()) == f'"{shown}"'

    def test_lone_surrogates_can_be_written(self, tmp_path: Path) -> None:
        store = Store("name", tmp_path)
        store.journal(op(0, 0, "ok", value="\udcff"))
        store.save_history([op(0, 0, "ok", value="\udcff")])
        store.save_results({"valid": True, "value": "\udcff"})
        store.close()
        assert len(History.read(store.path / "history.jsonl")) == 1


def test_exceptions_are_described_as_clojure_does() -> None:
    try:
        try:
            raise OSError("cause")
        except OSError as error:
            raise ValueError("effect") from error
    except ValueError as error:
        described = describe(error)
    assert described["cause"] == "cause"
    assert described["via"] == [
        {"type": "builtins.ValueError", "message": "effect"},
        {"type": "builtins.OSError", "message": "cause"},
    ]
    assert "Traceback" in described["trace"]
