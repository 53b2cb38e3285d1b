"""Scores against losses computed by hand, token by token."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llama import save_llama

from fineinstructions.errors import ConfigError
from fineinstructions.scores.checkpoint import Checkpoint
from fineinstructions.scores.config import ScoresConfig
from fineinstructions.scores.forms import FORMS
from fineinstructions.scores.ledger import ANSWER, TEXT, read_ledger
from fineinstructions.scores.score import read_held_out, score
from fineinstructions.scores.windows import windows

ROWS = [
    {"id": f"q{n}", "question": f"What is number {n}?", "answers": [f"It is the number {n}, naïve ☂." * (1 + n % 3)]}
    for n in range(9)
]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(2, 64))
def test_windows_score_every_token_once_with_context(num_tokens: int, first: int, limit: int) -> None:
    found = list(windows(num_tokens, first, limit))
    scored = [place for w in found for place in range(w.first, w.stop)]
    assert scored == list(range(first, num_tokens))
    for w in found:
        assert 0 <= w.start < w.first < w.stop <= num_tokens
        assert w.stop - w.start <= limit
        assert w.first - w.start >= min(first, limit // 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("model"), context_tokens=256)


@pytest.fixture
def config(tmp_path: Path) -> ScoresConfig:
    (tmp_path / "qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "texts.jsonl").write_text(
        "".join(json.dumps({"id": f"t{n}", "text": "Rain falls on stone. " * (1 + 9 * n)}) + "\n" for n in range(3)),
        encoding="utf-8",
    )
    return ScoresConfig.model_validate(
        {
            "questions": [{"name": "qa", "path": str(tmp_path / "qa.jsonl"), "answer_column": "answers"}],
            "texts": [{"name": "raw", "path": str(tmp_path / "texts.jsonl")}],
            "generate": {"items": 3, "max_new_tokens": 5, "batch": 2},
            "device": "cpu",
        }
    )


def by_hand(folder: Path, prompt: str, answer: str) -> float:
    """Loss of an answer, one token after the other, with nothing shared."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True).float().eval()
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    before = [start, *tokenizer.encode(prompt, add_special_tokens=False)]
    total = 0.0
    for token in tokenizer.encode(answer, add_special_tokens=False):
        with torch.no_grad():
            logits = model(torch.tensor([before])).logits[0, -1].double()
        total += float(torch.logsumexp(logits, 0) - logits[token])
        before.append(token)
    return total


@pytest.mark.extra
def test_losses_are_those_computed_by_hand(model: Path, config: ScoresConfig, tmp_path: Path) -> None:
    made = score(model, read_held_out(config), tmp_path / "scores.jsonl")
    _, rows = read_ledger(tmp_path / "scores.jsonl")
    assert made == len(rows) == 9 * len(FORMS) + 3 + 2 * 3
    for row in rows:
        if row.kind == ANSWER and row.item_id in ("q0", "q5"):
            given_answer = str(ROWS[int(row.item_id[1:])]["answers"][0])
            form = FORMS[row.form]
            expected = by_hand(model, form.prompt(f"What is number {row.item_id[1:]}?"), form.gap + given_answer)
            assert row.nats == pytest.approx(expected, rel=1e-4)
            assert row.num_bytes == len(given_answer.encode())
            assert row.num_tokens == len((form.gap + given_answer).encode())  # a byte is a token here
        if row.kind == TEXT and row.item_id == "t0":
            assert row.nats == pytest.approx(by_hand(model, "", "Rain falls on stone."), rel=1e-4)


@pytest.mark.extra
def test_batches_change_nothing_but_rounding(model: Path, config: ScoresConfig, tmp_path: Path) -> None:
    for name, tokens in (("one", 1), ("many", 100_000)):
        score(model, read_held_out(config.model_copy(update={"batch_tokens": tokens})), tmp_path / name)
    one, many = (read_ledger(tmp_path / name)[1] for name in ("one", "many"))
    assert [row.key for row in one] == [row.key for row in many]
    for first, second in zip(one, many, strict=True):
        assert first.nats == pytest.approx(second.nats, rel=1e-4)
        assert first.written == second.written


@pytest.mark.extra
def test_a_killed_scoring_goes_on_behind_the_last_whole_line(model: Path, config: ScoresConfig, tmp_path: Path) -> None:
    held_out = read_held_out(config)
    score(model, held_out, tmp_path / "whole")
    content = (tmp_path / "whole").read_bytes()
    whole = _without_seconds(tmp_path / "whole")
    for length in (0, 1, len(content) // 3, len(content) // 2, len(content) - 1):
        torn = tmp_path / f"torn-{length}"
        torn.write_bytes(content[:length])
        score(model, held_out, torn)
        assert sorted(_without_seconds(torn)) == sorted(whole)
    assert score(model, held_out, tmp_path / "whole") == 0


def _without_seconds(path: Path) -> list[str]:
    found: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [
        json.dumps({k: round(v, 2) if k == "nats" else v for k, v in row.items() if k != "seconds"}) for row in found
    ]


@pytest.mark.extra
def test_scores_of_something_else_are_refused(model: Path, config: ScoresConfig, tmp_path: Path) -> None:
    score(model, read_held_out(config), tmp_path / "scores")
    fewer = config.model_copy(update={"texts": []})
    with pytest.raises(ConfigError, match="other items"):
        score(model, read_held_out(fewer), tmp_path / "scores")
    with pytest.raises(ConfigError, match="no model here"):
        score(tmp_path, read_held_out(config), tmp_path / "x")


@pytest.mark.extra
def test_written_answers_end_where_the_model_ends_them(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "m", context_tokens=128)
    checkpoint = Checkpoint(folder, None, 1000, "cpu")
    prompts = [FORMS["pair"].prompt("Why is it?"), FORMS["lines"].prompt("x" * 500), "a"]
    together = checkpoint.answers(prompts, 7)
    alone = [checkpoint.answers([prompt], 7)[0] for prompt in prompts]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert all(reply.num_tokens <= 7 and reply.seconds > 0 for reply in together)
    assert math.isclose(sum(r.seconds for r in together), 3 * together[0].seconds)


def test_sets_are_chosen_by_id_and_bad_ones_told(tmp_path: Path) -> None:
    path = tmp_path / "qa.jsonl"
    lines = [json.dumps({**row, "split": "val" if n % 2 else "train"}) + "\n" for n, row in enumerate(ROWS)]
    path.write_text("".join(lines), encoding="utf-8")
    plain: dict[str, Any] = {"name": "qa", "path": str(path), "answer_column": "answers", "where": {"split": "val"}}

    def ids(**changes: Any) -> list[str]:
        config = ScoresConfig.model_validate({"questions": [plain | changes]})
        return [item.item_id for item in read_held_out(config).questions["qa"]]

    assert sorted(ids()) == ["q1", "q3", "q5", "q7"]
    assert ids(max_items=2) == ids()[:2]
    path.write_text("".join(reversed(lines)), encoding="utf-8")
    assert ids(max_items=2) == ids()[:2]
    assert ids(where={}, max_items=9) != sorted(ids(where={}))
    for changes, told in (
        ({"answer_column": "reply"}, "answer_column of qa"),
        ({"where": {"part": 1}}, "where of qa"),
        ({"where": {"split": "test"}}, "no row left"),
        ({"id_column": "key"}, "id_column"),
        ({"question_column": "asked"}, "asked"),
    ):
        with pytest.raises(ConfigError, match=told):
            ids(**changes)
    path.write_text(lines[0] * 2, encoding="utf-8")
    with pytest.raises(ConfigError, match="not unique"):
        ids(where={})
