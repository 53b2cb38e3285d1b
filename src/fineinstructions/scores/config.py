"""What a model is scored on, and how."""

from typing import Literal

from pydantic import Field, model_validator

from fineinstructions.config import Config
from fineinstructions.scores.forms import FORMS
from fineinstructions.scores.heldout import QuestionsConfig, TextsConfig

Device = Literal["auto", "cpu"]


class GenerateConfig(Config):
    """Answers that a model writes, compared with those of people."""

    items: int = Field(default=100, ge=0)
    """Questions of each set that are answered: the first of those that are scored. 0 writes no answers. Ours."""
    forms: list[str] = Field(default=["lines", "pair"])
    """Forms in which they are asked. Ours."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Longest answer; it also ends at the token for the end of a text. Ours."""
    batch: int = Field(default=16, ge=1)
    """Questions that are answered at once; 1 measures how long one answer takes. Ours."""

    @model_validator(mode="after")
    def _known_forms(self) -> "GenerateConfig":
        for name in self.forms:
            if name not in FORMS:
                raise ValueError(f"forms: unknown {name!r}; there are {', '.join(FORMS)}")
        return self


class ScoresConfig(Config):
    """What a checkpoint is scored on."""

    questions: list[QuestionsConfig] = Field(default=[])
    """Sets of questions with answers, held out."""
    texts: list[TextsConfig] = Field(default=[])
    """Sets of texts, held out."""
    generate: GenerateConfig = GenerateConfig()
    """Written answers."""
    context_tokens: int | None = Field(default=None, ge=8)
    """Longest window. Default: the model's own, which is the sequence length that it was trained with."""
    batch_tokens: int = Field(default=4096, ge=1)
    """Tokens in a batch, about; changes nothing but rounding. Ours."""
    device: Device = "auto"
    """``cpu``: leave accelerators alone."""
    seed: int = 0
    """Decides which items are taken where a set has more than `max_items`."""

    @model_validator(mode="after")
    def _is_something(self) -> "ScoresConfig":
        names = [one.name for one in (*self.questions, *self.texts)]
        if not names:
            raise ValueError("name at least one set in questions or texts")
        if len(set(names)) < len(names):
            raise ValueError("two sets have the same name; name each differently")
        return self
