"""Supervised fine-tuning of a genericizer or an instantiator: conversations to a model that replies as they do.

In: conversations and a causal language model. Out: an ordinary folder of that kind. Loss is on the reply alone. Rows
are packed whole; one that is longer than a pack is set aside, never cut. LoRA adapters are merged at the end.

The decision a reader would question: rows are tokenised here, not by trl. Prompt and reply are tokenised apart, the
prompt by the very function that asks a model in this process, so a student is asked in production with the tokens that
it has learned, and no template can slip text between the prompt and the reply.
"""

import datetime
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from fineinstructions.backends.causal_model import CausalModel, load_causal_model
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.config import Config
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.progress import Progress
from fineinstructions.records import Rejection, rejection
from fineinstructions.runs.durable import beside, write_text
from fineinstructions.training.models import only_looks_back
from fineinstructions.training.student import (
    FIGURES,
    MODEL,
    Batch,
    RoundFigures,
    StudentConfig,
    is_main,
    precision,
    run_trainer,
    teller,
    trainer_arguments,
    uses_cpu,
    wait_for_all,
)

T = TypeVar("T", bound="SftConfig")
STAGE = "sft"
_DATE = datetime.date(2024, 7, 26)
"""What chat templates that ask for the date are told. Ours; Llama's own template falls back to it."""
_ASKS_DATE = re.compile(r"strftime_now\(\s*(?:\"([^\"]*)\"|'([^']*)')\s*\)")


class LoraConfig(Config):
    """Low-rank adapters in place of all weights."""

    rank: int = Field(default=32, ge=1)
    """Ours."""
    alpha: float = Field(default=64.0, gt=0)
    """Factor of what the adapters add, before division by the rank. Ours: twice the rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Ours."""


class SftConfig(StudentConfig):
    """How a genericizer or an instantiator is trained and examined."""

    chat_template: str | None = None
    """File with a chat template (Jinja) for a model that has none, such as a base model. The student keeps it."""
    max_length: int = Field(default=4096, ge=16)
    """Tokens of a pack, and of the longest row. Ours."""
    packing: bool = True
    """Several rows to a pack, none of which sees another; without, each is padded by itself, as models with
    convolutions or a state need. Ours."""
    sequences_per_step: int = Field(default=16, ge=1)
    """Packs (without `packing`: rows) of an optimiser step, over all devices. Ours."""
    micro_batch: int = Field(default=1, ge=1)
    """Packs or rows that a device takes at once; decides rounding at most. Ours."""
    lora: LoraConfig | None = None
    """Train adapters and merge them at the end; ``null`` trains all weights, as the authors' released models are."""
    eval_rows: int = Field(default=500, ge=0)
    """Held-out rows that the student answers at the end, the first by id. Ours."""
    eval_max_tokens: int = Field(default=2048, ge=1)
    """Longest reply there. Ours."""


class TrainGenericizerConfig(SftConfig):
    """A genericizer: query to template and compatible document description."""

    model: str = "meta-llama/Llama-3.2-1B-Instruct"
    """Folder of a causal language model with a chat template, or its name on the hub. Default: paper, section 3.1."""


class TrainInstantiatorConfig(SftConfig):
    """An instantiator: template and document to instruction and answer, or a refusal."""

    model: str = "meta-llama/Llama-3.2-3B-Instruct"
    """Folder of a causal language model with a chat template, or its name on the hub. Default: paper, section 3.3."""
    rounds: list[int] = Field(default=[1, 2], min_length=1)
    """Rounds of data that it is trained on, one after the other. Default: paper, section 3.3."""
    max_length: int = Field(default=10_240, ge=16)
    """Tokens of a pack, and of the longest row. Ours: 24,000 characters of a document are about 6,000 tokens."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A prompt and the reply to it."""

    row_id: str
    prompt: tuple[tuple[str, str], ...]
    """Role and content of every turn."""
    reply: str


@dataclass(frozen=True, slots=True)
class Tokens:
    """A conversation as the model sees it."""

    prompt: list[int]
    reply: list[int]
    """With the token that ends it."""

    def __len__(self) -> int:
        return len(self.prompt) + len(self.reply)


