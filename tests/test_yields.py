"""What a run yields by slots, length and model, and a bank without the templates that never work: over real HTTP."""

import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import in_process, rows, take_documents
from rich.console import Console

from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import ScriptedServer
from fineinstructions.cli.yields_view import yields_table
from fineinstructions.errors import ConfigError
from fineinstructions.outcomes import PRUNED_FILE, attempts_of, prune
from fineinstructions.records import Template
from fineinstructions.review.yields import (
    Attempt,
    Figures,
    ModelNames,
    by_template,
    length_class,
    never_working,
    parse_by,
    slot_class,
    tabulate,
)
from fineinstructions.rows import instantiate_rows
from fineinstructions.runs import read_table

RECIPE = Path(__file__).parent.parent / "recipes" / "experiments" / "template-sizes.yaml"
SUBJECTS = (
    "rivers",
    "cells",
    "kings",
    "engines",
    "taxes",
    "recipes",
    "stars",
    "songs",
    "plants",
    "laws",
    "wars",
    "soil",
)
NEVER = "Write a sonnet on <fi>a subject</fi>."
"""A template that no model here can fill."""

pytestmark = pytest.mark.xdist_group("yields")


def template_of(num_slots: int) -> str:
    return "Tell me of " + ", ".join(f"<fi>thing {n}</fi>" for n in range(num_slots)) + "."


def make_bank(path: Path) -> Path:
    """Templates of 1 to 12 slots, each with two descriptions, and one that never works."""
    templates = [(template_of(n), f"A text about {SUBJECTS[(n + k) % 12]}.") for n in range(1, 13) for k in (0, 6)]
    templates.append((NEVER, "A text about people and places."))
    ids = [f"t{number}" for number in range(len(templates))]
    texts, descriptions = zip(*templates, strict=True)
    pq.write_table(pa.table({"id": ids, "template": texts, "description": descriptions}), path)
    return path


def sized(body: Mapping[str, Any]) -> str:
    """The small model misquotes with four slots or more and refuses ten; nobody writes sonnets."""
    reply = str(echo(body))
    said = str(body["messages"][:2][-1]["content"])
    if '"instruction_template"' not in said or reply == "null":
        return reply
    template = json.loads(said)["instruction_template"]
    num_slots = len(re.findall("<fi>", template))
    if template == NEVER or (body["model"] == "small" and num_slots >= 10):
        return "null"
    if body["model"] == "small" and num_slots >= 4 and len(body["messages"]) == 2:
        return reply.replace("<excerpt>", "<excerpt>Nowhere in the text, ")
    return reply


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """The recipe that compares sizes, as its comment says, on a few documents; and once more with repairs."""
    folder = tmp_path_factory.mktemp("sizes")
    documents, bank = take_documents(folder / "documents.parquet", 16, every=24), make_bank(folder / "bank.parquet")
    found = {}
    with ScriptedServer(sized) as server:
        sets = [f"llm.base_url={server.base_url}", "llm.model=judge", "retrieve.min_cosine=-1", "engine.workers=0"]
        sets += [f"documents.path={documents}", f"templates.bank={bank}", "judge.min_score=2", "llm.structured=none"]
        for name, more in (("small", []), ("large", []), ("mended", ["instantiate.max_repairs=1"])):
            model = "small" if name == "mended" else name
            words = [w for s in [*sets, *more, f"instantiate.llm.model={model}"] for w in ("--set", s)]
            code, _, errors = in_process("run", RECIPE, "--out", folder / name, *words)
            assert code == 0, errors
            found[name] = folder / name
    yield found


def as_json(*words: str | Path) -> Any:
    code, out, errors = in_process(*words, "--json")
    assert code == 0, errors
    return json.loads(out)


@pytest.mark.slow
def test_sizes_differ_by_slots_on_the_same_rows(runs: dict[str, Path]) -> None:
    tables = as_json("yields", runs["small"], runs["large"], "--by", "slots,length,model+slots,judge")
    by_both = {(row["model"], row["slots"]): row for row in tables["model+slots"]}
    assert list(by_both) == [(m, s) for m in ("large", "small") for s in ("1-3", "4-9", "10+")]
    for slots in ("1-3", "4-9", "10+"):
        assert by_both["small", slots]["tries"] == by_both["large", slots]["tries"] > 0
        assert by_both["large", slots]["yield"] > 0.5
    assert by_both["small", "1-3"]["kept"] == by_both["large", "1-3"]["kept"]
    assert by_both["small", "4-9"]["reasons"].keys() >= {"excerpts: excerpt_not_found"}
    assert by_both["small", "4-9"]["kept"] == by_both["small", "10+"]["kept"] == 0
    assert by_both["small", "10+"]["reasons"].keys() == {"instantiate: refused"}
    for row in tables["slots"]:
        assert row["excerpt_ratio"] > 0.8
        assert 2 <= row["judge_score"] <= 5
        assert row["generated_tokens_per_answer_token"] > 0
    assert [row["judge"] for row in tables["judge"]] == ["judge"]
    total = {name: sum(row["tries"] for row in table) for name, table in tables.items()}
    assert len(set(total.values())) == 1


