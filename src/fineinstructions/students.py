"""Hallway: rows of silver data to a student, examined and ready for a recipe.

    rows -> read -> set aside -> train, round after round -> examine -> folder

In: a recipe of a training. Out: an ordinary model folder with ``README.md``, ``training.json``, ``evaluation.json`` and
``set_aside.parquet``. What was begun lies in a folder beside the output, which vanishes with success; the same command
goes on from the last checkpoint. Several processes may train together (`accelerate launch`): the first one reports.
"""

import gc
import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from fineinstructions import __version__
from fineinstructions.backends.encoder import EncoderConfig
from fineinstructions.backends.model_folder import ABOUT_FILES, CALIBRATION_FILE, ModelFolder
from fineinstructions.config import differences, to_plain
from fineinstructions.errors import ConfigError, counted
from fineinstructions.matches.calibrate import Calibration
from fineinstructions.progress import Progress, Silent
from fineinstructions.records import Rejection, as_dict, to_table
from fineinstructions.runs.durable import TEMPORARY_PREFIX, make_room_for, sync_file, sync_tree, write_text
from fineinstructions.runs.lease import hold_lease
from fineinstructions.silver.read import Example, Origin, PairExample, once, read_examples, read_pairs
from fineinstructions.silver.rows import TRAIN, VALIDATION
from fineinstructions.student_card import student_card
from fineinstructions.student_scores import (
    Score,
    examine_genericizer,
    examine_instantiator,
    genericizer_objection,
    instantiator_objection,
    student_llm,
)
from fineinstructions.training.contrastive import TrainEmbedderConfig, TrainingPair
from fineinstructions.training.sft import (
    Conversation,
    SftConfig,
    TrainGenericizerConfig,
    TrainInstantiatorConfig,
    with_chat_template,
)
from fineinstructions.training.student import CHANGE_NOTHING, FIGURES, MODEL, StudentConfig

T = TypeVar("T", Example, PairExample)
TRAINING_FILE, EVALUATION_FILE = ABOUT_FILES
SET_ASIDE_FILE = "set_aside.parquet"
SETTINGS_FILE = "settings.json"
EXTRA = "train"
_PACKAGES = ("torch", "transformers", "datasets", "accelerate", "trl", "sentence_transformers")
_EXAMINED = ("eval_rows", "eval_max_tokens", "min_precision")
"""Keys that decide how a student is examined, not what it is."""


@dataclass
class StudentResult:
    """What became of a training."""

    path: Path
    scores: list[Score] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    """What stands in ``training.json``."""
    use: str = ""
    """Line of a recipe that puts the student to work."""
    was_there: bool = False
    """Whether an earlier call had made it."""
    reports: bool = True
    """Whether this process is the one that reports."""


@dataclass(frozen=True)
class _Made:
    """A trained model that is not in its place yet."""

    folder: Path
    scores: list[Score]
    facts: dict[str, Any]
    set_aside: list[Rejection]
    origins: Sequence[Origin]


def train_genericizer(
    config: TrainGenericizerConfig, out: str | Path, progress: Progress | None = None
) -> StudentResult:
    """Train a genericizer on silver data, and examine it on held-out rows.

    Args:
        config: Data, model and settings.
        out: Folder of the student; appears when it is complete.
        progress: Told what goes on; by default nobody.

    Raises:
        ConfigError: If the data or a setting is wrong, or the output is there and was made otherwise.
    """
    config = with_chat_template(config)
    items = _read(config, lambda: read_examples(config.data, ["genericizer"], genericizer_objection))
    rounds = {"genericizer": [item for item in items if isinstance(item, Example)]}
    return _make(
        "genericizer", config, out, items, lambda work, told: _sft(config, items, rounds, work, told), progress
    )


