"""What the trainings of all students share: settings, precision, checkpoints that are whole, how far it is.

In: settings. Out: arguments for a trainer of Hugging Face. The decision a reader would question: a batch is stated for
the whole training, not per device, so that the number of devices decides rounding and speed only.
"""

import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fineinstructions.config import Config
from fineinstructions.errors import ConfigError
from fineinstructions.progress import Progress

CHECKPOINTS = "checkpoints"
MODEL = "model"
FIGURES = "figures.json"
_STATE = "trainer_state.json"
"""Written last: a checkpoint with it is whole."""
_LOG_POINTS = 50
"""About how many losses are logged over one training. Ours."""


class StudentConfig(Config):
    """What all students are trained with; every hyper-parameter is ours, because the paper names none."""

    data: str | list[str]
    """Folder of a `distill` run, or Parquet and JSON-lines files, globs and folders with rows of the same columns."""
    model: str
    """Folder of the model to begin with, or its name on the hub."""
    revision: str | None = None
    """Exact commit or tag of a model on the hub; needed there."""
    epochs: float = Field(default=3.0, gt=0)
    """How often the rows are read, in each round. Ours."""
    lr: float = Field(default=1e-5, gt=0)
    """Highest learning rate; it falls along a cosine to 0. Ours."""
    warmup_share: float = Field(default=0.03, ge=0, lt=1)
    """Share of all steps in which the rate rises from 0. Ours."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Ours."""
    seed: int = 42
    """Decides the order of the rows, and new weights where there are any."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """``auto``: bf16 where the device has it, else fp32. Weights are updated in fp32 and written in this one. Ours."""
    device: Literal["auto", "cpu"] = "auto"
    """``cpu``: leave accelerators alone."""
    gradient_checkpointing: bool | None = None
    """Recompute activations instead of keeping them: less memory, about a third more work. ``null``: where there is an
    accelerator. Ours."""
    save_every_steps: int | None = Field(default=None, ge=1)
    """Steps between checkpoints. ``null``: a tenth of all steps. Ours."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Newest checkpoints that are kept until the end. Ours."""


CHANGE_NOTHING = ("precision", "device", "gradient_checkpointing", "save_every_steps", "keep_checkpoints")
"""Keys that may change when a training is continued: they decide rounding at most."""


@dataclass(frozen=True, slots=True)
class RoundFigures:
    """How one round of a training went."""

    name: str
    steps: int
    first_loss: float
    """Mean over the first logged steps."""
    last_loss: float
    held_out_before: float | None
    """Loss on held-out rows before the round; None where there are none."""
    held_out_after: float | None
    losses: tuple[tuple[int, float], ...]
    """Step and loss, as logged."""


@dataclass(frozen=True, slots=True)
class Batch:
    """How many rows a step and a device take."""

    rows_per_step: int
    micro_batch: int


def uses_cpu(config: StudentConfig) -> bool:
    """Whether the training runs on the processor."""
    import torch

    return config.device == "cpu" or not torch.accelerator.is_available()


def precision(config: StudentConfig) -> str:
    """Precision that the weights are written in: ``float32`` or ``bfloat16``."""
    import torch

    if config.precision != "auto":
        return {"bf16": "bfloat16", "fp32": "float32"}[config.precision]
    has_bf16 = not uses_cpu(config) and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return "bfloat16" if has_bf16 else "float32"