@pytest.mark.slow
def test_every_match_is_an_attempt(runs: dict[str, Path]) -> None:
    attempts = list(attempts_of([runs["small"]]))
    sampled = [row for row in rows(runs["small"], "matches") if row["sampled"]]
    assert Counter(a.template_id for a in attempts) == Counter(row["template_id"] for row in sampled)
    reasons = Counter(a.reason for a in attempts if a.reason)
    rejected = Counter(f"{r['stage']}: {r['reason']}" for r in rows(runs["small"], "rejected"))
    assert reasons.items() <= rejected.items()
    assert len(rows(runs["small"], "pairs")) == sum(not a.reason for a in attempts)


@pytest.mark.slow
def test_a_table_for_people(runs: dict[str, Path]) -> None:
    code, out, _ = in_process("yields", runs["small"], "--by", "model,slots")
    assert code == 0
    assert "quoted" in out
    assert "small" in out
    code, _, errors = in_process("yields", runs["small"], "--by", "size")
    assert code == 2
    assert "unknown key 'size'" in errors
    assert in_process("yields", runs["small"] / "nowhere")[0] == 2
    assert in_process("yields", runs["small"].parent / "bank.parquet")[0] == 2


@pytest.mark.slow
def test_status_tells_generated_tokens(runs: dict[str, Path]) -> None:
    funnel = {row["stage"]: row for row in as_json("status", runs["large"])["funnel"]}
    assert re.search(r"drafts, \d+\.\d\d generated tokens per answer token", funnel["excerpts"]["unit"])


@pytest.mark.slow
def test_a_repair_round_mends_misquotes_and_costs_tokens(runs: dict[str, Path]) -> None:
    (plain,) = as_json("yields", runs["small"], "--by", "model")["model"]
    (mended,) = as_json("yields", runs["mended"], "--by", "model")["model"]
    assert plain["tries"] == mended["tries"]
    assert mended["kept"] > plain["kept"]
    assert "excerpts: excerpt_not_found" not in mended["reasons"]
    assert mended["generated_tokens_per_answer_token"] > plain["generated_tokens_per_answer_token"]


@pytest.mark.slow
def test_a_pruned_bank_works_and_tells_what_is_gone(runs: dict[str, Path], tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    told = as_json("templates", "prune", runs["small"], runs["large"], "--out", bank, "--min-tries", "3")
    gone = {row["template"]: row for row in told["pruned"]}
    assert NEVER in gone
    assert gone[NEVER]["reasons"].keys() == {"instantiate: refused"}
    kept = list(read_table(bank / "templates" / "part-00000.parquet", Template))
    assert told["templates"] == len(kept) + len(gone) == 25
    assert NEVER not in {template.template for template in kept}
    stored = pq.read_table(bank / PRUNED_FILE).to_pylist()
    assert [(row["num_tries"], row["num_kept"]) for row in stored] == [
        (row["num_tries"], row["num_kept"]) for row in told["pruned"]
    ]
    assert all(row["num_kept"] == 0 < 3 <= row["num_tries"] for row in stored)
    documents = runs["small"].parent / "documents.parquet"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"documents: {{path: {documents}, limit: 3}}\ntemplates: {{bank: {bank}}}\n", encoding="utf-8")
    code, _, errors = in_process("run", recipe, "--out", tmp_path / "run", "--workers", "0")
    assert code == 0, errors
    assert len(rows(tmp_path / "run", "templates")) == len(kept)
    code, _, errors = in_process("templates", "prune", runs["small"], "--out", bank)
    assert code == 2
    assert "exists already" in errors


@pytest.mark.slow
def test_a_share_can_be_asked_for(runs: dict[str, Path], tmp_path: Path) -> None:
    everything = prune([runs["small"]], tmp_path / "bank", min_tries=1, max_yield=1.0)
    assert len(everything.pruned) == everything.num_tried
    assert pq.read_table(tmp_path / "bank" / PRUNED_FILE).num_rows == len(everything.pruned)
    other = tmp_path / "other [/b] :smile:"
    code, out, _ = in_process("templates", "prune", runs["large"], "--out", other, "--min-tries", "2")
    assert f"templates.bank={other}\n" in out
    assert code == 0
    assert "taken out" in out
    with pytest.raises(ConfigError, match="no run here"):
        prune([tmp_path], tmp_path / "third")


