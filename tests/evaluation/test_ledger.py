"""The ledger: whole lines only, nothing twice, what failed is asked again."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fineinstructions.errors import DataError
from fineinstructions.evaluation.items import Answer, Judgement
from fineinstructions.evaluation.ledger import ANSWER, JUDGE, Ledger

AWKWARD = 'line\u2028and\x85and\x0bjoined \U0001f469\u200d\U0001f52c \\ " {} \n \r end'


def fill(path: Path) -> None:
    with Ledger(path) as ledger:
        ledger.add_answer("a", Answer(AWKWARD))
        ledger.add_answer("b", Answer("", "too_long"))
        ledger.add_options("a", {"option_letter": 1.0})
        ledger.add_judgement("a", "", Judgement({"value": 0.5}, AWKWARD))
        ledger.add_judgement("b", "", Judgement(None, "raw", "unparsed"))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    fill(tmp_path / "l.jsonl")
    before = (tmp_path / "l.jsonl").read_bytes()
    ledger = Ledger(tmp_path / "l.jsonl")
    assert ledger.answers == {"a": Answer(AWKWARD), "b": Answer("", "too_long")}
    assert ledger.judgements["a"] == {"": Judgement({"value": 0.5}, AWKWARD)}
    assert ledger.judgements["b"] == {"": Judgement(None, "raw", "unparsed")}
    assert ledger.options == {"a": {"option_letter": 1.0}}
    assert (tmp_path / "l.jsonl").read_bytes() == before


def test_torn_anywhere_it_holds_a_prefix_and_goes_on(tmp_path: Path) -> None:
    fill(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    torn = tmp_path / "torn.jsonl"
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for length in sorted({*range(0, len(whole), 41), *(end + step for end in ends for step in (-1, 0))}):
        torn.write_bytes(whole[:length])
        kept = whole[: whole.rfind(b"\n", 0, length) + 1]
        Ledger(torn)
        assert torn.read_bytes() == kept
    torn.write_bytes(whole[:-7])
    with Ledger(torn) as ledger:
        assert "b" not in ledger.judgements
        ledger.add_judgement("b", "", Judgement(None, "raw", "unparsed"))
    assert torn.read_bytes() == whole


def test_failures_are_forgotten_and_judgements_on_demand(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    fill(path)
    whole = path.read_bytes()
    with Ledger(path) as ledger:
        ledger.add_failure(ANSWER, "c", "transport", "no connection")
        ledger.add_failure(JUDGE, "a", "request", "refused")
        assert ledger.num_failed == 2
    assert Ledger(path).num_failed == 0
    assert path.read_bytes() == whole
    again = Ledger(path, forget_judgements=True)
    assert again.judgements == {}
    assert list(again.answers) == ["a", "b"]
    assert again.options


def test_nothing_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    fill(path)
    with Ledger(path) as ledger, pytest.raises(DataError, match="answer a is there twice"):
        ledger.add_answer("a", Answer("another"))
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match="is there twice"):
        Ledger(path)


def test_damage_in_the_middle_is_told_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    fill(path)
    first, _, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([first, b'{"step": "answer"}\n', *rest]))
    with pytest.raises(DataError, match="line 2 is damaged"):
        Ledger(path)


@given(st.text())
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.unlink(missing_ok=True)
    ledger = Ledger(path)
    ledger.add_answer("a", Answer(text))
    assert Ledger(path).answers["a"].text == text
