"""A model to scores: answer-only losses in several forms, losses of texts, and ROUGE-L of written answers.

In: a model folder and what to score it on. Out: a ledger with one row per item and form. Items go through in pieces
that are committed one by one, so a killed scoring does one piece again at most.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fineinstructions.config import digest, known_settings
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.scores.checkpoint import Checkpoint
from fineinstructions.scores.config import ScoresConfig
from fineinstructions.scores.forms import FORMS
from fineinstructions.scores.heldout import Item, questions, texts
from fineinstructions.scores.ledger import ANSWER, TEXT, WRITTEN, Ledger, ScoreRow, read_ledger
from fineinstructions.scores.rouge import rouge_l

PIECE_ITEMS = 64
"""Items that are scored and committed together. Ours."""
CHANGE_NOTHING = ("batch_tokens", "device")


@dataclass(frozen=True)
class HeldOut:
    """Everything that models are scored on, read once for all of them."""

    config: ScoresConfig
    questions: dict[str, list[Item]]
    texts: dict[str, list[Item]]

    def settings(self, kept: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """What decides the scores beside the items: all of it, or what kept settings know."""
        plain = {name: value for name, value in known_settings(self.config, kept).items() if name not in CHANGE_NOTHING}
        for one in (*plain["questions"], *plain["texts"]):
            del one["path"]
        return plain

    def made_of(self, kept: Mapping[str, Any] | None = None) -> str:
        """Digest of the items and the settings, wherever the files lie."""
        rows = {
            name: [[item.item_id, item.question, item.text] for item in items]
            for name, items in {**self.questions, **self.texts}.items()
        }
        return digest(self.settings(kept), rows)


def read_held_out(config: ScoresConfig) -> HeldOut:
    """Read the sets that a recipe names.

    Raises:
        ConfigError: If one cannot be used.
    """
    return HeldOut(
        config,
        {one.name: questions(one, config.seed) for one in config.questions},
        {one.name: texts(one, config.seed) for one in config.texts},
    )


def score(model: Path, held_out: HeldOut, ledger_file: Path, note: Callable[[str], None] = lambda _: None) -> int:
    """Score a model; go on where an earlier call was stopped.

    Args:
        model: Hugging Face folder of a causal model.
        held_out: What it is scored on.
        ledger_file: Where scores are kept.
        note: Told what goes on.

    Returns:
        How many scores this call has made.

    Raises:
        ConfigError: If the model cannot be loaded, or the file holds other scores.
    """
    of_model = model_digest(model)
    ledger = Ledger(ledger_file, lambda kept: digest(of_model, held_out.made_of(kept)), held_out.settings())
    before = len(ledger.rows)
    pieces = [piece for piece in _pieces(held_out) if ledger.missing(piece.keys)]
    if not pieces:
        return 0
    config = held_out.config
    checkpoint = Checkpoint(model, config.context_tokens, config.batch_tokens, config.device)
    for number, piece in enumerate(pieces, start=1):
        ledger.add(piece.work(checkpoint))
        note(f"{piece.kind} {piece.set_name} {piece.form}".rstrip() + f": {number} of {len(pieces)} pieces")
    return len(ledger.rows) - before


def is_scored(held_out: HeldOut, ledger_file: Path) -> bool:
    """Whether a ledger holds all scores of a model; of which one is not looked at."""
    try:
        known = {row.key for row in read_ledger(ledger_file)[1]}
    except (FileNotFoundError, DataError):  # none yet, or one whose writer was killed
        return False
    return all(key in known for piece in _pieces(held_out) for key in piece.keys)


def model_digest(folder: Path) -> str:
    """Digest of a model's weights and settings.

    Raises:
        ConfigError: If there are no weights in safetensors.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files or not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no model here; give a folder with config.json and safetensors")
    hashed = hashlib.sha256()
    for path in [*files, folder / "config.json"]:
        with path.open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
    return hashed.hexdigest()


@dataclass(frozen=True)
class _Piece:
    """Items of one set that are scored together in one form."""

    kind: str
    set_name: str
    form: str
    items: Sequence[Item]
    work: Callable[[Checkpoint], list[ScoreRow]]

    @property
    def keys(self) -> list[tuple[str, str, str, str]]:
        return [(self.kind, self.set_name, self.form, item.item_id) for item in self.items]


def _pieces(held_out: HeldOut) -> Iterator[_Piece]:
    generate = held_out.config.generate
    for name, items in held_out.texts.items():
        for part in _parts(items, PIECE_ITEMS):
            yield _Piece(TEXT, name, "", part, partial(_losses, TEXT, name, "", part))
    for name, items in held_out.questions.items():
        for form in FORMS:
            for part in _parts(items, PIECE_ITEMS):
                yield _Piece(ANSWER, name, form, part, partial(_losses, ANSWER, name, form, part))
        for form in generate.forms:
            for part in _parts(items[: generate.items], generate.batch):
                work = partial(_written, name, form, part, generate.max_new_tokens)
                yield _Piece(WRITTEN, name, form, part, work)


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _losses(kind: str, name: str, form: str, items: Sequence[Item], checkpoint: Checkpoint) -> list[ScoreRow]:
    asked = FORMS.get(form)
    prompts = [asked.prompt(item.question) if asked else "" for item in items]
    scored = [f"{asked.gap}{item.text}" if asked else item.text for item in items]
    stretches = [checkpoint.continuation(prompt, text) for prompt, text in zip(prompts, scored, strict=True)]
    found = checkpoint.losses(stretches)
    return [
        ScoreRow(kind, name, form, item.item_id, loss.nats, loss.num_tokens, len(item.text.encode("utf-8")))
        for item, loss in zip(items, found, strict=True)
    ]


def _written(name: str, form: str, items: Sequence[Item], most: int, checkpoint: Checkpoint) -> list[ScoreRow]:
    replies = checkpoint.answers([FORMS[form].prompt(item.question) for item in items], most)
    return [
        ScoreRow(
            kind=WRITTEN,
            set_name=name,
            form=form,
            item_id=item.item_id,
            num_tokens=reply.num_tokens,
            num_bytes=len(reply.text.encode("utf-8")),
            rouge_l=rouge_l(reply.text, item.text),
            seconds=reply.seconds,
            written=reply.text,
        )
        for item, reply in zip(items, replies, strict=True)
    ]