def test_outputs_of_rows_are_told_apart_by_model(tmp_path: Path) -> None:
    texts = pq.read_table(take_documents(tmp_path / "d.parquet", 6, every=60))["text"].to_pylist()
    given = [{"id": str(n), "document": t, "template": template_of(1 + 3 * n)} for n, t in enumerate(texts)]
    pq.write_table(pa.Table.from_pylist(given), tmp_path / "rows.parquet")
    with ScriptedServer(sized) as server:
        for model in ("small", "large"):
            llm = {"base_url": server.base_url, "model": model, "structured": "none"}
            recipe = {"instantiate": {"model": "openai"}, "llm": llm, "engine": {"workers": 0}}
            instantiate_rows(tmp_path / "rows.parquet", tmp_path / f"{model}.parquet", recipe)
    found = as_json("yields", tmp_path / "small.parquet", tmp_path / "large.parquet", "--by", "model+slots")
    tries = {(row["model"], row["slots"]): (row["tries"], row["kept"]) for row in found["model+slots"]}
    assert {key: number for key, (number, _) in tries.items()} == {
        (model, slots): n for model in ("large", "small") for slots, n in (("1-3", 1), ("4-9", 2), ("10+", 3))
    }
    assert tries["small", "4-9"][1] == tries["small", "10+"][1] == 0


def attempt(**values: Any) -> Attempt:
    names = ModelNames("g", values.pop("model", "m"), "j")
    return Attempt(**{"template_id": "t", "num_slots": 1, "document_chars": 100, "models": names, **values})


def test_eighty_columns_break_no_word() -> None:
    model, reason = "acme/a-model-with-quite-a-long-name@0123456789abcdef0123", "unparseable_verdict_of_the_judge"
    row: dict[str, Any] = {"model": model, "slots": "3", "tries": 1_234_567, "kept": 123_456, "yield": 0.1}
    row |= {"excerpt_ratio": 0.8, "judge_score": 4.1, "generated_tokens_per_answer_token": 0.4, "failed": 3}
    row["reasons"] = {"instantiate: refused": 100, f"judge: {reason}": 20, "excerpts: low_ratio": 2}
    out = io.StringIO()
    Console(file=out, width=80).print(yields_table(("model", "slots"), [row]))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    words = {word.strip(",:") for line in lines for word in line.split()}
    assert {"1,234,567", "123,456", "10.0%", "generated", model, "refused", reason, "low_ratio", "3"} <= words


def test_figures_add_up() -> None:
    figures = Figures()
    for made in (
        attempt(excerpt_ratio=1.0, judge_score=5, generated_tokens=30, answer_tokens=100),
        attempt(excerpt_ratio=0.5, reason="excerpts: low_excerpt_ratio", generated_tokens=70, answer_tokens=100),
        attempt(reason="instantiate: refused", generated_tokens=1000),
        attempt(reason="judge: transport", failed=True),
    ):
        figures.add(made)
    assert (figures.num_tries, figures.num_kept, figures.num_failed) == (3, 1, 1)
    assert (figures.excerpt_ratio, figures.judge_score, figures.generated_tokens_ratio) == (0.75, 5.0, 0.5)
    empty = Figures()
    assert (empty.kept_share, empty.excerpt_ratio, empty.judge_score) == (0.0, None, None)


def test_groups_are_in_order() -> None:
    attempts = [attempt(num_slots=n, model=m) for n in (12, 2, 5) for m in ("b", "a")]
    (found,) = tabulate(attempts, parse_by("model+slots"))
    assert list(found) == [(m, s) for m in ("a", "b") for s in ("1-3", "4-9", "10+")]


def test_what_never_works_was_tried_often_enough() -> None:
    attempts = [attempt(template_id=t, reason="x: y" if bad else "") for t, bad in [("a", 1)] * 3 + [("b", 1)] * 2]
    attempts += [attempt(template_id="c", reason="x: y" if n else "") for n in range(10)]
    figures = by_template(attempts)
    assert list(never_working(figures, 3, 0.0)) == ["a"]
    assert list(never_working(figures, 2, 0.1)) == ["c", "a", "b"]


@pytest.mark.parametrize(("slots", "name"), [(0, "1-3"), (3, "1-3"), (4, "4-9"), (9, "4-9"), (10, "10+"), (99, "10+")])
def test_slot_classes(slots: int, name: str) -> None:
    assert slot_class(slots) == name


def test_length_classes() -> None:
    assert [length_class(n) for n in (0, 1999, 2000, 7999, 8000, 23_999, 24_000)] == [
        *("under 2,000", "under 2,000", "2,000-7,999", "2,000-7,999", "8,000-23,999", "8,000-23,999", "24,000+"),
    ]
