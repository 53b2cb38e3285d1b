"""Probabilities of given continuations, against the bare model asked token by token; and a template that is given."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from tiny_llama import save_gpt2, save_llama  # noqa: E402

from fineinstructions.backends.causal_model import CausalModel, load_causal_model  # noqa: E402
from fineinstructions.backends.chat import ChatRequest  # noqa: E402
from fineinstructions.backends.continuations import continuation_logprobs  # noqa: E402
from fineinstructions.backends.llm import ChatClient, LlmConfig  # noqa: E402
from fineinstructions.backends.model_folder import ModelFolder  # noqa: E402
from fineinstructions.evaluation_recipe import INSTRUCTION_TEMPLATE, model_under_test, prompt_format  # noqa: E402

pytestmark = pytest.mark.extra


def load(folder: Path) -> CausalModel:
    return load_causal_model(ModelFolder.of(str(folder), None), "cpu", "float32")


def one_by_one(model: CausalModel, prompt: list[int], continuation: list[int]) -> float:
    """The bare model, asked for each token after all that came before it, without padding."""
    total, ids = 0.0, list(prompt)
    for token in continuation:
        with torch.inference_mode():
            logits = model.model(input_ids=torch.tensor([ids])).logits[0, -1]
        total += float(torch.log_softmax(logits.float(), dim=-1)[token])
        ids.append(token)
    return total


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_the_sum_is_that_of_the_bare_model(kind: str, tmp_path: Path) -> None:
    folder = save_llama(tmp_path) if kind == "llama" else save_gpt2(tmp_path, context_tokens=64)
    model = load(folder)
    prompt = model.prompt_ids([{"role": "user", "content": "Which is a bird?"}], {})
    parts = [model.text_ids(text) for text in ("A", "heron", "an otter by the lake", "é")]
    assert continuation_logprobs(model, prompt, parts) == pytest.approx(
        [one_by_one(model, prompt, part) for part in parts], abs=1e-4
    )
    assert continuation_logprobs(model, prompt, parts[:1]) == pytest.approx(
        [one_by_one(model, prompt, parts[0])], abs=1e-4
    )


def test_letters_of_all_options_have_at_most_all_of_the_probability(tmp_path: Path) -> None:
    model = load(save_llama(tmp_path))
    prompt = model.prompt_ids([{"role": "user", "content": "x"}], {})
    values = continuation_logprobs(model, prompt, [[token] for token in range(len(model.tokenizer))])
    assert float(torch.tensor(values).exp().sum()) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="at least one token"):
        continuation_logprobs(model, prompt, [[]])


def test_a_checkpoint_without_a_template_is_asked_in_the_form_of_the_training_text(tmp_path: Path) -> None:
    bare, chat = save_llama(tmp_path / "bare", chat_template=None), save_llama(tmp_path / "chat")
    section: dict[str, Any] = {"engine": "transformers", "model": str(bare)}
    llm = LlmConfig(**section)
    assert prompt_format(llm, "auto") == "instruction"
    assert prompt_format(LlmConfig(engine="transformers", model=str(chat)), "auto") == "chat"
    model = load(bare)
    turns = [("user", "One?"), ("assistant", "Yes."), ("user", "Two?")]
    ids = model.prompt_ids([{"role": r, "content": c} for r, c in turns], {"chat_template": INSTRUCTION_TEMPLATE})
    assert model.tokenizer.decode(ids) == "Instruction: One?\n\nAnswer: Yes.\n\nInstruction: Two?\n\nAnswer:"
    with ChatClient(model_under_test(llm, "auto", 5)) as client:
        reply = client.submit(ChatRequest((("user", "hello"),), may_be_cut=True)).result(60)
        assert (reply.finish_reason, reply.completion_tokens) == ("length", 5)
        error = client.submit(ChatRequest((("user", "hello"),))).exception(60)
    assert "cut off at 5 tokens" in str(error)


def test_a_checkpoint_of_our_own_is_asked_by_the_ids_that_it_was_trained_on(tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from fineinstructions.backends.tokenizer import open_tokenizer
    from fineinstructions.training.saved_tokenizer import as_transformers

    trained = open_tokenizer("bytes")
    saved = as_transformers("bytes", trained.facts)
    sizes = {"vocab_size": 258, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": trained.facts.bos_id, "eos_token_id": trained.facts.eos_id}
    LlamaForCausalLM(LlamaConfig(**sizes, **ends, intermediate_size=32)).save_pretrained(tmp_path)
    saved.save_pretrained(tmp_path)
    assert prompt_format(LlmConfig(engine="transformers", model=str(tmp_path)), "auto") == "instruction"
    ids = load(tmp_path).prompt_ids([{"role": "user", "content": "Why?"}], {"chat_template": INSTRUCTION_TEMPLATE})
    assert ids == [trained.facts.bos_id, *b"Instruction: Why?\n\nAnswer:"]
