"""Training rows read back: of a run's tables, of files, and what becomes of rows that do not do."""

import json
from pathlib import Path

import pytest
from silver_rows import embedder_rows, genericizer_rows, instantiator_rows, write

from fineinstructions.errors import ConfigError
from fineinstructions.records import GLOBAL_CHUNK, Rejection, as_dict
from fineinstructions.silver.read import Example, PairExample, once, read_examples, read_pairs


def anything(_: Example) -> str:
    return ""


def lines(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_run_and_a_file_give_the_same_rows(tmp_path: Path) -> None:
    given = instantiator_rows(1, 12)
    write(tmp_path / "run", "instantiator_1", given)
    write(tmp_path / "run", "instantiator_2", instantiator_rows(2, 6))
    path = lines(tmp_path / "rows.jsonl", [as_dict(row) for row in given])
    of_run = list(read_examples(str(tmp_path / "run"), ["instantiator_1"], anything))
    of_file = list(read_examples(path, ["instantiator_1"], anything))
    assert sorted(of_run, key=str) == sorted(of_file, key=str)
    assert [(r.reply, r.prompt, r.round) for r in of_file if isinstance(r, Example)] == [
        (r.reply, r.prompt, 1) for r in given
    ]
    assert {r.origin.licence for r in of_file if isinstance(r, Example)} == {"CC0 1.0; CC BY 4.0"}
    both = list(read_examples(str(tmp_path / "run"), ["instantiator_1", "instantiator_2"], anything))
    assert len(both) == 18


def test_only_what_is_needed_is_asked_for(tmp_path: Path) -> None:
    turns = {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}
    (row,) = read_examples(lines(tmp_path / "a.jsonl", [turns]), ["genericizer"], anything)
    assert isinstance(row, Example)
    assert (row.split, row.round, row.reply) == ("train", 1, "a")
    (pair,) = read_pairs(lines(tmp_path / "b.jsonl", [{"document": "d", "description": "e", "label": 1}]))
    assert isinstance(pair, PairExample)
    assert (pair.label, pair.chunk, pair.is_quoted) == (1.0, GLOBAL_CHUNK, False)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "text"}, {"prompt": []}, {"completion": [{"role": "user", "content": "a"}]}, {"split": "test"},
        {"prompt": [{"role": "user"}]}, {"round": "1"}, {"completion": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_conversation_of_another_shape_is_turned_away(tmp_path: Path, change: dict[str, object]) -> None:
    given = as_dict(genericizer_rows(1)[0]) | change
    (found,) = read_examples(lines(tmp_path / "a.jsonl", [given]), ["genericizer"], anything)
    assert isinstance(found, Rejection)
    assert (found.stage, found.reason, found.record_id) == ("read", "format", f"{tmp_path / 'a.jsonl'}, row 1")


@pytest.mark.parametrize("change", [{"label": 2}, {"label": True}, {"chunk": -2}, {"document": " "}, {"split": ""}])
def test_a_pair_of_another_shape_is_turned_away(tmp_path: Path, change: dict[str, object]) -> None:
    given = as_dict(embedder_rows(1)[0]) | change
    (found,) = read_pairs(lines(tmp_path / "a.jsonl", [given]))
    assert isinstance(found, Rejection)
    assert found.reason == "format"


def test_what_one_input_holds_out_no_other_trains_on(tmp_path: Path) -> None:
    rows = [as_dict(row) for row in genericizer_rows(3)]
    other = [rows[0], rows[1] | {"split": "validation"}]
    paths = [lines(tmp_path / "a.jsonl", rows), lines(tmp_path / "b.jsonl", other)]
    found = list(once(list(read_examples(paths, ["genericizer"], anything))))
    told = [r.reason if isinstance(r, Rejection) else f"{r.split} {r.row_id}" for r in found]
    assert told == ["train g-000", "held_out", "train g-002", "repeated", "validation g-001"]


def test_an_unfinished_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "recipe.resolved.yaml").write_text("{}")
    with pytest.raises(ConfigError, match="is a run without genericizer rows; finish it with distill first"):
        list(read_examples(str(tmp_path), ["genericizer"], anything))
