"""Training on packed tokens with `transformers.Trainer`: in order, resumable to the token, told line by line.

In: sequences, a model, a plan. Out: checkpoints, metrics and the finished model. The decision a reader would question:
the whole training is one pass over one data set, also where it reads the corpus several times, so that there is no end
of an epoch at which the trainer would shuffle, fill up or leave out anything.
"""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fineinstructions.errors import ConfigError
from fineinstructions.progress import Progress
from fineinstructions.training.metrics import (
    append_metrics,
    forget_after,
    is_first_process,
    mark_complete,
    newest_checkpoint,
    num_devices,
    rotate,
    step_of,
)
from fineinstructions.training.models import peak_flops
from fineinstructions.training.plan import Plan, micro_batch
from fineinstructions.training.recipe import PretrainConfig
from fineinstructions.training.sequences import Sequences, collate

if TYPE_CHECKING:
    from transformers import Trainer

PHASE = "train"
TENSORBOARD = "tensorboard"
"""Folder of what TensorBoard shows, in that of the training."""
CHECKPOINTS = "checkpoints"


@dataclass
class Told:
    """What a training tells while it goes on, and where to.

    Args:
        metrics: The file of metrics.
        plan: What it was to be.
        digest: Of the training, for its checkpoints.
        keep: Newest checkpoints that are kept.
        peak: Most operations of all devices in a second, if that is known.
        progress: Told about every step.
    """

    metrics: Path
    plan: Plan
    digest: str
    keep: int
    peak: float | None
    progress: Progress
    _since: float = 0.0
    _step: int = 0

    def begin(self, step: int) -> None:
        """The training goes on after a step."""
        self.progress.start(PHASE, self.plan.steps, step)
        self._since, self._step = time.perf_counter(), step

    def line(self, step: int, logs: dict[str, float]) -> dict[str, Any]:
        """Figures of the steps since the last line.

        Raises:
            ConfigError: If the loss is no number any more.
        """
        now = time.perf_counter()
        tokens = (step - self._step) * self.plan.tokens_per_step
        speed = tokens / max(now - self._since, 1e-9)
        self._since, self._step = now, step
        used = round(speed * self.plan.flops_per_token / self.peak, 4) if self.peak else None
        if not math.isfinite(logs["loss"]):
            raise ConfigError(
                f"step {step:,}: the loss is {logs['loss']}; lower optimiser.lr or raise optimiser.warmup_steps, in"
                " another --out"
            )
        return {
            "step": step,
            "tokens": step * self.plan.tokens_per_step,
            "loss": logs["loss"],
            "lr": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "tokens_per_second": round(speed, 1),
            "mfu": used,
        }


def check_device(config: PretrainConfig) -> None:
    """Refuse settings that this machine or installation cannot follow.

    Raises:
        ConfigError: If there is one.
    """
    import torch

    for name in config.report_to:
        if find_spec(name) is None:
            raise ConfigError(f"report_to: {name} is not installed; pip install {name}, or leave it out")
    has_gpus = config.device == "auto" and torch.cuda.is_available()
    if has_gpus and torch.cuda.device_count() > 1 and "WORLD_SIZE" not in os.environ:
        number = torch.cuda.device_count()
        raise ConfigError(
            f"{number} GPUs, but one process: start it with 'torchrun --nproc-per-node {number} --no-python"
            " fineinstructions pretrain ...', or set CUDA_VISIBLE_DEVICES to one of them"
        )
    if config.precision == "bf16" and has_gpus and not torch.cuda.is_bf16_supported():
        raise ConfigError("precision: this GPU has no bf16; use fp32")
    micro_batch(config, num_devices())


def arguments(config: PretrainConfig, plan: Plan, out: Path) -> Any:
    """Settings of the trainer.

    Raises:
        ConfigError: If the processes of the training do not find each other, and each would train by itself; or if FSDP
            is asked for on a CPU, where accelerate leaves it out without a word.
    """
    import torch
    from transformers import TrainingArguments

    size, times = micro_batch(config, num_devices())
    on_gpu = config.device == "auto" and torch.cuda.is_available()
    bf16 = config.precision == "bf16" or (config.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported())
    optimiser = config.optimiser
    renamed = hasattr(TrainingArguments, "activation_checkpointing")  # within transformers 5
    recompute = "activation_checkpointing" if renamed else "gradient_checkpointing"
    found = TrainingArguments(
        output_dir=str(out / CHECKPOINTS),
        run_name=out.name,
        use_cpu=config.device == "cpu" or not torch.accelerator.is_available(),
        seed=config.seed,
        max_steps=plan.steps,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=times,
        learning_rate=plan.lr,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": optimiser.lr_min_ratio},
        warmup_steps=plan.warmup_steps,
        optim="adamw_torch_fused" if on_gpu else "adamw_torch",
        weight_decay=optimiser.weight_decay,
        adam_beta1=optimiser.beta1,
        adam_beta2=optimiser.beta2,
        adam_epsilon=optimiser.epsilon,
        max_grad_norm=optimiser.clip,
        bf16=bf16,
        torch_compile=config.compile,
        train_sampling_strategy="sequential",
        dataloader_drop_last=True,
        dataloader_num_workers=1 if on_gpu else 0,
        dataloader_pin_memory=on_gpu,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        save_strategy="steps",
        save_steps=plan.save_every_steps,
        logging_strategy="steps",
        logging_steps=config.log_every_steps,
        logging_nan_inf_filter=False,
        report_to=list(config.report_to) or "none",
        disable_tqdm=True,
        **{recompute: config.gradient_checkpointing},
    )
    _check_processes(found)
    return found


