"""Which models a run asks, what they can be asked for, and the rounds of a run that asks by batch files.

In: a recipe. Out: ``RUN/endpoints.json``, found out by the driver before the first phase that asks a model, read by its
workers: so all of them ask alike, and a run that is continued asks as it began. The decision to question: an entry
belongs to a stage and its model, not to an address, so a server may move. Who has changed what a server can do removes
the file. Who only looks at a run, without its lease, keeps what is found out in a folder of its own (`Setup.findings`).
"""

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fineinstructions.backends.batch_files import finish_round, start_round
from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.capabilities import Capabilities, is_another, model_key
from fineinstructions.backends.chat import model_name
from fineinstructions.backends.llm_config import LlmConfig, with_overrides
from fineinstructions.errors import ConfigError, PendingError, counted
from fineinstructions.recipe import RunConfig
from fineinstructions.runs.durable import write_text
from fineinstructions.setup import Setup

ENDPOINTS_FILE = "endpoints.json"
OTHER_MODELS_FILE = "logs/other-models.jsonl"
"""Which model answered in the place of another; a line for each worker and phase."""
ASKING = {
    "genericize": ("genericize",),
    "pairs": ("instantiate", "judge"),
    "compatibility": ("compatibility",),
}
"""Phases that may ask a model, and the stages that always do."""
RUN_PHASES = ("genericize", "pairs")
"""Those that `run` has."""


def asking(config: RunConfig, phase: str) -> tuple[str, ...]:
    """Stages that ask somebody in a phase: a model that ships with the package, or another one."""
    screens = phase == "pairs" and config.compatibility.screen
    return ("compatibility",) * screens + ASKING.get(phase, ())


def asked_models(config: RunConfig, *phases: str) -> dict[str, LlmConfig]:
    """The model of every stage that asks one.

    Args:
        config: The recipe.
        phases: Only the stages of these phases; all where none is named.
    """
    stages = [stage for phase in phases or ASKING for stage in asking(config, phase)]
    sections = {stage: getattr(config, stage) for stage in stages}
    return {stage: with_overrides(config.llm, s.llm) for stage, s in sections.items() if s.model == "openai"}


def runs_here(config: RunConfig, phase: str) -> bool:
    """Whether a phase has its model in the worker process, which then is the only one."""
    return any(llm.engine == "transformers" for llm in asked_models(config, phase).values())


def require_answers_now(config: RunConfig) -> None:
    """Refuse batch files where nobody could wait for their answers.

    Raises:
        ConfigError: If a stage asks by batch files.
    """
    for stage, llm in asked_models(config).items():
        if llm.engine == "batch":
            raise ConfigError(f"llm.engine: {stage} asks by batch files, which only a run does; use server here")


def record_endpoints(setup: Setup, stages: Collection[str], note: Callable[[str], None]) -> None:
    """Find out what the models of stages can do, unless that stands in the run folder already.

    Args:
        setup: The run.
        stages: The stages.
        note: Told where a server answers with another model than it was asked for.

    Raises:
        BackendError: If a server does not answer.
        ConfigError: If a model cannot be used.
    """
    from fineinstructions.backends.llm import ChatClient

    known, kept = _known(setup), setup.findings or setup.root
    asked = {stage: llm for stage, llm in asked_models(setup.config).items() if stage in stages}
    missing = {stage: llm for stage, llm in asked.items() if _recorded(known, stage, llm) is None}
    if not missing:
        return
    cache, others = ResponseCache(setup.cache_dir), known_models(setup)  # of a model that another stage has, too
    with ChatClient(setup.config.llm, cache, known=others, batches_dir=setup.batches_dir) as client:
        found = {stage: (llm, client.capabilities(llm)) for stage, llm in missing.items()}
        entries = {stage: _entry(llm, future.result()) for stage, (llm, future) in found.items()}
    for stage, llm in missing.items():
        if is_another(llm.model, entries[stage]["answers_as"]):
            note(
                f"{stage}: {', '.join(llm.addresses)} was asked for {llm.model!r} and answers as"
                f" {entries[stage]['answers_as']!r}; the pairs will name the model that was asked for, so look which"
                " one is served"
            )
    kept.mkdir(parents=True, exist_ok=True)
    write_text(kept / ENDPOINTS_FILE, json.dumps(known[0] | entries, ensure_ascii=False, indent=1) + "\n")