def with_chat_template(config: T) -> T:
    """The same settings with the text of the chat template in place of its file: another text is another setting.

    Raises:
        ConfigError: If the file cannot be read, or holds nothing.
    """
    if config.chat_template is None:
        return config
    path = config.chat_template
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"chat_template: {path}: cannot be read ({error}); name a text file") from None
    if not text.strip():
        raise ConfigError(f"chat_template: {path}: is empty; put the Jinja template of a conversation into it")
    return config.model_copy(update={"chat_template": text})


def load_student(folder: ModelFolder, max_length: int, chat_template: str | None = None) -> CausalModel:
    """Load the model that a training begins with, in full precision, its chat template freed from today's date.

    Args:
        folder: The model.
        max_length: Tokens of the longest row.
        chat_template: For a model that has none.

    Raises:
        ConfigError: If it cannot be used, has a chat template of its own besides one that is given, or reads less than
            `max_length` tokens.
    """
    model = load_causal_model(folder, "cpu", "float32")
    own = model.tokenizer.chat_template
    if own and chat_template and own != chat_template:
        raise ConfigError(f"chat_template: {folder.name} has one of its own, which it knows; leave the setting out")
    model.tokenizer.chat_template = own or chat_template
    if not model.tokenizer.chat_template:
        raise ConfigError(
            f"{folder.section}.model: {folder.name} has no chat template, so nobody knows how it is asked; give an "
            "instruct model, or name a file with one: chat_template: FILE"
        )
    if model.context_tokens is not None and max_length > model.context_tokens:
        raise ConfigError(f"max_length: {max_length}, but {folder.name} reads at most {model.context_tokens} tokens")
    model.tokenizer.chat_template = undated(model.tokenizer.chat_template)
    model.model.generation_config.eos_token_id = sorted(model.ends)
    return model


def undated(chat_template: str) -> str:
    """A chat template that says the same every day.

    Llama's writes today's date into every prompt: a student would never again be asked what it has learned.

    Example:
        >>> undated("{{ strftime_now('%Y') }}: {{ messages[0]['content'] }}")
        "{{ '2024' }}: {{ messages[0]['content'] }}"
    """
    return _ASKS_DATE.sub(lambda found: repr(_DATE.strftime(found[1] or found[2] or "")), chat_template)


def tokenised(
    model: CausalModel, rows: Sequence[Conversation], max_length: int
) -> Iterator[tuple[Conversation, Tokens] | Rejection]:
    """Tokens of every row, or what is in their way.

    Args:
        model: Tokenises.
        rows: Conversations.
        max_length: Longest row, in tokens.

    Yields:
        One item per row, in order. Reasons: ``too_long`` (value: tokens), ``request`` where the chat template refuses
        the messages.
    """
    end = end_of_reply(model)
    for row in rows:
        try:
            prompt = model.prompt_ids([{"role": role, "content": content} for role, content in row.prompt], {})
        except ValueError as error:
            yield rejection(STAGE, "request", row.row_id, {"row_id": row.row_id, "detail": str(error)})
            continue
        reply = model.tokenizer(row.reply, add_special_tokens=False, verbose=False)["input_ids"]
        found = Tokens(prompt, [*reply, end])
        if len(found) > max_length:
            yield rejection(STAGE, "too_long", row.row_id, {"row_id": row.row_id}, float(len(found)))
        else:
            yield row, found


def end_of_reply(model: CausalModel) -> int:
    """Id of the token that ends a reply: the one that the chat template puts there, if generation stops at it."""
    turns, mark = [{"role": "user", "content": "q"}], "a-reply"
    text = model.tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": mark}], tokenize=False)
    behind = model.tokenizer(text.rpartition(mark)[2], add_special_tokens=False)["input_ids"]
    known = [token for token in (*behind, model.tokenizer.eos_token_id) if token in model.ends]
    return int(known[0] if known else min(model.ends))


def data_set(rows: Sequence[Tokens]) -> Any:
    """Rows as a data set for the trainer: token ids, and labels on replies only."""
    from datasets import Dataset, Features, List, Value, disable_progress_bars

    disable_progress_bars()
    columns = {
        "input_ids": [row.prompt + row.reply for row in rows],
        "labels": [[-100] * len(row.prompt) + row.reply for row in rows],
    }
    return Dataset.from_dict(columns, Features({name: List(Value("int32")) for name in columns}))


