"""Comparison with the texts in tests/golden; UPDATE_GOLDEN=1 rewrites them after a change that was meant."""

import os
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name, text):
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def as_text(messages):
    return "\n".join(f"[{message['role']}]\n{message['content']}" for message in messages) + "\n"