def known_models(setup: Setup) -> dict[str, Capabilities]:
    """What the run folder says about the models of its recipe, by `model_key`."""
    known = _known(setup)
    found = ((model_key(llm), _recorded(known, stage, llm)) for stage, llm in asked_models(setup.config).items())
    return {key: capabilities for key, capabilities in found if capabilities is not None}


def served_names(setup: Setup) -> dict[str, str]:
    """What servers call the models of stages, where that is not the name that they are asked by."""
    known = _known(setup)
    named: dict[str, str] = {}
    for stage, llm in asked_models(setup.config).items():
        told = _recorded(known, stage, llm)
        names = (told.answers_as, told.served_as) if told is not None else ()
        other = next((name for name in names if name not in ("", llm.model)), "")
        named |= {stage: other} if other else {}
    return named


def note_other_models(setup: Setup, found: Mapping[tuple[str, str], int]) -> None:
    """Keep that a server answered as another model than it was asked for: one line for each pair of names.

    Args:
        setup: The run.
        found: Replies by the name that was asked for and the one that answered.
    """
    if found:
        lines = [{"asked": asked, "answered": answered, "replies": n} for (asked, answered), n in found.items()]
        path = setup.root / OTHER_MODELS_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))


def _entry(llm: LlmConfig, found: Capabilities) -> dict[str, Any]:
    where = {"addresses": list(llm.addresses)} if llm.engine == "server" else {}
    return {**_meant(llm), **where, **asdict(found)}


def _meant(llm: LlmConfig) -> dict[str, Any]:
    """What an entry is about: another model, another revision or files, another way to hold it to a schema."""
    named = {"engine": llm.engine, "model": model_name(llm), "revision": llm.revision}
    return {**named, "llm.structured": llm.structured}


def _read(root: Path) -> dict[str, Any]:
    path = root / ENDPOINTS_FILE
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); remove it, and the models are asked again") from None
    return found if isinstance(found, dict) else {}


def _known(setup: Setup) -> list[dict[str, Any]]:
    """What is known of the models of stages: first what was found beside the run, where that is kept, then its own."""
    return [_read(folder) for folder in (setup.findings, setup.root) if folder is not None]


def _recorded(known: Sequence[dict[str, Any]], stage: str, llm: LlmConfig) -> Capabilities | None:
    fitting = (entries.get(stage) for entries in known)
    entry = next((e for e in fitting if isinstance(e, dict) and _meant(llm).items() <= e.items()), None)
    if entry is None:
        return None
    try:
        return Capabilities(**{field.name: entry[field.name] for field in fields(Capabilities) if field.name in entry})
    except TypeError:
        return None


@contextmanager
def batch_round(setup: Setup, phase: str, note: Callable[[str], None], *, retry_failed: bool) -> Iterator[None]:
    """One round of a phase that asks by batch files: results are read before it, requests written after it.

    Args:
        setup: The run.
        phase: The phase; one that asks otherwise is left alone.
        note: Told what was read.
        retry_failed: Whether requests that failed are asked again.

    Raises:
        PendingError: If requests wait for their answers; the line says which files to submit.
        ConfigError: If a result file cannot be read.
    """
    if not any(llm.engine == "batch" for llm in asked_models(setup.config, phase).values()):
        yield
        return
    folder = setup.batches_dir
    with ResponseCache(setup.cache_dir) as replies:
        read = start_round(folder, replies, forget_failures=retry_failed)
    if read.num_files:
        note(
            f"batches: {counted(read.num_answers, 'new answer')} in {counted(read.num_files, 'result file')}, "
            f"{counted(read.num_failed, 'failed request')}, {counted(read.num_foreign, 'line')} without a result"
        )
    try:
        yield
        finish_round(folder)  # nothing is left to submit
    except PendingError:
        written = finish_round(folder)
        files, asked = counted(len(written.files), "file"), counted(written.num_requests, "request")
        wait = "waits for its answer" if written.num_requests == 1 else "wait for their answers"
        raise PendingError(
            f"{asked} of phase {phase} {wait}"
            f": submit {folder}/requests ({files}), put the results, *.jsonl, into {folder}/results, then run the same"
            " command again"
        ) from None
