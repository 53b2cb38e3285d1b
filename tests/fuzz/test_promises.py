"""The promises of `fuzz_targets` hold for what was once found and for drawn inputs."""

from pathlib import Path

import pytest
from fuzz_targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

CORPUS = Path(__file__).parent / "corpus"
KEPT = sorted(path for path in CORPUS.rglob("*") if path.is_file())
WORDS = {
    "template": ["<fi>", "</fi>", "<excerpt>", "< FI >", "a", " ", "\n", "\u3000", "{0}", "<"],
    "answer": ["<excerpt>", "</excerpt>", "<...>", "<\u2026>", "a b", " ", "\n", "<fi>", "<"],
    "reply": [
        *(
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            '"',
            "null",
            "NaN",
            "1e999",
            "\\ud800",
            "\\u0000",
            "```json\n",
            "```",
            "<think>",
        ),
        *(
            "</think>",
            "<score>",
            "</score>",
            "5",
            "<feedback>",
            "</feedback>",
            '"score": 4',
            '"feedback": "x"',
            "\n",
            " ",
        ),
        *('"a": 1', '"instruction": "i"', '"answer": "a"', '"template": "t"', '"compatible_document_description": "d"'),
        '"slots": [{"name": "n", "value": "v"}]',
    ],
    "recipe": [
        *(
            "documents:",
            "queries:",
            "llm:",
            "judge:",
            " ",
            "\n",
            "  ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "path:",
            "x",
            "&a ",
            "*a",
        ),
        *(
            "extra_body:",
            "!!binary ",
            "2020-13-45",
            "0x",
            "1_0",
            ".inf",
            "~",
            "? ",
            "- ",
            "'",
            '"\\ud800"',
            "#",
            "<<: ",
        ),
        *("seed:", "1", "model:", "timeout_seconds:", "\t", "|", ">", "%", "@", "!!python/none", "---\n", "\u2028"),
    ],
    "rows": [
        *(
            "{",
            "}",
            "[",
            "]",
            ":",
            ",",
            '"',
            "\n",
            "\r",
            "\t",
            "\0",
            "NaN",
            '"text"',
            '"id"',
            '"x"',
            "\\ud800",
            "id,text\n",
        ),
        *('{"text": "x"}', '{"a": {"text": "x"}', "1e999", "true", " ", "\ufeff", "é"),
    ],
}
"""What texts are put together from."""


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_was_found(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


def test_every_target_has_inputs_that_were_kept() -> None:
    assert {path.parent.name for path in KEPT} == set(TARGETS)


@pytest.mark.parametrize("name", [name for name in TARGETS if name != "parquet"])
@settings(max_examples=60)
@given(raw=st.binary(max_size=200))
def test_any_bytes(name: str, raw: bytes) -> None:
    TARGETS[name](raw)


@pytest.mark.parametrize("name", WORDS)
@settings(max_examples=100)
@given(data=st.data())
def test_texts_of_the_words_that_matter(name: str, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(WORDS[name]), max_size=30)))
    head = bytes([data.draw(st.integers(0, 255))]) if name == "rows" else b""
    TARGETS[name](head + text.encode())


@settings(max_examples=150)
@given(data=st.data())
def test_parquet_with_bytes_changed(data: st.DataObject) -> None:
    raw = bytearray(data.draw(st.sampled_from([p.read_bytes() for p in KEPT if p.parent.name == "parquet"])))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=4)):
        raw[place] = data.draw(st.integers(0, 255))
    TARGETS["parquet"](bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]))
