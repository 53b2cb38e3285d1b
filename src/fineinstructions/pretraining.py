"""Hallway: one arm of exported corpora to a trained model.

    corpus -> pack -> plan -> train -> model

In: a recipe. Out: a folder with the model in ordinary Hugging Face format, the metrics of the training and what tells
about it.
"""

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from fineinstructions.backends.tokenizer import BYTES, Tokenizer, open_tokenizer
from fineinstructions.config import differences, digest, from_mapping, known_settings, load, to_plain, to_yaml
from fineinstructions.corpus.layout import CORPUS_FILE
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.llama_shapes import SHAPES
from fineinstructions.progress import Progress, Silent
from fineinstructions.runs.durable import (
    TEMPORARY_PREFIX,
    make_room_for,
    remove_temporary,
    replace_folder,
    watch_disk,
    write_text,
)
from fineinstructions.runs.files import FolderFiles, file_problems, read_manifest
from fineinstructions.runs.lease import hold_lease
from fineinstructions.training.metrics import METRICS_FILE, is_first_process, read_metrics
from fineinstructions.training.models import build_model, model_config, model_facts, only_looks_back, require_train
from fineinstructions.training.pack import LEASE_FILE, SourceFile, pack
from fineinstructions.training.packed import PackedTokens
from fineinstructions.training.plan import Plan, plan
from fineinstructions.training.recipe import CHANGE_NOTHING, PretrainConfig
from fineinstructions.training.sequences import Sequences

PACKED = "packed"
MODEL = "model"
RECIPE_FILE = "recipe.resolved.yaml"
FACTS_FILE = "pretrain.json"
CHECKPOINTS = "checkpoints"
PATHS = ("corpora", "tokenizer")
"""Keys that may change because files were moved: what they hold is compared."""
WAIT_SECONDS = 1.0
"""Pause between looks of the processes that wait for the first one to pack."""


@dataclass
class PretrainResult:
    """What a training made."""

    path: Path
    """The output folder."""
    model: Path
    """Ordinary Hugging Face folder: config.json, model.safetensors, tokenizer.json and what belongs to them."""
    metrics: Path
    """JSON lines: step, tokens, loss, lr, grad_norm, tokens_per_second, mfu."""
    facts: dict[str, Any]
    """What stands in ``pretrain.json``."""
    was_there: bool = False
    """Whether an earlier call had made it."""

    @property
    def tokens(self) -> int:
        """Tokens that were trained on, repetitions included."""
        return int(self.facts["tokens"])

    @property
    def unique_tokens(self) -> int:
        """Different tokens among them."""
        return int(self.facts["unique_tokens"])

    @property
    def epochs(self) -> float:
        """How often the corpus was read; 1 or less unless the recipe asks for more."""
        return float(self.facts["epochs"])


def as_pretrain_config(
    config: PretrainConfig | dict[str, Any] | str | Path, overrides: Iterable[str] = ()
) -> PretrainConfig:
    """A recipe, given as a path, as a mapping or checked.

    Raises:
        ConfigError: If it cannot be read or a key is wrong.
    """
    if isinstance(config, str | Path):
        return load(config, PretrainConfig, list(overrides))
    plain = to_plain(config) if isinstance(config, PretrainConfig) else config
    return from_mapping(plain, PretrainConfig, list(overrides), where="pretrain")


def pretrain(
    config: PretrainConfig | dict[str, Any] | str | Path,
    out: str | Path,
    *,
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
) -> PretrainResult:
    """Train a model on one arm of exported corpora; continue where an earlier call was stopped.

    Args:
        config: The recipe.
        out: Output folder.
        overrides: ``a.b=value`` strings.
        progress: Told what goes on; by default nobody.

    Raises:
        ConfigError: If a setting is wrong, tokens run out, or the folder holds another training.
        DataError: If the corpus or the packed tokens are damaged.
    """
    settings = as_pretrain_config(config, overrides)
    require_train()
    arm = _Arm(settings)
    progress, target = progress or Silent(), Path(out)
    if not is_first_process():
        return read_training(target) or _train(settings, arm, target, progress)
    found = _found(target, settings, arm)
    if found is not None:
        return found
    planned = arm.plan()
    from fineinstructions.training.trainer import check_device

    check_device(settings)
    _check_disk(target, arm.packed_dir(target), planned)
    _begin(target, settings)
    with hold_lease(target / LEASE_FILE), watch_disk(target):
        remove_temporary(target)
        pack(arm.packed_dir(target), arm.sources, arm.tokenizer, progress)
        return _train(settings, arm, target, progress)


def plan_pretraining(config: PretrainConfig | dict[str, Any] | str | Path, *, overrides: Iterable[str] = ()) -> Plan:
    """What a recipe comes to, without training or packing anything.

    Raises:
        ConfigError: If a setting is wrong, or tokens run out.
    """
    settings = as_pretrain_config(config, overrides)
    require_train()
    return _Arm(settings).plan()


