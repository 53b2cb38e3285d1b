"""Small students on few examples: a word is the same tokens anywhere, a lesson is learned, replies are counted."""

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline_inputs import EXAMPLES, in_process, look, output_json

from fineinstructions.markup import ExcerptSegment, parse_answer

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes" / "students" / "small"

pytestmark = [pytest.mark.slow, pytest.mark.extra, pytest.mark.xdist_group("small_students")]
pytest.importorskip("torch")
pytest.importorskip("trl")

THREE_LAYERS = {"layer_types": ["conv", "full_attention", "conv"]}


@pytest.fixture(scope="module")
def module() -> Any:
    """Imports a benchmark."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module


def call(script: Any, *words: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script.__name__, *map(str, words)])
        script.main()


@pytest.fixture(scope="module")
def work(module: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Passages of the examples, lessons in quoting, and a model that was not trained."""
    folder = tmp_path_factory.mktemp("small")
    passages = folder / "passages.parquet"
    lessons = ("--lessons", folder / "lessons.parquet", "--number", 320)
    call(module("passages"), EXAMPLES / "documents.parquet", "--out", passages, *lessons)
    call(module("small_base"), passages, "--config", RECIPES / "config.json", "--out", folder / "base")
    return folder


def test_lessons_are_answered_from_their_text(work: Path) -> None:
    rows = pq.read_table(work / "lessons.parquet").to_pylist()
    assert len(rows) == 320
    for row in rows:
        asked, reply = json.loads(row["prompt"][0]["content"]), json.loads(row["completion"][0]["content"])
        (quoted,) = parse_answer(reply["answer"])
        assert isinstance(quoted, ExcerptSegment)
        assert asked["document"].startswith(reply["instruction"])
        assert asked["document"].count(quoted.opening) == 1


def test_weights_that_are_laid_out_copy_before_any_training(module: Any, work: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def share(base: str) -> float:
        model = AutoModelForCausalLM.from_pretrained(work / base).eval()
        rows = pq.read_table(work / "lessons.parquet").slice(0, 20).to_pylist()
        return float(module("small_base").share_copied(model, AutoTokenizer.from_pretrained(work / base), rows))

    shape = ("--config", RECIPES / "config.json", "--out", work / "random", "--random")
    call(module("small_base"), work / "passages.parquet", *shape)
    assert share("base") > 0.9
    assert share("random") < 0.1


@pytest.mark.parametrize("changes", [{"layer_types": ["full_attention", "conv", "conv"]}, {"conv_L_cache": 3}])
def test_weights_are_laid_out_for_one_shape_only(module: Any, changes: dict[str, Any]) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = AutoConfig.from_pretrained(RECIPES / "config.json", **{"num_hidden_layers": 3, **THREE_LAYERS, **changes})
    with pytest.raises(ValueError, match="the first three must be conv, full_attention and conv, over more than 6"):
        module("copying_weights").lay_out(AutoModelForCausalLM.from_config(shape), 0)


def test_held_out_passages_are_about_something_else(module: Any, work: Path, tmp_path: Path) -> None:
    table = pq.read_table(EXAMPLES / "documents.parquet").to_pylist()
    known = {row["title"].casefold() for row in pq.read_table(work / "passages.parquet").to_pylist()}
    other = {**next(row for row in table if row["domain"] == "medicine"), "id": "other", "title": "Something else"}
    pq.write_table(pa.Table.from_pylist([*table, other]), tmp_path / "all.parquet")
    unlike = ("--unlike", work / "passages.parquet", "--domains", "medicine")
    call(module("passages"), tmp_path / "all.parquet", "--out", tmp_path / "held-out.parquet", *unlike)
    found = {row["title"] for row in pq.read_table(tmp_path / "held-out.parquet").to_pylist()}
    assert "Something else" in found
    assert not {title.casefold() for title in found} & known


@given(
    st.lists(st.sampled_from(["\\n", "<fi>", "</fi>", "<excerpt>", "<...>", '"}', " ", "a b", "Ünï", "?", "<", "\\"]))
)
@settings(max_examples=200)
def test_texts_behind_markup_come_back_as_they_were(work: Path, pieces: list[str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "base")
    text = '{"instruction": "' + "".join(pieces)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_a_word_is_the_same_tokens_wherever_it_stands(work: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "base")
    places = [f'", "document": "{before}Gallstones' for before in ("", "a\\n\\n", "about ", "<excerpt>", "x<...>")]
    word = tokenizer(places[0])["input_ids"][1:]
    assert all(tokenizer(place)["input_ids"][-len(word) :] == word for place in places)


@pytest.fixture(scope="module")
def student(work: Path) -> Path:
    """A model after the lesson in quoting, as far as few examples teach it."""
    sets = [f"data={work / 'lessons.parquet'}", f"model={work / 'base'}"]
    words = [word for item in sets for word in ("--set", item)]
    code, _, errors = in_process("train", "instantiator", RECIPES / "copy.yaml", "--out", work / "copy", *words)
    assert code == 0, errors
    return work / "copy"


def test_the_lesson_in_quoting_is_learned(student: Path) -> None:
    (figures,) = json.loads((student / "training.json").read_text())["rounds"]
    assert figures["steps"] == 20
    assert figures["last_loss"] < 0.6 * figures["first_loss"]


def test_every_reply_of_a_served_student_is_accounted_for(
    module: Any, work: Path, student: Path, bank: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from fineinstructions import pipeline
    from fineinstructions.outcomes import attempts_of_run
    from fineinstructions.templates.bank import TemplatesConfig
    from fineinstructions.templates.genericize import GenericizeConfig

    bench = module("bench_small_students")
    (tmp_path / "genericizer_validation").mkdir()
    queries = pq.read_table(EXAMPLES / "queries.parquet", columns=["id", "text"]).rename_columns(["query_id", "query"])
    pq.write_table(queries, tmp_path / "genericizer_validation" / "rows.parquet")
    args = argparse.Namespace(
        genericizer=student, instantiator=student, silver=tmp_path, documents=work / "passages.parquet", work=tmp_path,
        num_queries=300, num_documents=12, unscreened=True,
    )  # fmt: skip
    with bench.served(student, tmp_path / "log") as address:
        other_templates = {
            "queries": None,
            "genericize": GenericizeConfig(),
            "templates": TemplatesConfig(bank=str(bank)),
        }
        pipeline.run(bench.recipe(args, address, address).model_copy(update=other_templates), tmp_path / "run")
    capsys.readouterr()
    bench.report(tmp_path / "run")
    told = capsys.readouterr().out
    attempts = list(attempts_of_run(tmp_path / "run"))
    (figure,) = [
        row
        for row in output_json(look("status", tmp_path / "run", "--json"))["funnel"]
        if row["stage"] == "instantiate"
    ]
    assert len(attempts) == figure["in"] == figure["out"] + sum(figure["rejected"].values()) > 12
    assert all(
        attempt.reason.split(":")[0] in ("", "instantiate", "excerpts", "judge", "select") for attempt in attempts
    )
    assert not any(attempt.failed for attempt in attempts)
    assert f"{len(attempts)} matches, 0 turned away by the screen, {len(attempts)} instantiations" in told
    args.unscreened = False
    assert bench.recipe(args, address, address).compatibility.screen
