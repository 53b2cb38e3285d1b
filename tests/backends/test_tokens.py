"""How many tokens a text has: by estimate, by bytes, and by a model's own tokenizer."""

import sys
from pathlib import Path

import pytest

from fineinstructions.backends.tokens import estimated_tokens, most_tokens, token_counter
from fineinstructions.errors import ConfigError


def test_english_has_more_tokens_than_words_and_fewer_than_the_bytes_allow() -> None:
    text = "The river rises in the mountains, flows through the capital and reaches the sea after 288 kilometres."
    assert 1.2 < estimated_tokens(text) / len(text.split()) < 1.6
    assert estimated_tokens(text) < most_tokens(text)


@pytest.mark.parametrize("text", ["", "日本語の文章です。", "\ud83d", "Ünïcödé — “quotes”"])
def test_any_text_can_be_counted(text: str) -> None:
    assert estimated_tokens(text) >= 0
    assert most_tokens(text) >= len(text) / 3


@pytest.mark.extra
def test_a_models_own_tokenizer_counts(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra [embed]")
    from tokenizers import Tokenizer, models, pre_tokenizers

    inner = Tokenizer(models.WordLevel({"<unk>": 0, "red": 1, "apples": 2}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    tokenizer.save_pretrained(tmp_path)
    count = token_counter(str(tmp_path))
    assert [count(text) for text in ("red apples", "red, red apples!", "")] == [2, 5, 0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"llm\.tokenizer: .*empty"):
        token_counter(str(tmp_path / "empty"))


@pytest.mark.parametrize("name", ["org/model", "./nowhere"])
def test_a_tokenizer_is_a_folder_and_the_hub_is_never_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=rf"llm\.tokenizer: there is no folder {name}; .*hf download"):
        token_counter(name)


def test_a_tokenizer_needs_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="pip install"):
        token_counter(str(tmp_path))