def train_instantiator(
    config: TrainInstantiatorConfig, out: str | Path, progress: Progress | None = None
) -> StudentResult:
    """Train an instantiator, in two rounds by default; as `train_genericizer`."""
    if len(set(config.rounds)) < len(config.rounds):
        raise ConfigError(f"rounds: {config.rounds} names a round twice; raise epochs instead")
    config = with_chat_template(config)
    tables = [f"instantiator_{number}" for number in config.rounds]

    def objection(row: Example) -> str:
        return instantiator_objection(row) if row.round in config.rounds else "other_round"

    items = _read(config, lambda: read_examples(config.data, tables, objection))
    found = [item for item in items if isinstance(item, Example)]
    rounds = {f"round_{number}": [row for row in found if row.round == number] for number in config.rounds}
    for name, rows in rounds.items():
        if not any(row.split == TRAIN for row in rows):
            raise ConfigError(f"rounds: the data have no training rows of {name}; leave that round out")
    return _make(
        "instantiator", config, out, items, lambda work, told: _sft(config, items, rounds, work, told), progress
    )


def train_embedder(config: TrainEmbedderConfig, out: str | Path, progress: Progress | None = None) -> StudentResult:
    """Train an embedder, in two rounds by default, and calibrate its threshold; as `train_genericizer`."""
    items = _read(config, lambda: read_pairs(config.data))
    return _make("embedder", config, out, items, lambda work, told: _embed(config, items, work, told), progress)


def _read(config: StudentConfig, read: Callable[[], Iterable[T | Rejection]]) -> list[T | Rejection]:
    """All rows, once it is known that a model can be trained here."""
    import importlib.util

    missing = [name.replace("_", "-") for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"training needs {', '.join(missing)}; run pip install 'fineinstructions[{EXTRA}]'")
    items = list(once(list(read())))
    if not any(getattr(item, "split", "") == TRAIN for item in items):
        reasons = Counter(item.reason for item in items if isinstance(item, Rejection))
        told = ", ".join(f"{reason} {number:,}" for reason, number in sorted(reasons.items()))
        raise ConfigError(f"data: no row to train on ({told or 'all are held out'}); give rows with split: train")
    ModelFolder.of(config.model, config.revision, "recipe")
    return items


def _make(
    student: str,
    config: StudentConfig,
    out: str | Path,
    items: Sequence[Any],
    body: Callable[[Path, Progress], _Made],
    progress: Progress | None,
) -> StudentResult:
    """Train where nothing is there yet, in a work folder that only one command works in."""
    from fineinstructions.training.student import is_main, wait_for_all

    target, told = Path(out), progress or Silent()
    work = target.with_name(f"{target.name}.work")
    settings = {"student": student, **to_plain(config), "rows": _digest(items)}
    use = _use(student, target)
    if target.exists():
        facts = _check_same(target / TRAINING_FILE, settings, target)
        scores = json.loads((target / EVALUATION_FILE).read_text(encoding="utf-8"))["scores"]
        found = [Score(**{k: v for k, v in score.items() if k != "reached"}) for score in scores]
        shutil.rmtree(work, ignore_errors=True)
        return StudentResult(target, found, facts, use, was_there=True)
    make_room_for(target)
    with ExitStack() as stack:
        if is_main():
            work.mkdir(exist_ok=True)
            stack.enter_context(hold_lease(work / "lease"))
            _begin(work, settings)
        wait_for_all()
        made = body(work, told)
        if not is_main():
            return StudentResult(target, reports=False)
        facts = _publish(made, student, config, settings, target)
    shutil.rmtree(work, ignore_errors=True)
    return StudentResult(target, made.scores, facts, use)


