"""Supervised fine-tuning on a tiny real Llama: tokens, packs, LoRA, and what a reloaded student says."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from tiny_llama import CHAT_TEMPLATE, save_llama

from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.errors import ConfigError
from fineinstructions.progress import SILENT
from fineinstructions.records import Rejection

pytestmark = pytest.mark.extra
torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from transformers import Lfm2Config, Lfm2ForCausalLM  # noqa: E402
from trl import SFTTrainer  # noqa: E402

from fineinstructions.backends.causal_model import CausalModel, Sampling, load_causal_model  # noqa: E402
from fineinstructions.training.sft import (  # noqa: E402
    Conversation,
    LoraConfig,
    SftConfig,
    Tokens,
    load_student,
    make_trainer,
    tokenised,
    train_round,
    with_chat_template,
)

ROWS = [Conversation(f"r{n}", (("user", f"What is {n}?" * (1 + n % 3)),), f"It is {n}.") for n in range(10)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture
def model(folder: Path) -> CausalModel:
    return load_student(ModelFolder(str(folder)), 256)


def tokens_of(model: CausalModel, rows: Sequence[Conversation] = ROWS, max_length: int = 256) -> list[Tokens]:
    found = [item for item in tokenised(model, rows, max_length) if not isinstance(item, Rejection)]
    return [tokens for _, tokens in found]


def settings(folder: Path, **changes: object) -> SftConfig:
    return SftConfig(**{"data": "", "model": str(folder), "max_length": 128, "sequences_per_step": 2, **changes})


def test_a_prompt_has_the_tokens_with_which_a_student_is_asked(model: CausalModel) -> None:
    for row, tokens in zip(ROWS, tokens_of(model), strict=True):
        messages = [{"role": role, "content": content} for role, content in row.prompt]
        assert tokens.prompt == model.prompt_ids(messages, {})
        assert tokens.reply[-1] in model.ends
        assert model.tokenizer.decode(tokens.reply[:-1]) == row.reply


def test_a_row_that_is_too_long_is_set_aside_with_its_length(model: CausalModel) -> None:
    whole = [len(tokens) for tokens in tokens_of(model)]
    limit = sorted(whole)[5]
    found = list(tokenised(model, ROWS, limit))
    aside = [(item.record_id, item.reason, item.value) for item in found if isinstance(item, Rejection)]
    assert aside == [(f"r{n}", "too_long", float(length)) for n, length in enumerate(whole) if length > limit]
    assert len(found) == len(ROWS)


def test_the_date_is_the_same_every_day(tmp_path: Path) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}" + CHAT_TEMPLATE
    model = load_student(ModelFolder(str(save_llama(tmp_path / "dated", chat_template=dated))), 256)
    text = model.tokenizer.decode(model.prompt_ids([{"role": "user", "content": "q"}], {}))
    assert text == "26 Jul 2024<|user|>q<|end|><|assistant|>"


def test_packs_hold_every_token_and_no_row_of_a_pack_sees_another(model: CausalModel, tmp_path: Path) -> None:
    rows = tokens_of(model)
    trainer = make_trainer("round", rows, (), model, settings(tmp_path), tmp_path, SILENT)
    packs = trainer.train_dataset
    assert sum(map(len, packs["input_ids"])) == sum(map(len, rows))
    assert sum(map(len, packs["seq_lengths"])) == len(rows) > len(packs)
    given = {tuple(row.prompt + row.reply): row for row in rows}
    for pack in packs:
        batch = trainer.data_collator([pack])
        with torch.inference_mode():
            together = model.model(**batch).logits[0]
        start = 0
        for length in pack["seq_lengths"]:
            ids, labels = (pack[name][start : start + length] for name in ("input_ids", "labels"))
            row = given[tuple(ids)]
            assert labels == [-100] * len(row.prompt) + row.reply
            with torch.inference_mode():
                alone = model.model(input_ids=torch.tensor([ids])).logits[0]
            assert torch.allclose(together[start : start + length], alone, atol=1e-4)
            start += length


@pytest.mark.parametrize("packing", [True, False])
def test_a_processor_has_the_loss_and_gradients_of_trl(model: CausalModel, tmp_path: Path, packing: bool) -> None:
    chosen = settings(tmp_path, packing=packing, micro_batch=2, device="cpu")
    trainer = make_trainer("round", tokens_of(model), (), model, chosen, tmp_path, SILENT)
    batch = next(iter(trainer.get_train_dataloader()))
    weights = [weight for weight in model.model.parameters() if weight.requires_grad]
    found = []
    for compute_loss in (trainer.compute_loss, partial(SFTTrainer.compute_loss, trainer)):
        loss = compute_loss(trainer.model, dict(batch), num_items_in_batch=torch.tensor(50))
        found.append((loss, torch.autograd.grad(loss, weights)))
    (ours, our_gradients), (theirs, their_gradients) = found
    assert type(trainer) is not SFTTrainer
    assert torch.isclose(ours, theirs, rtol=1e-5)
    for own, other in zip(our_gradients, their_gradients, strict=True):
        assert torch.allclose(own, other, rtol=1e-3, atol=1e-6)


def test_rows_are_not_packed_where_more_than_attention_looks_back(model: CausalModel, tmp_path: Path) -> None:
    shape = Lfm2Config(
        vocab_size=len(model.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention"],
    )
    convolving = replace(model, model=Lfm2ForCausalLM(shape))
    rows = tokens_of(model)
    with pytest.raises(ConfigError, match=r"packing: .* in a lfm2, .* set packing: false"):
        make_trainer("round", rows, (), convolving, settings(tmp_path), tmp_path, SILENT)
    alone = make_trainer("round", rows, (), convolving, settings(tmp_path, packing=False), tmp_path, SILENT)
    assert len(alone.train_dataset) == len(rows)


@pytest.mark.parametrize("lora", [None, LoraConfig(rank=4, alpha=8)], ids=["full", "lora"])
def test_a_saved_student_says_what_the_trained_one_says(
    folder: Path, model: CausalModel, tmp_path: Path, lora: LoraConfig | None
) -> None:
    rows = tokens_of(model)
    config = settings(folder, epochs=4, lr=5e-3, lora=lora, eval_rows=0)
    figures = train_round("round", rows, rows[:2], model, config, tmp_path, SILENT)
    assert figures.last_loss < figures.first_loss
    assert figures.held_out_after is not None and figures.held_out_before is not None
    assert figures.held_out_after < figures.held_out_before - 0.5
    assert not list((tmp_path / "model").glob("adapter*"))
    again = load_causal_model(ModelFolder(str(tmp_path / "model")), "cpu", "float32")
    assert again.ends == model.ends
    prompts = [row.prompt for row in rows[:3]]
    asked = ([Sampling(20)] * 3, lambda row: False)
    base = load_causal_model(ModelFolder(str(folder)), "cpu", "float32")
    said = [made.ids for made in again.generate(prompts, *asked)]
    assert said != [made.ids for made in base.generate(prompts, *asked)]
    if lora is None:
        assert said == [made.ids for made in model.generate(prompts, *asked)]


def test_a_model_that_reads_less_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_length: 5000, but .* reads at most 4096 tokens"):
        load_student(ModelFolder(str(folder), section="recipe"), 5000)


def test_a_base_model_is_given_a_chat_template_which_the_student_keeps(tmp_path: Path) -> None:
    base = ModelFolder(str(save_llama(tmp_path / "base", chat_template=None)), section="recipe")
    with pytest.raises(ConfigError, match=r"recipe\.model: .* has no chat template.* chat_template: FILE"):
        load_student(base, 256)
    given = "{% for turn in messages %}{{ turn['content'] }}<|end|>{% endfor %}"
    model = load_student(base, 256, given)
    assert model.tokenizer.decode(model.prompt_ids([{"role": "user", "content": "q"}], {})) == "q<|end|>"
    train_round("round", tokens_of(model), (), model, settings(tmp_path, epochs=1), tmp_path, SILENT)
    student = ModelFolder(str(tmp_path / "model"))
    assert load_student(student, 256).tokenizer.chat_template == given
    with pytest.raises(ConfigError, match=r"chat_template: .* has one of its own"):
        load_student(student, 256, "{{ messages[0]['content'] }}")


def test_a_chat_template_is_read_once_and_its_text_is_the_setting(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    given = settings(folder, chat_template=str(file))
    with pytest.raises(ConfigError, match=r"chat_template: .*chat\.jinja: cannot be read"):
        with_chat_template(given)
    file.write_text("\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"chat_template: .*chat\.jinja: is empty"):
        with_chat_template(given)
    file.write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    assert with_chat_template(given) == settings(folder, chat_template="{{ messages[0]['content'] }}")
    assert with_chat_template(settings(folder)) == settings(folder)