def train_round(
    name: str,
    rows: Sequence[Tokens],
    held_out: Sequence[Tokens],
    model: CausalModel,
    config: SftConfig,
    work: Path,
    progress: Progress,
) -> RoundFigures:
    """One round of training; leaves the model in ``work/model``.

    Args:
        name: Name of the round.
        rows: What to learn.
        held_out: What only the loss is measured on.
        model: The model that is trained, in place.
        config: Settings.
        work: Folder of the round.
        progress: Told how far it is.

    Raises:
        ConfigError: If rows were to be packed that the model does not keep apart.
        DataError: If the trainer has not taken every token of every row.
    """
    trainer = make_trainer(name, rows, held_out, model, config, work, progress)
    figures = run_trainer(trainer, name, work, bool(held_out))
    trained = trainer.accelerator.unwrap_model(trainer.model)
    is_sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    state = trainer.accelerator.get_state_dict(trainer.model) if is_sharded else None
    if is_main():
        _save(model, trained.merge_and_unload() if config.lora else trained, state, config, work / MODEL)
        plain = {slot: getattr(figures, slot) for slot in RoundFigures.__slots__}
        write_text(work / FIGURES, json.dumps(plain) + "\n")
    wait_for_all()
    return figures


def make_trainer(
    name: str,
    rows: Sequence[Tokens],
    held_out: Sequence[Tokens],
    model: CausalModel,
    config: SftConfig,
    work: Path,
    progress: Progress,
) -> Any:
    """The trainer of a round, its rows packed and counted; see `train_round`."""
    from transformers import set_seed
    from trl import SFTConfig as TrlConfig
    from trl import SFTTrainer

    from fineinstructions.training.reply_loss import reply_trainer, skips_logits

    set_seed(config.seed)
    if config.packing and not only_looks_back(model.model.config):
        raise ConfigError(
            f"packing: rows of a pack would see each other in a {model.model.config.model_type}, which does not look "
            "back by attention alone; set packing: false"
        )
    most_packs = len(rows) if not config.packing else -(-sum(map(len, rows)) // config.max_length)
    batch = Batch(config.sequences_per_step, config.micro_batch)
    arguments = TrlConfig(
        **trainer_arguments(config, work, batch, most_packs),
        max_length=config.max_length,
        packing=config.packing,
        eval_packing=False,
        packing_strategy="bfd",
        shuffle_dataset=True,
        completion_only_loss=True,
    )
    trainer = (reply_trainer() if uses_cpu(config) and skips_logits(model.model) else SFTTrainer)(
        model=model.model,
        args=arguments,
        train_dataset=data_set(rows),
        eval_dataset=data_set(held_out) if held_out else None,
        processing_class=model.tokenizer,
        peft_config=_adapters(config.lora) if config.lora else None,
        callbacks=[teller(name, progress)],
    )
    _check_whole(trainer, rows)
    return trainer


def _check_whole(trainer: Any, rows: Sequence[Tokens]) -> None:
    """Nothing was cut or dropped on the way into the trainer."""
    packed = trainer.train_dataset["input_ids"]
    taken, given = sum(map(len, packed)), sum(map(len, rows))
    if taken != given:
        raise DataError(f"the trainer took {taken:,} of {given:,} tokens; another version of trl packs otherwise")


def _adapters(lora: LoraConfig) -> Any:
    try:
        from peft import LoraConfig as PeftConfig
    except ImportError:
        raise ConfigError("lora: needs peft; run pip install 'fineinstructions[train]'") from None
    return PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def _save(model: CausalModel, trained: Any, state: Any, config: SftConfig, place: Path) -> None:
    """Write the model so that it is there whole or not at all, ready to be asked."""
    import torch

    temporary = beside(place)
    trained = trained.to(getattr(torch, precision(config)))
    trained.config.use_cache = True  # gradient checkpointing turns it off
    dtype = trained.dtype
    cast = None if state is None else {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    trained.save_pretrained(temporary, state_dict=cast)
    model.tokenizer.save_pretrained(temporary)
    shutil.rmtree(place, ignore_errors=True)
    temporary.rename(place)
