"""A real Llama with random weights in this process: batches, sampling, log-probabilities, limits, refusals."""

import json
import math
from concurrent.futures import wait
from pathlib import Path

import pytest
from chat_requests import error_of, request
from tiny_llama import CHAT_TEMPLATE, save_llama

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.chat import model_json
from fineinstructions.backends.llm import ChatClient, LlmConfig
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.backends.prompt import Prompt
from fineinstructions.errors import ConfigError

pytestmark = pytest.mark.extra
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from fineinstructions.backends.causal_model import CausalModel, Sampling, load_causal_model  # noqa: E402

TEXTS = ["a", "what is a lake", "where do rivers end and why do they" * 3, "to be or not" * 9]
SAMPLINGS = [
    Sampling(40),
    Sampling(25, temperature=1.0, top_p=0.9, seed=5, logprobs=True),
    Sampling(10, logprobs=True),
    Sampling(60, temperature=0.7, seed=7),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="module")
def model(folder: Path) -> CausalModel:
    return load_causal_model(ModelFolder.of(str(folder), None), "cpu", "float32")


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def settings(folder: Path, **changes: object) -> LlmConfig:
    return LlmConfig(**{"engine": "transformers", "model": str(folder), "max_tokens": 20, **changes})


def test_a_batch_gives_what_each_prompt_gives_alone(model: CausalModel) -> None:
    prompts = [model.prompt_ids(ask(text), {}) for text in TEXTS]
    together = model.generate(prompts, SAMPLINGS, lambda row: False)
    alone = [model.generate([p], [s], lambda row: False)[0] for p, s in zip(prompts, SAMPLINGS, strict=True)]
    assert [made.ids for made in together] == [made.ids for made in alone]
    assert [made.ended or len(made.ids) == s.max_tokens for made, s in zip(together, SAMPLINGS, strict=True)] == [
        True
    ] * 4


