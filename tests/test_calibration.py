"""Calibrating from files and runs, through the command line, and what is stored where."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import in_process, take_documents, write_recipe

from fineinstructions.backends.model_folder import CALIBRATION_FILE, ModelFolder
from fineinstructions.calibration import labelled_in_file, store
from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.errors import ConfigError
from fineinstructions.records import Template
from fineinstructions.templates.index import IndexConfig, build_index, open_index, store_min_cosine

GOOD = {
    "a document about penguins": "Penguins are birds of the Antarctic. Penguins cannot fly.",
    "a document about volcanoes": "A volcano erupts when magma rises. Volcanoes are mountains.",
    "a document about bread": "Bread is baked from flour, water and yeast. Baking bread takes an hour.",
}


def labelled() -> list[dict[str, object]]:
    return [
        {"description": description, "document": document, "label": int(GOOD[description] == document)}
        for description in GOOD
        for document in GOOD.values()
    ]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in labelled()), encoding="utf-8")
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    templates = [Template(f"t-{i}", "What is <fi>it</fi>?", text, 1, ("q",)) for i, text in enumerate(GOOD)]
    build_index(templates, EmbeddedEncoder(), IndexConfig(), tmp_path / "made" / "index")
    return tmp_path / "made" / "index"


def test_pairs_of_a_file_give_a_threshold(pairs: Path) -> None:
    code, out, errors = in_process("index", "calibrate", pairs, "--json")
    assert code == 0, errors
    facts = json.loads(out)
    assert (facts["num_good"], facts["num_bad"], facts["stored"]) == (3, 6, "")
    assert facts["chosen"]["f1"] == 1.0
    assert facts["encoder_id"] == EmbeddedEncoder().encoder_id
    code, out, _ = in_process("index", "calibrate", pairs, "--min-precision", "0.9")
    assert code == 0
    assert "lowest threshold with a precision of at least 0.9" in out
    assert "3 good and 6 bad pairs" in out


def test_parquet_with_columns_of_other_names(tmp_path: Path) -> None:
    rows = [{"about": r["description"], "body": r["document"], "fits": bool(r["label"])} for r in labelled()]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    words = ["--description-column", "about", "--document-column", "body", "--label-column", "fits", "--json"]
    code, out, errors = in_process("index", "calibrate", tmp_path / "pairs.parquet", *words)
    assert code == 0, errors
    assert json.loads(out)["num_good"] == 3


def test_labels_are_words_or_numbers(tmp_path: Path) -> None:
    labels = {"1": True, "0": False, "true": True, "False": False, " TRUE ": True}
    path = tmp_path / "pairs.csv"
    path.write_text("description,document,label\n" + "".join(f"a,b,{label}\n" for label in labels), encoding="utf-8")
    assert [pair.is_good for pair in labelled_in_file(str(path))] == list(labels.values())
    path.write_text("description,document,label\na,b,yes\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="label is 'yes' instead of 0 or 1, true or false"):
        list(labelled_in_file(str(path)))
    plain = [1, 0, True, False, 1.0]
    path = tmp_path / "pairs.jsonl"
    rows = [{"description": "a", "document": "b", "label": label} for label in plain]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert [pair.is_good for pair in labelled_in_file(str(path))] == list(map(bool, plain))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"description": "x", "document": "a b", "label": 2}], "label is 2 instead of 0 or 1"),
        ([{"what": "x", "document": "a b", "label": 1}], "no text in description or template_description"),
        ([{"description": "x", "document": "a b", "label": 1}], "needs both good and bad ones"),
    ],
)
def test_wrong_pairs_are_told_in_one_line(tmp_path: Path, rows: list[dict[str, object]], words: str) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    code, _, errors = in_process("index", "calibrate", path)
    assert code == 2
    assert words in errors
    assert errors.count("\n") == 1


def test_a_threshold_is_stored_with_an_index(pairs: Path, index: Path) -> None:
    before = open_index(index).min_cosine
    code, out, errors = in_process("index", "calibrate", pairs, "--write", index, "--json")
    assert code == 0, errors
    opened = open_index(index, EmbeddedEncoder(), verify=True)
    assert opened.min_cosine == json.loads(out)["chosen"]["min_cosine"] != before
    assert [t.compatible_document_description for t in opened.templates()] == list(GOOD)
    store_min_cosine(index, before)
    assert open_index(index).min_cosine == before
    with pytest.raises(ConfigError, match="there is no index here"):
        store_min_cosine(index.parent, 0.5)


def test_a_threshold_is_stored_beside_a_model(tmp_path: Path, pairs: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    assert "neither a template index nor a model" in in_process("index", "calibrate", pairs, "--write", model)[2]
    (model / "config.json").write_text("{}", encoding="utf-8")
    (model / CALIBRATION_FILE).write_text('{"note": "mine"}', encoding="utf-8")
    encoder_id = f"{ModelFolder(str(model)).identity} float32 window=own with-specials mean"
    assert store(model, 0.75, encoder_id) == model / CALIBRATION_FILE
    known = json.loads((model / CALIBRATION_FILE).read_text(encoding="utf-8"))
    assert known == {"note": "mine", "min_cosine": 0.75}
    known_model = ModelFolder(str(model))
    assert known_model.min_cosine == 0.75
    assert known_model.store_min_cosine(0.5) == model / CALIBRATION_FILE
    assert known_model.min_cosine == ModelFolder(str(model)).min_cosine == 0.5
    for damaged in ("{", "[]"):
        (model / CALIBRATION_FILE).write_text(damaged, encoding="utf-8")
        with pytest.raises(ConfigError, match=CALIBRATION_FILE) as caught:
            store(model, 0.5, encoder_id)
        assert "\n" not in str(caught.value)


def test_a_threshold_is_not_stored_beside_another_model(tmp_path: Path, pairs: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}", encoding="utf-8")
    code, _, errors = in_process("index", "calibrate", pairs, "--write", model)
    assert (code, errors.count("\n")) == (2, 1)
    assert "calibrated was the encoder 'embedded-static-" in errors
    assert not (model / CALIBRATION_FILE).exists()


@pytest.mark.slow
def test_judged_pairs_of_a_run_are_labels(tmp_path: Path, bank: Path) -> None:
    recipe = write_recipe(
        tmp_path,
        take_documents(tmp_path / "documents.parquet", 24, every=16),
        queries=None,
        templates={"bank": str(bank)},
        engine={"workers": 0},
    )
    assert in_process("run", recipe, "--out", tmp_path / "run")[0] == 0
    code, out, errors = in_process("index", "calibrate", "--run", tmp_path / "run", "--min-score", "5", "--json")
    if code:  # every pair has one label: told, not guessed
        assert "needs both good and bad ones" in errors
    else:
        assert json.loads(out)["num_good"] > 0
    (unit,) = (tmp_path / "run" / "units" / "index").glob("*/index")
    code, _, errors = in_process("index", "calibrate", "--run", tmp_path / "run", "--write", unit)
    assert code == 2
    assert "belongs to a run" in errors
    assert in_process("index", "calibrate")[0] == 2
    assert in_process("verify", tmp_path / "run")[0] == 0