def pack_arm(
    config: PretrainConfig | dict[str, Any] | str | Path,
    out: str | Path,
    *,
    overrides: Iterable[str] = (),
    progress: Progress | None = None,
) -> PackedTokens:
    """Pack the tokens of an arm and train nothing; `pretrain` finds them there.

    Raises:
        ConfigError: If a setting is wrong, or the folder holds something else.
        DataError: If the corpus is damaged.
    """
    arm = _Arm(as_pretrain_config(config, overrides))
    folder = arm.packed_dir(Path(out))
    pack(folder, arm.sources, arm.tokenizer, progress or Silent())
    return PackedTokens(folder, len(arm.sources))


class _Arm:
    """One arm of exported corpora, with the tokenizer that it was counted with.

    Args:
        config: The recipe.

    Raises:
        ConfigError: If there is no such arm, or the tokenizer is another one.
    """

    def __init__(self, config: PretrainConfig) -> None:
        self.config, self.folder = config, Path(config.corpora)
        self._facts, entries = _read_corpora(self.folder)
        arms = self._facts["arms"]
        if config.arm not in arms:
            raise ConfigError(f"arm: {self.folder} has no arm {config.arm!r}; there are {', '.join(arms)}")
        self.num_tokens = int(arms[config.arm]["tokens"])
        self.sources = [
            SourceFile(self.folder / name, entries[name], stated["rows"], stated["tokens"])
            for name, stated in arms[config.arm]["files"].items()
        ]
        self.tokenizer_name = config.tokenizer or self._facts["config"]["tokenizer"]
        self.tokenizer = self._open_tokenizer()
        self.where = f"{self.folder}/{config.arm}"

    def _open_tokenizer(self) -> Tokenizer:
        counted = self._facts["tokenizer"]
        name = self.tokenizer_name
        if name != BYTES and not Path(name).exists():
            raise ConfigError(
                f"tokenizer: {name}: no such file; name the tokenizer that {self.folder} was counted with"
            )
        tokenizer = open_tokenizer(name)
        if asdict(tokenizer.facts) != counted:
            raise ConfigError(
                f"tokenizer: {name} is not the one that {self.folder} was counted with ({counted['kind']},"
                f" {counted['vocab_size']:,} ids): arms would not be token for token; name that one, or export again"
                f" with --tokenizer {name}"
            )
        return tokenizer

    def packed_dir(self, out: Path) -> Path:
        """Where its packed tokens lie."""
        return Path(self.config.packed_dir) if self.config.packed_dir else out / PACKED

    def model_config(self) -> Any:
        """Configuration of the model, with the vocabulary of the tokenizer."""
        config = model_config(self.config.model, self.tokenizer.facts, self.config.seq_len)
        if self.config.document_mask and not only_looks_back(config):
            raise ConfigError(
                f"document_mask: a {config.model_type} does not look back by attention alone, so no mask keeps rows "
                "apart; leave it out"
            )
        return config

    def plan(self) -> Plan:
        """What the recipe comes to."""
        facts = model_facts(self.model_config(), self.config.seq_len, self.config.model)
        return plan(self.config, self.num_tokens, self.tokenizer.facts.vocab_size, facts, self.where)

    def digest(self, out: Path) -> str:
        """Of what decides the training in a folder."""
        plain = known_settings(self.config, _kept_recipe(out))
        plain = {name: value for name, value in plain.items() if name not in (*CHANGE_NOTHING, *PATHS)}
        files = [] if self.config.model in SHAPES else [self.model_config().to_dict()]
        return digest(plain, [source.sha256 for source in self.sources], asdict(self.tokenizer.facts), *files)