def _digest(items: Iterable[Any]) -> str:
    total = hashlib.blake2b(digest_size=8)
    for item in items:
        total.update(json.dumps(as_dict(item), sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def _begin(work: Path, settings: dict[str, Any]) -> None:
    """Note what is made here, or see that it is the same; what a kill has left half-written goes."""
    file = work / SETTINGS_FILE
    if file.exists():
        _check_same(file, settings, work)
    else:
        write_text(file, json.dumps({"settings": settings}, ensure_ascii=False, indent=1) + "\n")
    for path in work.rglob(f"{TEMPORARY_PREFIX}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _check_same(file: Path, settings: dict[str, Any], place: Path) -> dict[str, Any]:
    """What a file says of a training, if it is this one.

    Raises:
        ConfigError: If it is another, or no training.
    """
    try:
        facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        before = facts["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{place}: is there and is no student of ours; choose another --out") from None
    left_out = {"data", *CHANGE_NOTHING, "micro_batch"} | ({*_EXAMINED} if file.name == SETTINGS_FILE else set())
    changed = [found for found in differences(before, settings) if found[0].split(".")[0] not in left_out]
    if changed:
        told = "; ".join(f"{key}: {old!r} -> {new!r}" for key, old, new in changed)
        raise ConfigError(f"{place}: made with other settings ({told}); choose another --out, or remove it")
    return facts


def _sft(
    config: SftConfig, items: Sequence[Any], rounds: dict[str, list[Example]], work: Path, told: Progress
) -> _Made:
    """Train a genericizer or an instantiator, and examine it."""
    from fineinstructions.training.sft import load_student, tokenised, train_round
    from fineinstructions.training.student import is_main, uses_cpu

    base = ModelFolder.of(config.model, config.revision, "recipe")
    model = load_student(base, config.max_length, config.chat_template)
    set_aside = [item for item in items if isinstance(item, Rejection)]
    facts: dict[str, Any] = {"rounds": [], "rows_read": len(items)}
    held_out: dict[str, Example] = {}
    for number, (name, rows) in enumerate(rounds.items()):
        found = list(tokenised(model, [_conversation(row) for row in rows], config.max_length))
        set_aside += [item for item in found if isinstance(item, Rejection)]
        fitting = [(row, item[1]) for row, item in zip(rows, found, strict=True) if not isinstance(item, Rejection)]
        train, held = ([tokens for row, tokens in fitting if row.split == split] for split in (TRAIN, VALIDATION))
        if not train:
            raise ConfigError(f"max_length: no row of {name} has at most {config.max_length} tokens; raise it")
        held_out |= {row.row_id: row for row, _ in fitting if row.split == VALIDATION}
        told.note(
            f"{name}: {counted(len(rows), 'row')}, {len(rows) - len(fitting):,} set aside, {len(held):,} held out"
        )
        if not (work / name / FIGURES).exists():
            if number:
                model = load_student(ModelFolder(str(work / _before(rounds, name) / MODEL)), config.max_length)
            (work / name).mkdir(exist_ok=True)
            train_round(name, train, held, model, config, work / name, told)
        trained = json.loads((work / name / FIGURES).read_text(encoding="utf-8"))
        tokens = {"tokens": sum(map(len, train)), "reply_tokens": sum(len(t.reply) for t in train)}
        facts["rounds"].append({**trained, "rows": len(train), "held_out_rows": len(held), **tokens})
    del model
    _let_go()
    folder = work / name / MODEL
    asked = sorted(held_out.values(), key=lambda row: row.row_id)[: config.eval_rows]
    scores = list[Score]()
    if asked and is_main():
        told.note(f"the student answers {counted(len(asked), 'held-out row')}")
        llm = student_llm(folder, config.eval_max_tokens, "cpu" if uses_cpu(config) else "auto")
        examine = examine_genericizer if isinstance(config, TrainGenericizerConfig) else examine_instantiator
        scores = examine(asked, llm)
    origins = [row.origin for rows in rounds.values() for row in rows]
    return _Made(folder, scores, facts, set_aside, origins)


def _before(rounds: dict[str, list[Example]], name: str) -> str:
    names = list(rounds)
    return names[names.index(name) - 1]


def _conversation(row: Example) -> Conversation:
    return Conversation(row.row_id, tuple((turn.role, turn.content) for turn in row.prompt), row.reply)


def _let_go() -> None:
    """Give memory back before the student is loaded once more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _embed(config: TrainEmbedderConfig, items: Sequence[Any], work: Path, told: Progress) -> _Made:
    """Train an embedder, examine and calibrate it."""
    from fineinstructions.training.contrastive import fitting, load_embedder, train_embedder_round, triplets
    from fineinstructions.training.student import is_main

    base = ModelFolder.of(config.model, config.revision, "recipe")
    model = load_embedder(base, config.window_tokens)
    given = [item for item in items if isinstance(item, PairExample)]
    found = list(fitting(model, [_pair(item) for item in given], config.pooling))
    set_aside = [item for item in (*items, *found) if isinstance(item, Rejection)]
    kept = [(row, pair) for row, pair in zip(given, found, strict=True) if not isinstance(pair, Rejection)]
    train = [pair for row, pair in kept if row.split == TRAIN]
    held_rows, held = [r for r, _ in kept if r.split == VALIDATION], [p for r, p in kept if r.split == VALIDATION]
    if not train:
        raise ConfigError(f"window_tokens: no pair fits into {model.max_seq_length} tokens; raise it")
    told.note(f"{counted(len(given), 'pair')}, {len(given) - len(kept):,} set aside, {len(held):,} held out")
    facts: dict[str, Any] = {"rounds": [], "rows_read": len(items)}
    if config.loss == "ranking" and "document" in config.rounds:
        facts["pairs_without_counterpart"] = len(triplets(train)[1])
    start = base
    for number, kind in enumerate(config.rounds):
        place = work / f"{number + 1}_{kind}"
        if not (place / FIGURES).exists():
            model = load_embedder(start, config.window_tokens) if number else model
            place.mkdir(exist_ok=True)
            train_embedder_round(kind, train, held, model, config, place, told)
        facts["rounds"].append(json.loads((place / FIGURES).read_text(encoding="utf-8")) | {"rows": len(train)})
        start = ModelFolder(str(place / MODEL), section="recipe")
    del model
    _let_go()
    folder = Path(start.name)
    scores = _examine_embedder(config, held_rows, folder, facts) if held_rows and is_main() else []
    return _Made(folder, scores, facts, set_aside, [row.origin for row in given])


def _pair(row: PairExample) -> TrainingPair:
    return TrainingPair(row.row_id, row.document, row.description, row.label, row.chunk)


def _examine_embedder(
    config: TrainEmbedderConfig, held: Sequence[PairExample], folder: Path, facts: dict[str, Any]
) -> list[Score]:
    from fineinstructions.embedder_scores import calibrated, cosines_of, examine_embedder

    plain = EncoderConfig(model=config.model, revision=config.revision, device=config.device)
    before, after = (
        cosines_of(held, encoder, config.pooling)
        for encoder in (plain, plain.model_copy(update={"model": str(folder), "revision": None}))
    )
    scores = examine_embedder(held, before, after)
    try:
        found = calibrated(held, after, config.min_precision)
    except ConfigError as error:
        facts["min_cosine"] = None
        facts["no_threshold"] = str(error)
        return scores
    write_text(folder / CALIBRATION_FILE, json.dumps(_calibration(found), indent=1) + "\n")
    facts["min_cosine"] = found.chosen.min_cosine
    hand = Score("min_cosine", found.chosen.min_cosine, len(held), None, "paper, section 3.2: 0.865, chosen by hand")
    return [
        *scores,
        replace(hand),
        Score("precision at min_cosine", found.chosen.precision, found.chosen.num_kept, None, ""),
        Score("recall at min_cosine", found.chosen.recall, found.num_good, None, ""),
    ]


def _calibration(found: Calibration) -> dict[str, Any]:
    plain: dict[str, Any] = as_dict(found)
    return {"min_cosine": found.chosen.min_cosine, **plain}


def _publish(
    made: _Made, student: str, config: StudentConfig, settings: dict[str, Any], target: Path
) -> dict[str, Any]:
    """Write what tells about the student beside it, and put it into its place."""
    import pyarrow.parquet as pq

    reasons = Counter(f"{item.stage}: {item.reason}" for item in made.set_aside)
    facts = {
        "fineinstructions": __version__,
        "settings": settings,
        **made.facts,
        "set_aside": dict(sorted(reasons.items())),
    }
    scores = [as_dict(score) | {"reached": score.is_reached} for score in made.scores]
    write_text(made.folder / TRAINING_FILE, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    write_text(made.folder / EVALUATION_FILE, json.dumps({"scores": scores}, indent=1, ensure_ascii=False) + "\n")
    pq.write_table(to_table(made.set_aside, Rejection), made.folder / SET_ASIDE_FILE)
    base = ModelFolder.of(config.model, config.revision, "recipe")
    write_text(made.folder / "README.md", student_card(student, base, facts, made.scores, made.origins))
    sync_tree(made.folder)
    made.folder.rename(target)
    sync_file(target.absolute().parent)
    return facts


def _use(student: str, folder: Path) -> str:
    if student == "embedder":
        return f"encoder: {{model: {folder}}}"
    stage = {"genericizer": "genericize", "instantiator": "instantiate"}[student]
    return f"{stage}: {{model: openai, prompt: published, llm: {{engine: transformers, model: {folder}}}}}"
