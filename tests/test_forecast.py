"""What is forecast from a sample, against what the whole run makes."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import EXAMPLES, take_documents, write_recipe
from rich.console import Console

import fineinstructions
from fineinstructions.cli.show import forecast_view
from fineinstructions.forecast import forecast

QUERIES = {"path": str(EXAMPLES / "queries.parquet"), "limit": 3000}


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


@pytest.mark.slow
def test_bytes_of_the_bank_do_not_grow_with_the_documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fineinstructions.forecast.SAMPLE_DOCUMENTS", 16)
    documents = take_documents(tmp_path / "documents.parquet", 96, every=4)
    recipe = write_recipe(tmp_path, documents, queries=QUERIES, engine={"workers": 0})
    found = forecast(str(recipe))
    assert found.sample_documents == 16
    fineinstructions.run(str(recipe), out=tmp_path / "run")
    assert 0.7 < found.bytes_on_disk / size(tmp_path / "run") < 1.4


def test_a_sample_of_bad_rows_falls_back_on_good_ones(tmp_path: Path) -> None:
    good = pq.read_table(take_documents(tmp_path / "documents.parquet", 8, every=16), columns=["text"])[
        "text"
    ].to_pylist()
    texts: list[str | None] = [None] * 4000
    texts[2000 - 8 : 2000] = good
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), tmp_path / "documents.parquet")
    recipe = write_recipe(tmp_path, tmp_path / "documents.parquet", queries=QUERIES, engine={"workers": 0})
    found = forecast(str(recipe))
    assert found.num_documents == 4000
    assert found.sample_documents == 1


@pytest.mark.slow
def test_calls_of_language_models_are_counted_at_their_limit(tmp_path: Path) -> None:
    documents = take_documents(tmp_path / "documents.parquet", 8, every=16)
    recipe = write_recipe(tmp_path, documents, queries=QUERIES, engine={"workers": 0}, llm={"model": "m"})
    asks = ["genericize.model=openai", "instantiate.model=openai", "judge.model=openai"]
    figures = forecast(str(recipe), overrides=[*asks, "llm.prompt_price=2.0"])
    assert [c.cost for c in figures.calls] == [c.prompt_tokens * 2.0 / 1e6 for c in figures.calls]
    told = io.StringIO()
    Console(file=told, width=200).print(forecast_view(figures))
    shown = told.getvalue()
    assert "No model or server was asked." in shown and "cost at the recipe's prices, about" in shown
    assert "\npairs kept" not in shown and f", pairs kept {figures.num_pairs:,}; a language model makes more" in shown
    calls = {c.stage: (c.num_calls, c.is_limit) for c in figures.calls}
    assert calls == {"genericize": (3000, False), "instantiate": (8 * 6, True), "judge": (8 * 6, True)}
    found = forecast(str(recipe), overrides=["judge.model=openai"])  # the embedded tier decides what is judged
    assert [(c.stage, c.is_limit) for c in found.calls] == [("judge", False)]
    assert found.calls[0].num_calls < 8 * 6 and found.calls[0].cost is None
