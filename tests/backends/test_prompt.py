from pathlib import Path

import pytest

from fineinstructions.backends.prompt import parse_prompt, read_prompt
from fineinstructions.errors import ConfigError


def test_prompts_are_filled_in_one_pass():
    prompt = parse_prompt(
        "Be {{mood}}.\n=== user ===\n{{document}} and {{query}}", ["mood", "document", "query"], "here"
    )
    values = {"mood": "kind", "document": "{{query}} {0} {} %s \\1 === user ===", "query": "{{document}}"}
    assert prompt.fill(values) == (
        ("system", "Be kind."),
        ("user", "{{query}} {0} {} %s \\1 === user === and {{document}}"),
    )
    assert len(prompt.digest) == 16


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no user part {{query}}", "=== user ==="),
        ("x\n=== user ===\n{{qurey}}", "unknown place {{qurey}}; known places: query"),
        ("x\n=== user ===\nnothing", "no place to fill"),
    ],
)
def test_bad_prompt_files_are_refused(tmp_path, text, message):
    path = Path(tmp_path) / "mine.txt"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"mine\.txt") as caught:
        read_prompt(path, ["query"])
    assert message in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_prompt(tmp_path / "absent.txt", ["query"])
