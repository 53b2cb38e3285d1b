"""The recipe of a pre-training: which corpus, which model, how long.

In: YAML. Out: frozen settings. The decision a reader would question: a batch is stated for the whole training, not per
device, so that the order of tokens and the learning rate of a token do not depend on how many devices there are.
"""

from typing import Literal

from pydantic import Field, model_validator

from fineinstructions.config import Config

Loss = Literal["all", "answers"]
Precision = Literal["auto", "bf16", "fp32"]
Tracker = Literal["tensorboard", "wandb"]
Device = Literal["auto", "cpu"]


class OptimiserConfig(Config):
    """AdamW with a warm-up and a cosine, as Lingua has them."""

    lr: float | None = Field(default=None, gt=0)
    """Highest learning rate. Default: that of the model's size; the paper's is 1e-3 (authors' release)."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Steps in which the rate rises from 0. Default: 2,000 (authors' release), at most a tenth of all steps (ours)."""
    lr_min_ratio: float = Field(default=1e-6, ge=0, le=1)
    """What the rate ends with, as a share of the highest. Default: authors' release."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Of all weights, norms included, as Lingua has it. Default: authors' release."""
    beta1: float = Field(default=0.9, ge=0, lt=1)
    """Default: authors' release."""
    beta2: float = Field(default=0.95, ge=0, lt=1)
    """Default: authors' release."""
    epsilon: float = Field(default=1e-8, gt=0)
    """Default: authors' release."""
    clip: float = Field(default=1.0, ge=0)
    """Longest gradient; 0 cuts none. Default: authors' release."""


class PretrainConfig(Config):
    """A pre-training from scratch on one arm of exported corpora."""

    corpora: str
    """Folder that `export` made."""
    arm: str = "fineinstructions"
    """Which of its arms."""
    tokenizer: str = ""
    """``bytes``, a tokenizer.json, a tiktoken rank file, or a folder with one of them; it must be the one that the
    corpus was counted with, else arms are not token for token. Default: the path that the export was given."""
    packed_dir: str = ""
    """Folder of the packed tokens; several trainings on the same arm may share it. Default: ``packed`` in --out."""
    model: str = "1.8b"
    """A size (5m, 30m, 125m, 300m, 350m, 1.8b, 7b), or the path of a config.json. Default: paper, section 4.2."""
    seq_len: int = Field(default=4096, ge=2)
    """Tokens of a sequence. Default: authors' release."""
    sequences_per_step: int = Field(default=256, ge=1)
    """Sequences of an optimiser step, over all devices. Default: authors' release, 1,048,576 tokens."""
    micro_batch: int = Field(default=4, ge=1)
    """Sequences that a device takes at once; changes nothing but rounding. Default: authors' release."""
    tokens: int | None = Field(default=None, ge=1)
    """How many tokens to train on, rounded down to whole steps. Default: all there are."""
    steps: int | None = Field(default=None, ge=1)
    """The same in steps."""
    epochs: int = Field(default=1, ge=1)
    """How often the corpus may be read; more is refused. Without `tokens` and `steps` it is read as often."""
    loss: Loss = "all"
    """``answers``: only tokens of answers are learned; needs a corpus with ``--view prompt_completion``. Default:
    Lingua, all tokens."""
    document_mask: bool = False
    """Whether a row sees no other row of its sequence, and its positions begin at 0; for models that look
    back by attention alone. Default: Lingua, no mask."""
    optimiser: OptimiserConfig = OptimiserConfig()
    """How weights are changed."""
    seed: int = 42
    """Decides the weights before training, and nothing else. Default: authors' release."""
    precision: Precision = "auto"
    """``auto``: bf16 where the device has it, else fp32. Weights and optimiser are kept in fp32. Default: authors'
    release, bf16."""
    device: Device = "auto"
    """``cpu``: leave accelerators alone."""
    compile: bool = False
    """Whether torch.compile makes the model faster; the first step takes minutes. Ours."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them: less memory, about a third more work. Ours."""
    save_every_steps: int | None = Field(default=None, ge=1)
    """Steps between checkpoints. Default: a tenth of all steps, up to the next line of metrics. Ours."""
    keep_checkpoints: int = Field(default=1, ge=1)
    """Newest checkpoints that are kept until the end. Ours."""
    leave_checkpoints: bool = False
    """Whether those stay when the training is done. Ours."""
    log_every_steps: int = Field(default=10, ge=1)
    """Steps between lines of metrics.jsonl. Ours."""
    report_to: list[Tracker] = Field(default=[])
    """Also tell ``tensorboard`` or ``wandb``; each has to be installed."""
    peak_flops: float | None = Field(default=None, gt=0)
    """Most operations of one device in a second, for its utilisation. Default: known for common accelerators."""

    @model_validator(mode="after")
    def _says_it_once(self) -> "PretrainConfig":
        if self.steps is not None and self.tokens is not None:
            raise ValueError("steps and tokens: say how long to train with one of them, not both")
        return self


CHANGE_NOTHING = (
    *("micro_batch", "precision", "device", "compile", "gradient_checkpointing", "packed_dir"),
    *("save_every_steps", "keep_checkpoints", "leave_checkpoints", "report_to", "peak_flops"),
)
"""Keys that may change when a training is continued: they decide rounding at most."""