def _read_corpora(folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Figures of an export, and the digests of its files.

    Raises:
        ConfigError: If there is none, or not as it was made.
    """
    try:
        facts: dict[str, Any] = json.loads((folder / CORPUS_FILE).read_text(encoding="utf-8"))
        manifest = read_manifest(FolderFiles(folder))
    except FileNotFoundError:
        raise ConfigError(
            f"corpora: {folder}: holds no corpora; name a folder that 'fineinstructions export' made"
        ) from None
    except (ValueError, DataError) as error:
        raise ConfigError(f"corpora: {folder}: cannot be read ({error}); export again") from None
    if manifest is None:
        raise ConfigError(f"corpora: {folder}: has no manifest; export again")
    problems = file_problems(FolderFiles(folder), manifest.files)
    if problems:
        raise ConfigError(f"corpora: {folder}: {problems[0]}; export again")
    return facts, {entry.name: entry.sha256 for entry in manifest.files}


def _kept_recipe(out: Path) -> dict[str, Any] | None:
    """The recipe that a training began with; none where it has yet to begin."""
    path = out / RECIPE_FILE
    kept: dict[str, Any] | None = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    return kept


def _found(out: Path, config: PretrainConfig, arm: _Arm) -> PretrainResult | None:
    """A training that is complete already; none where it has to begin or go on.

    Raises:
        ConfigError: If the folder holds something else.
    """
    before = _kept_recipe(out)
    if before is None:
        names = [path.name for path in out.iterdir()] if out.is_dir() else []
        others = [name for name in names if name != PACKED and not name.startswith(TEMPORARY_PREFIX)]
        if others or (out.exists() and not out.is_dir()):
            raise ConfigError(f"{out}: holds something else than a training; choose another --out")
        make_room_for(out)
        return None
    changed = [
        f"{key} was {old!r}, is {new!r}"
        for key, old, new in differences(before, known_settings(config, before))
        if key.split(".")[0] not in (*CHANGE_NOTHING, *PATHS)
    ]
    if changed:
        raise ConfigError(f"{out}: a training with another recipe ({'; '.join(changed)}); choose another --out")
    found = read_training(out)
    if found is not None and found.facts["made_of"] != arm.digest(out):
        raise ConfigError(f"{out}: a training on another corpus or of another config.json; choose another --out")
    return found


def read_training(out: Path) -> PretrainResult | None:
    """A training that is complete; ``None`` where it has yet to begin or to end."""
    if not (out / FACTS_FILE).is_file():
        return None
    facts = json.loads((out / FACTS_FILE).read_text(encoding="utf-8"))
    return PretrainResult(out, out / MODEL, out / METRICS_FILE, facts, was_there=True)


def _check_disk(out: Path, packed: Path, planned: Plan) -> None:
    """Refuse where what is still to be written does not fit; what an earlier call wrote lies there already."""
    place = out if out.is_dir() else out.absolute().parent
    there = sum(path.stat().st_size for folder in (out, packed) for path in folder.rglob("*") if path.is_file())
    free = shutil.disk_usage(place).free
    if free < planned.disk_bytes - there:
        raise ConfigError(
            f"{place}: {free / 1e9:,.1f} GB free, but checkpoints, model and packed tokens take about"
            f" {planned.disk_bytes / 1e9:,.1f} GB; make room, or lower keep_checkpoints"
        )


def _begin(out: Path, config: PretrainConfig) -> None:
    out.mkdir(exist_ok=True)
    if not (out / RECIPE_FILE).is_file():
        write_text(out / RECIPE_FILE, to_yaml(config))


def _train(config: PretrainConfig, arm: _Arm, out: Path, progress: Progress) -> PretrainResult:
    """Train on packed tokens; called by all processes of a training."""
    from fineinstructions.training.saved_tokenizer import as_transformers
    from fineinstructions.training.trainer import (
        Told,
        all_peak_flops,
        arguments,
        save_model,
        train,
        trainer_of,
    )

    began, planned = time.perf_counter(), arm.plan()
    packed = _wait_for_packed(arm.packed_dir(out), len(arm.sources))
    sequences = Sequences(
        packed,
        config.seq_len,
        planned.steps * config.sequences_per_step,
        answers_only=config.loss == "answers",
        restart_positions=config.document_mask,
    )
    told = Told(out / METRICS_FILE, planned, arm.digest(out), config.keep_checkpoints, all_peak_flops(config), progress)
    model = build_model(arm.model_config(), config.seed, like_lingua=config.model in SHAPES)
    tokenizer = as_transformers(arm.tokenizer_name, arm.tokenizer.facts)
    trainer = trainer_of(model, arguments(config, planned, out), sequences, tokenizer, told)
    train(trainer, out, told)
    temporary = out / f"{TEMPORARY_PREFIX}{MODEL}"
    save_model(trainer, temporary)
    facts = {
        **planned.to_plain(),
        "loss": read_metrics(out / METRICS_FILE)[-1]["loss"],
        "made_of": arm.digest(out),
        "seconds": round(time.perf_counter() - began, 1),
        "tokenizer": asdict(arm.tokenizer.facts),
        "rows": packed.num_rows,
        "config": to_plain(config),
    }
    trainer.accelerator.wait_for_everyone()
    if is_first_process():
        replace_folder(temporary, out / MODEL)
        write_text(out / FACTS_FILE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        if not config.leave_checkpoints:
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return PretrainResult(out, out / MODEL, out / METRICS_FILE, facts)


def _wait_for_packed(folder: Path, num_parts: int) -> PackedTokens:
    """Packed tokens, once the first process has written them."""
    while True:
        try:
            return PackedTokens(folder, num_parts)
        except DataError:
            if is_first_process():
                raise
        time.sleep(WAIT_SECONDS)
