"""What decides an evaluation: the model under test, the judge, and every benchmark's settings.

In: a YAML file or options of the command line. Out: an `EvaluationConfig`, and how the model under test is asked. The
decision to question: a checkpoint without a chat template is asked in the form that the paper trains on, turn by turn,
so that a model that never saw a chat is scored without anybody inventing a template for it.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.config import Config
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.alpaca_eval import AlpacaEvalConfig
from fineinstructions.evaluation.grading import Protocol
from fineinstructions.evaluation.mixeval import MixEvalConfig
from fineinstructions.evaluation.mt_bench_101 import MtBench101Config

INSTRUCTION_TEMPLATE = (
    "{{ bos_token or '' }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "Instruction: {{ message['content'] }}\n\nAnswer:"
    "{% else %} {{ message['content'] }}\n\n{% endif %}{% endfor %}"
)
"""The form of the paper's training text (section 4.2), as a chat template; earlier turns stand before the last."""


class EvaluationConfig(Config):
    """A model, a judge, and the benchmarks."""

    model: LlmConfig = LlmConfig()
    """The model under test; ``max_tokens`` comes from the benchmark."""
    judge: LlmConfig = LlmConfig()
    """The judge; ``max_tokens`` comes from the benchmark."""
    protocol: Protocol = "marks"
    """How the judge replies: ``marks`` as the benchmarks' own judges do, with the result in double brackets or as one
    letter; ``flow`` and ``prometheus`` for judges that are made to grade from 1 to 5, ``json`` for any other. Ours."""
    format: Literal["auto", "chat", "instruction"] = "auto"
    """How the model is asked: by its chat template; in the form ``Instruction: ... Answer:`` that the paper trains on;
    ``auto`` takes the second for a checkpoint without a template. Ours."""
    options: bool = True
    """Score MixEval's multiple-choice items by the probabilities of their options too, where the model runs in this
    process. Ours."""
    data: str | None = None
    """Folder with the files of all benchmarks, where a benchmark's own ``path`` names none: ``mixeval/``,
    ``mtbench101/mtbench101.jsonl``, ``alpaca_eval/alpaca_eval.json`` (or ``.parquet``)."""
    mixeval: MixEvalConfig = MixEvalConfig()
    """MixEval and MixEval-Hard."""
    mt_bench_101: MtBench101Config = MtBench101Config()
    """MT-Bench-101."""
    alpaca_eval: AlpacaEvalConfig = AlpacaEvalConfig()
    """AlpacaEval 2."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many items (dialogues) of every part of a benchmark, the first of them; for trying things out."""
    seed: int = 0
    """Seed of the bootstrap."""

    def section(self, benchmark: str) -> MixEvalConfig | MtBench101Config | AlpacaEvalConfig:
        """The settings of a benchmark."""
        if benchmark == "mt_bench_101":
            return self.mt_bench_101
        return self.alpaca_eval if benchmark == "alpaca_eval" else self.mixeval

    def shown(self, benchmark: str) -> dict[str, Any]:
        """Settings that a reader of a benchmark's figures must know."""
        facts: dict[str, Any] = {"protocol": self.protocol, "format": prompt_format(self.model, self.format)}
        facts |= {} if self.limit is None else {"limit": self.limit}
        if benchmark == "mt_bench_101":
            return {**facts, "turns": self.mt_bench_101.turns}
        if benchmark == "alpaca_eval":
            return {**facts, "baseline": self.alpaca_eval.baseline, "orders": self.alpaca_eval.orders}
        return {**facts, "version": self.mixeval.version}


_PLACES: dict[str, tuple[str, ...]] = {
    "mixeval": ("mixeval",),
    "mt_bench_101": ("mtbench101/mtbench101.jsonl", "mtbench101.jsonl"),
    "alpaca_eval": ("alpaca_eval/alpaca_eval.json", "alpaca_eval/alpaca_eval.parquet", "alpaca_eval.json"),
}
"""Where each benchmark's files lie below `EvaluationConfig.data`."""


def found_files(config: EvaluationConfig) -> EvaluationConfig:
    """The same config with the path of every benchmark that lies in the common folder.

    Raises:
        ConfigError: If that folder is none.
    """
    if config.data is None:
        return config
    root = Path(config.data)
    if not root.is_dir():
        raise ConfigError(f"data: there is no folder {root}; name the folder with the benchmarks' files")
    changed: dict[str, Any] = {}
    for name, places in _PLACES.items():
        section = getattr(config, name)
        found = next((root / place for place in places if (root / place).exists()), None)
        if section.path is None and found is not None:
            changed[name] = section.model_copy(update={"path": str(found)})
    return config.model_copy(update=changed)


def prompt_format(model: LlmConfig, chosen: str) -> str:
    """``chat`` or ``instruction``: how the model under test is asked.

    Args:
        model: The model.
        chosen: What the settings say.

    Raises:
        ConfigError: If a server is to be asked in the other form than its own.
    """
    if model.engine != "transformers":
        if chosen == "instruction":
            raise ConfigError(
                "format: a server puts messages into its own template; start it with that of the form, or say chat"
            )
        return "chat"
    return chosen if chosen != "auto" else "chat" if _has_template(model) else "instruction"


def _has_template(model: LlmConfig) -> bool:
    folder = ModelFolder.of(model.model, model.revision, section="model")
    if folder.revision or (Path(folder.name) / "chat_template.jinja").is_file():
        return True
    settings = folder.read("tokenizer_config.json")
    return isinstance(settings, dict) and bool(settings.get("chat_template"))


def model_under_test(model: LlmConfig, chosen: str, answer_tokens: int) -> LlmConfig:
    """The model's settings with the length of its answers and the template by which it is asked."""
    changed: dict[str, Any] = {"max_tokens": answer_tokens}
    if prompt_format(model, chosen) == "instruction":
        values = {**model.extra_body.get("chat_template_kwargs", {}), "chat_template": INSTRUCTION_TEMPLATE}
        changed["extra_body"] = {**model.extra_body, "chat_template_kwargs": values}
    return model.model_copy(update=changed)


def named_model(text: str) -> dict[str, Any]:
    """The section of a model that is named on the command line.

    Args:
        text: A folder; or ``NAME@URL`` for a model that a server has, where either part may be left out.

    Example:
        >>> named_model("m@http://127.0.0.1:8000/v1")
        {'engine': 'server', 'model': 'm', 'base_url': 'http://127.0.0.1:8000/v1'}
    """
    if Path(text).is_dir():
        return {"engine": "transformers", "model": text}
    name, at, address = text.rpartition("@")
    if not at or "://" not in address:
        if text.startswith((".", "/", "~")):
            raise ConfigError(f"there is no folder {text}; name a checkpoint, or NAME@http://HOST:PORT/v1")
        return {"engine": "server", "model": text}
    return {"engine": "server", "model": name, "base_url": address}