def _check_processes(found: Any) -> None:
    """Refuse processes that would not train together.

    Raises:
        ConfigError: If they do not know of each other, or FSDP was asked for and is left out.
    """
    if found.device.type == "cpu" and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        raise ConfigError(
            "FSDP: accelerate turns it on for accelerators only, and every process would hold the whole model; start"
            " these processes with torchrun"
        )
    if found.world_size != num_devices():
        raise ConfigError(
            f"{num_devices()} processes by WORLD_SIZE, but {found.world_size} that know of each other; start them with"
            " torchrun or 'accelerate launch'"
        )


def trainer_of(model: Any, args: Any, sequences: Sequences, tokenizer: Any, told: Told) -> "Trainer":
    """A trainer that decays all weights, as Lingua does, and tells what it does in our words."""
    from transformers import PrinterCallback, Trainer
    from transformers.integrations import TensorBoardCallback

    class PackedTrainer(Trainer):  # type: ignore[misc]
        def get_decay_parameter_names(self, model: Any) -> list[str]:
            return [name for name, _ in model.named_parameters()]

    trainer = PackedTrainer(model, args, train_dataset=sequences, data_collator=collate, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_callback(told, trainer))
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            # Its own choice is the folder of the checkpoints, which goes when the training is done.
            callback.logging_dir = str(told.metrics.parent / TENSORBOARD)
    return trainer


def _callback(told: Told, trainer: Any) -> Any:
    from transformers import TrainerCallback

    class Telling(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            told.begin(state.global_step)

        def on_step_end(self, _args: Any, _state: Any, control: Any, **_kwargs: Any) -> None:
            # Whoever goes on from a checkpoint averages the loss from there on; so does whoever was not stopped.
            control.should_log = control.should_log or control.should_save
            told.progress.advance(PHASE, told.plan.tokens_per_step)

        def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float], **_kwargs: Any) -> None:
            if "loss" in logs:
                line = told.line(state.global_step, logs)
                if state.is_world_process_zero:
                    append_metrics(told.metrics, line)

        def on_save(self, args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            trainer.accelerator.wait_for_everyone()
            folder = Path(args.output_dir)
            if state.is_world_process_zero:
                mark_complete(folder / f"checkpoint-{state.global_step}", told.digest)
                rotate(folder, told.keep)

        def on_train_end(self, _args: Any, _state: Any, _control: Any, **_kwargs: Any) -> None:
            told.progress.finish(PHASE)

    return Telling()


def train(trainer: Any, out: Path, told: Told) -> None:
    """Train to the end, from the newest checkpoint that is whole.

    Args:
        trainer: What `trainer_of` made.
        out: Output folder.
        told: What it tells.

    Raises:
        ConfigError: If the loss is no number any more.
        DataError: If a checkpoint is damaged.
    """
    if is_first_process():
        newest_checkpoint(out / CHECKPOINTS, told.digest)  # removes what a kill left, before others look
    trainer.accelerator.wait_for_everyone()
    checkpoint = newest_checkpoint(out / CHECKPOINTS, told.digest)
    step = step_of(checkpoint) if checkpoint else 0
    if is_first_process():
        forget_after(told.metrics, step)
    with _quiet():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def save_model(trainer: Any, folder: Path) -> None:
    """Write the model and its tokenizer as an ordinary Hugging Face folder; called by all processes."""
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is not None:
        plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.accelerator.unwrap_model(trainer.model).config.use_cache = True  # the trainer turns it off
    with _quiet():
        trainer.save_model(str(folder))
    if trainer.args.should_save:
        (folder / "training_args.bin").unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the trainer's own lines and bars off the screen."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        logging.enable_progress_bar()


def all_peak_flops(config: PretrainConfig) -> float | None:
    """Most operations of all devices in a second, if that is known."""
    import torch

    on_gpu = config.device == "auto" and torch.cuda.is_available()
    one = config.peak_flops or (peak_flops(torch.cuda.get_device_name()) if on_gpu else None)
    return one * num_devices() if one else None