def test_the_most_probable_token_is_that_of_the_bare_model(model: CausalModel) -> None:
    prompt = model.prompt_ids(ask("what is a lake"), {})
    (made,) = model.generate([prompt], [Sampling(12)], lambda row: False)
    ids = list(prompt)
    for _ in range(12):
        with torch.inference_mode():
            ids.append(int(model.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    assert made.ids == ids[len(prompt) :]


def test_sampling_follows_the_probabilities(model: CausalModel) -> None:
    prompt = model.prompt_ids(ask("x"), {})
    with torch.inference_mode():
        expected = torch.softmax(model.model(input_ids=torch.tensor([prompt])).logits[0, -1] / 1.5, dim=-1)
    number = 4000
    drawn = [
        made.ids[0]
        for start in range(0, number, 500)
        for made in model.generate(
            [prompt] * 500, [Sampling(1, 1.5, seed=start + n) for n in range(500)], lambda row: False
        )
    ]
    likely = [int(i) for i in expected.argsort(descending=True)[:5]]
    for token in likely:
        share, chance = drawn.count(token) / number, float(expected[token])
        assert abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / number)
    nucleus = model.generate(
        [prompt] * 300, [Sampling(1, 1.5, top_p=0.1, seed=n) for n in range(300)], lambda row: False
    )
    size = int((expected.sort(descending=True).values.cumsum(0) < 0.1).sum()) + 1
    assert {made.ids[0] for made in nucleus} == {int(i) for i in expected.argsort(descending=True)[:size]}


def test_log_probabilities_are_those_of_the_bare_model(model: CausalModel) -> None:
    prompt = model.prompt_ids(ask("what is a lake"), {})
    (made,) = model.generate([prompt], [Sampling(8, logprobs=True)], lambda row: False)
    with torch.inference_mode():
        logits = model.model(input_ids=torch.tensor([prompt + made.ids])).logits[0, len(prompt) - 1 : -1]
    expected = torch.log_softmax(logits, dim=-1)[range(8), made.ids].tolist()
    tokens = model.token_logprobs(made)
    assert [token.logprob for token in tokens] == pytest.approx(expected, abs=1e-4)
    assert "".join(token.token for token in tokens) == model.text(made)
    assert all(token.alternatives[0][1] == token.logprob for token in tokens)  # greedy takes the most probable


def test_a_row_that_nobody_waits_for_ends_at_once(model: CausalModel) -> None:
    prompts = [model.prompt_ids(ask(text), {}) for text in TEXTS[:2]]
    gone, wanted = model.generate(prompts, [Sampling(400), Sampling(30)], lambda row: row == 0)
    assert (len(gone.ids), len(wanted.ids)) == (1, 30)


def test_what_does_not_fit_into_memory_is_halved(model: CausalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [model.prompt_ids(ask(text), {}) for text in TEXTS]
    whole = model.generate(prompts, SAMPLINGS, lambda row: False)
    generate = model.model.generate

    def small(**words: object) -> object:
        if words["input_ids"].shape[0] > 1:  # type: ignore[attr-defined]
            raise torch.OutOfMemoryError("out of memory")
        return generate(**words)

    monkeypatch.setattr(model.model, "generate", small)
    assert [m.ids for m in model.generate(prompts, SAMPLINGS, lambda row: False)] == [m.ids for m in whole]


def test_a_seed_gives_other_replies_and_the_same_ones_again(folder: Path) -> None:
    said = []
    for seed in (1, 2, 1):
        with ChatClient(settings(folder, temperature=1.0, seed=seed)) as client:
            said.append([error_of(client.submit(request(text))).raw for text in TEXTS])
    assert said[0] == said[2] != said[1]


def test_the_context_of_the_model_ends_a_reply(tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "short", context_tokens=64)
    with ChatClient(settings(folder, max_tokens=500)) as client:
        assert client.context_tokens() == 64
        error = error_of(client.submit(request("x" * 30)))
        assert error.kind == "length"
        assert client.usage().completion_tokens == 64 - 32 - 1
        error = error_of(client.submit(request("x" * 62)))
        assert (error.kind, str(error)) == ("too_long", "the prompt has 65 tokens, the context of the model 64")
        assert client.usage().calls == 1


def test_batches_hold_no_more_than_they_may(folder: Path) -> None:
    with ChatClient(settings(folder, max_in_flight=3)) as client:
        wait([client.submit(request(text * n)) for text in TEXTS for n in (1, 2, 3)])
        assert 1 < client.usage().peak_in_flight <= 3
    with ChatClient(settings(folder, batch_tokens=50)) as client:
        wait([client.submit(request(text)) for text in TEXTS])
        assert client.usage().peak_in_flight == 1


def test_another_model_template_or_precision_is_another_cache_entry_and_another_lineage(
    tmp_path: Path, folder: Path
) -> None:
    other = save_llama(tmp_path / "other", seed=1)
    spoken = save_llama(tmp_path / "spoken", chat_template=CHAT_TEMPLATE.replace("<|assistant|>", "Answer:"))
    configs = [settings(folder), settings(other), settings(folder, dtype="bfloat16"), settings(spoken)]
    for number, llm in enumerate(configs):
        with ChatClient(llm, ResponseCache(tmp_path / "cache")) as client:
            error_of(client.submit(request("hello")))
            assert client.usage().cached == 0, number
    lineages = {model_json(llm, Prompt("", "{{input}}")) for llm in configs}
    assert len(lineages) == 4
    assert all(json.loads(lineage)["model"].startswith("folder@") for lineage in lineages)
    moved = tmp_path / "moved"
    folder_copy(folder, moved)
    with ChatClient(settings(moved), ResponseCache(tmp_path / "cache")) as client:
        error_of(client.submit(request("hello")))
        assert client.usage().cached == 1


def test_lineage_names_the_precision_that_a_device_decides(folder: Path) -> None:
    def lineage(**changes: object) -> str:
        return model_json(settings(folder, **changes), Prompt("", "{{input}}"))

    assert lineage(device="cpu") == lineage(device="cpu", dtype="float32") != lineage(device="cuda")
    assert lineage(device="cuda") == lineage(device="cuda:1", dtype="bfloat16")
    assert json.loads(lineage(device="auto"))["dtype"] == "auto"


def folder_copy(source: Path, target: Path) -> None:
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())


def test_values_for_the_chat_template_get_there(tmp_path: Path) -> None:
    template = "{{ messages[0]['content'] }}{% if loud %}!!!!{% endif %}<|assistant|>"
    folder = save_llama(tmp_path / "m", chat_template=template)
    counts = []
    for values in ({}, {"loud": True}):
        with ChatClient(settings(folder, extra_body={"chat_template_kwargs": values})) as client:
            error_of(client.submit(request("hello")))
            counts.append(client.usage().prompt_tokens)
    assert counts == [6, 10]


@pytest.mark.parametrize(
    "trouble", ["template", "weights", "revision", "nowhere", "pickle", "device", "field", "refused"]
)
def test_what_cannot_be_used_is_one_line(tmp_path: Path, folder: Path, trouble: str) -> None:
    changes: dict[str, object] = {}
    place = tmp_path / "m"
    refusing = "{{ raise_exception('no system turn') }}"
    save_llama(place, chat_template={"template": None, "refused": refusing}.get(trouble, "{{ messages }}"))
    if trouble == "weights":
        from safetensors.torch import load_file, save_file

        weights = load_file(place / "model.safetensors")
        del weights["lm_head.weight"]
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    elif trouble == "pickle":
        (place / "model.safetensors").rename(place / "pytorch_model.bin")
    elif trouble == "revision":
        changes = {"model": "some/model"}
    elif trouble == "nowhere":
        changes = {"model": str(tmp_path / "nowhere")}
    elif trouble == "device":
        changes = {"device": "abacus"}
    elif trouble == "field":
        changes = {"extra_body": {"min_p": 0.1}}
    said = {
        "template": "has no chat template", "weights": "has no weights for lm_head", "pickle": "cannot be loaded",
        "revision": "llm.revision: missing", "nowhere": "llm.model: there is no folder", "device": "no device 'abacus'",
        "field": "llm.extra_body: min_p means nothing", "refused": "no system turn",
    }[trouble]  # fmt: skip
    with ChatClient(settings(place, **changes)) as client:
        future = client.submit(request("hello"))
        error = error_of(future) if trouble == "refused" else future.exception(60)
    assert said in str(error)
    assert "\n" not in str(error)
    assert isinstance(error, ConfigError) or trouble == "refused"


def test_a_missing_extra_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fineinstructions.backends.in_process._PACKAGES", ("torch", "no_such_package"))
    with ChatClient(settings(folder)) as client:
        error = client.submit(request("hello")).exception(60)
    assert "needs no_such_package; run pip install 'fineinstructions[hf]'" in str(error)
