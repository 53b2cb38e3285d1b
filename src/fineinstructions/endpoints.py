"""Which models a run asks, what they can be asked for, and the rounds of a run that asks by batch files.

In: a recipe. Out: ``RUN/endpoints.json``, found out by the driver before the first phase that asks a model, read by its
workers: so all of them ask alike, and a run that is continued asks as it began. The decision to question: an entry
belongs to a stage and its model, not to an address, so a server may move. Who has changed what a server can do removes
the file.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from fineinstructions.backends.batch_files import finish_round, start_round
from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.capabilities import Capabilities, is_another, model_key
from fineinstructions.backends.chat import model_name
from fineinstructions.backends.llm_config import LlmConfig, with_overrides
from fineinstructions.errors import ConfigError, PendingError
from fineinstructions.recipe import RunConfig
from fineinstructions.runs.durable import write_text
from fineinstructions.setup import Setup

ENDPOINTS_FILE = "endpoints.json"
ASKING = {
    "genericize": ("genericize",),
    "pairs": ("instantiate", "judge"),
    "compatibility": ("compatibility",),
}
"""Phases that may ask a model, and the stages that do."""


def asked_models(config: RunConfig, *phases: str) -> dict[str, LlmConfig]:
    """The model of every stage that asks one.

    Args:
        config: The recipe.
        phases: Only the stages of these phases; all where none is named.
    """
    stages = [stage for phase in phases or ASKING for stage in ASKING.get(phase, ())]
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


def record_endpoints(setup: Setup, phase: str, note: Callable[[str], None]) -> None:
    """Find out what the models of a phase can do, unless that stands in the run folder already.

    Args:
        setup: The run.
        phase: The phase.
        note: Told where a server answers with another model than it was asked for.

    Raises:
        BackendError: If a server does not answer.
        ConfigError: If a model cannot be used.
    """
    from fineinstructions.backends.llm import ChatClient

    known = _read(setup.root)
    asked = asked_models(setup.config, phase)
    missing = {stage: llm for stage, llm in asked.items() if _recorded(known, stage, llm) is None}
    if not missing:
        return
    cache, others = ResponseCache(setup.cache_dir), known_models(setup)  # of a model that another stage has, too
    with ChatClient(setup.config.llm, cache, known=others, batches_dir=setup.batches_dir) as client:
        found = {stage: (llm, client.capabilities(llm)) for stage, llm in missing.items()}
        entries = {stage: _entry(llm, future.result()) for stage, (llm, future) in found.items()}
        names = {stage: client.name_given(llm) for stage, llm in missing.items()}
    for stage, llm in missing.items():
        if is_another(llm.model, names[stage]):
            note(
                f"{stage}: {' '.join(llm.addresses)} was asked for {llm.model!r} and answers as {names[stage]!r}; the"
                " pairs will name the model that was asked for, so look which one is served"
            )
    write_text(setup.root / ENDPOINTS_FILE, json.dumps(known | entries, ensure_ascii=False, indent=1) + "\n")


def known_models(setup: Setup) -> dict[str, Capabilities]:
    """What the run folder says about the models of its recipe, by `model_key`."""
    known = _read(setup.root)
    found = ((model_key(llm), _recorded(known, stage, llm)) for stage, llm in asked_models(setup.config).items())
    return {key: capabilities for key, capabilities in found if capabilities is not None}


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


def _recorded(known: dict[str, Any], stage: str, llm: LlmConfig) -> Capabilities | None:
    entry = known.get(stage)
    if not isinstance(entry, dict) or not _meant(llm).items() <= entry.items():
        return None
    try:
        return Capabilities(**{field.name: entry[field.name] for field in fields(Capabilities)})
    except KeyError:
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
            f"batches: {read.num_answers:,} new answers in {read.num_files:,} result files, {read.num_failed:,} failed "
            f"requests, {read.num_foreign:,} lines that are no results"
        )
    try:
        yield
        finish_round(folder)  # nothing is left to submit
    except PendingError:
        written = finish_round(folder)
        files = f"{len(written.files)} {'file' if len(written.files) == 1 else 'files'}"
        raise PendingError(
            f"{written.num_requests:,} requests of phase {phase} wait for their answers: submit {folder}/requests "
            f"({files}), put the results, *.jsonl, into {folder}/results, then run the same command again"
        ) from None