def trainer_arguments(config: StudentConfig, work: Path, batch: Batch, num_rows: int) -> dict[str, Any]:
    """Arguments that trainers of Hugging Face share.

    Args:
        config: Settings.
        work: Folder of the round.
        batch: Rows of a step over all devices, and of a device at once.
        num_rows: Rows of an epoch, packs counting as one.

    Raises:
        ConfigError: If the devices cannot share a step evenly.
    """
    world = world_size()
    rows_at_once = batch.micro_batch * world
    if batch.rows_per_step % rows_at_once:
        raise ConfigError(
            f"{batch.rows_per_step} rows of a step cannot be shared by {world} processes with micro_batch "
            f"{batch.micro_batch}; make the one a multiple of the other"
        )
    steps = max(1, math.ceil(config.epochs * math.ceil(num_rows / batch.rows_per_step)))
    checkpointing = config.gradient_checkpointing
    return {
        "output_dir": str(work / CHECKPOINTS),
        "per_device_train_batch_size": batch.micro_batch,
        "per_device_eval_batch_size": batch.micro_batch,
        "gradient_accumulation_steps": batch.rows_per_step // rows_at_once,
        "num_train_epochs": config.epochs,
        "learning_rate": config.lr,
        "lr_scheduler_type": "cosine",
        "warmup_steps": math.ceil(steps * config.warmup_share),
        "weight_decay": config.weight_decay,
        "seed": config.seed,
        "data_seed": config.seed,
        "bf16": precision(config) == "bfloat16",
        "use_cpu": uses_cpu(config),
        **_recomputing(not uses_cpu(config) if checkpointing is None else checkpointing),
        "save_strategy": "steps",
        "save_steps": config.save_every_steps or max(1, steps // 10),
        "save_total_limit": config.keep_checkpoints,
        "logging_steps": max(1, steps // _LOG_POINTS),
        "logging_first_step": True,
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": not uses_cpu(config),
    }


def _recomputing(wanted: bool) -> dict[str, Any]:
    """The argument for activations that are not kept, under the name that this version of transformers has for it."""
    from transformers import TrainingArguments

    if hasattr(TrainingArguments, "activation_checkpointing"):
        return {"activation_checkpointing": wanted, "gradient_checkpointing": None}
    return {"gradient_checkpointing": wanted}


def world_size() -> int:
    """Processes that train together."""
    from accelerate import PartialState

    return int(PartialState().num_processes)


def is_main() -> bool:
    """Whether this process is the one that writes."""
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def wait_for_all() -> None:
    """Wait until every process that trains has come here."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def last_checkpoint(work: Path) -> Path | None:
    """Newest whole checkpoint of a round; what a kill has left half-written is removed."""
    whole: list[tuple[int, Path]] = []
    for path in (work / CHECKPOINTS).glob("checkpoint-*"):
        number = re.fullmatch(r"checkpoint-(\d+)", path.name)
        if number and (path / _STATE).exists() and _is_json(path / _STATE):
            whole.append((int(number[1]), path))
        elif is_main():
            shutil.rmtree(path, ignore_errors=True)
    wait_for_all()
    return max(whole)[1] if whole else None


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def teller(phase: str, progress: Progress) -> Any:
    """A callback that tells steps and losses."""
    from transformers import TrainerCallback

    class Teller(TrainerCallback):  # type: ignore[misc]
        """Passes on what the trainer says."""

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            """The round begins, or goes on."""
            if state.is_world_process_zero:
                progress.start(phase, state.max_steps, state.global_step)

        def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            """One step more."""
            if state.is_world_process_zero:
                progress.advance(phase, 0)

        def on_log(self, _args: Any, state: Any, _control: Any, logs: Any = None, **_: Any) -> None:
            """A loss is known."""
            if state.is_world_process_zero and "loss" in (logs or {}):
                progress.note(f"{phase}: step {state.global_step:,} of {state.max_steps:,}, loss {logs['loss']:.4f}")

        def on_train_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
            """The round is over."""
            if state.is_world_process_zero:
                progress.finish(phase)

    return Teller()


def run_trainer(trainer: Any, name: str, work: Path, has_held_out: bool) -> RoundFigures:
    """Train to the end of a round, from the last checkpoint where there is one.

    Args:
        trainer: A trainer of Hugging Face.
        name: Name of the round.
        work: Folder of the round.
        has_held_out: Whether the trainer has held-out rows.
    """
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # it writes to the standard output, which is for results
    before_file, start = work / "before.json", last_checkpoint(work)
    if start is None or not before_file.exists():
        before = trainer.evaluate()["eval_loss"] if has_held_out and start is None else None
        if is_main():
            before_file.write_text(json.dumps(before), encoding="utf-8")
        wait_for_all()
    before = json.loads(before_file.read_text(encoding="utf-8"))
    trainer.train(resume_from_checkpoint=str(start) if start else None)
    after = trainer.evaluate()["eval_loss"] if has_held_out else None
    logged = [(int(e["step"]), float(e["loss"])) for e in trainer.state.log_history if "loss" in e]
    losses = [loss for _, loss in logged] or [math.nan]
    few = max(1, len(losses) // 10)
    first, last = sum(losses[:few]) / few, sum(losses[-few:]) / few
    return RoundFigures(name, int(trainer.state.global_step), first, last, before, after, tuple(logged))
