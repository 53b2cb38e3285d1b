"""What the models of this tier are called, for whoever asks no more: nothing is loaded and no pattern is compiled.

In: nothing. Out: the texts that the models themselves give as `model`. The decision to question: the lists of files
stand here a second time, because importing the models costs a second of processor time, in the driver and in each of
its workers; a test holds the two together.
"""

import json
from pathlib import Path

from fineinstructions.embedded.identity import HERE, RELATIONS, code_digest

_GENERICIZER = ("descriptions", "frame_grammar", "frames", "genericizer", "kinds", "words")
_TABLES = ("words.parquet", "frames.parquet")


def genericizer_name() -> str:
    """`EmbeddedGenericizer.model`."""
    code = (HERE / f"{name}.py" for name in _GENERICIZER)
    return _name("embedded-genericizer", *code, *sorted(HERE.glob("*.txt")), *(HERE / "data" / n for n in _TABLES))


def instantiator_name() -> str:
    """`EmbeddedInstantiator.model`."""
    return _name("embedded-instantiator", HERE / "instantiator.py", *RELATIONS)


def judge_name() -> str:
    """`EmbeddedJudge.model`."""
    return _name("embedded-judge", HERE / "judge.py", *RELATIONS)


def gate_digest() -> str:
    """`RelationGate.digest`."""
    return code_digest(*RELATIONS)


def _name(model: str, *paths: Path) -> str:
    return json.dumps({"name": model, "digest": code_digest(*paths)}, sort_keys=True)
