"""Windows onto a finished run that need its recipe or its documents: viewer, report, audit.

In: a run folder or URL. Out: what serves its pages, or files beside its pairs. Room `review` makes the pages;
here it is given a reader of the documents, as the run's own recipe says.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fineinstructions.backends.llm_config import LlmConfig, with_overrides
from fineinstructions.config import from_mapping
from fineinstructions.documents import documents_reader
from fineinstructions.errors import ConfigError
from fineinstructions.evaluate import is_scripted, require_engine, shown_name
from fineinstructions.evaluation.report import PLUMBING_MARK
from fineinstructions.evaluation_recipe import named_model
from fineinstructions.parquet import open_parquet
from fineinstructions.recipe import RunConfig
from fineinstructions.records import Rejection
from fineinstructions.review.audit import AUDIT_PAIRS, AUDIT_SEED, Asked, SheetJudge, audit, read_audit
from fineinstructions.review.labels import PAIRS, TEMPLATES
from fineinstructions.review.report import write_report
from fineinstructions.review.sheet_judge import sheet_prompt
from fineinstructions.review.viewer.guard import Access
from fineinstructions.runs.places import open_run
from fineinstructions.runs.verify import DocumentReader
from fineinstructions.setup import open_setup


def reader_of(root: Path) -> DocumentReader:
    """Reads the documents of a unit, as the run's own recipe says."""
    read = documents_reader(open_setup(root))
    return lambda spec: (d for d in read(spec) if not isinstance(d, Rejection))


def open_viewer(place: str | Path, access: Access, work: str | Path | None = None) -> Any:
    """Make the viewer of a run ready.

    Args:
        place: Run folder, or URL of a run on a store.
        access: Who may ask.
        work: Folder of working folders of runs on a store.

    Returns:
        The ASGI application.

    Raises:
        ConfigError: If there is no such run, it has no pairs yet, or the extra is not installed.
    """
    try:
        import fastapi  # noqa: F401
        import jinja2  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"the viewer needs {error.name}: pip install 'fineinstructions[view]'") from None
    from fineinstructions.review.viewer.app import make_app, open_shop

    run = open_run(place, work)
    made = read_audit(run.root).get("quality", {})
    count, seed = made.get("num_pairs", AUDIT_PAIRS), made.get("seed", AUDIT_SEED)
    return make_app(open_shop(run, reader_of(run.root), count, seed), access)


def write_run_report(place: str | Path, work: str | Path | None = None, experiment: Path | None = None) -> Path:
    """Write the report of a run.

    Args:
        place: As `open_viewer`.
        work: As `open_viewer`.
        experiment: Folder of an experiment whose curves are to be in it.

    Returns:
        The page.

    Raises:
        ConfigError: If there is no such run, it has no pairs yet, or the experiment has no curves.
    """
    return write_report(open_run(place, work), experiment)


def audit_run(
    place: str | Path,
    *,
    count: int = AUDIT_PAIRS,
    seed: int = AUDIT_SEED,
    direct: Path | None = None,
    columns: dict[str, str] | None = None,
    sheets: Sequence[Path] = (),
    hour_price: float | None = None,
    judge: str | None = None,
    prompt: str | None = None,
    work: str | Path | None = None,
) -> dict[str, Any]:
    """Audit a run.

    Args:
        place: Run folder, or URL of a run on a store.
        count: Pairs, and templates, in the sheets.
        seed: Decides which.
        direct: File of pairs that were prompted for directly, to compare.
        columns: Its columns by role (``instruction``, ``answer``, ``document``), where they are named otherwise.
        sheets: Filled sheets, whose labels are taken over.
        hour_price: What one worker costs for an hour.
        judge: Language model that fills in the sheet: a folder, or ``NAME@URL``; else as the recipe's ``llm``.
        prompt: Its prompt file for pairs, in place of ours.
        work: Folder of working folders of runs on a store.

    Returns:
        What was found, by the name of its file in ``RUN/audit``.

    Raises:
        ConfigError: If there is no such run, it has no pairs yet, or a given file cannot be used.
    """
    run = open_run(place, work)
    config = from_mapping(run.config, RunConfig, where=str(run.recipe_file))
    pairs = _direct_pairs(direct, columns or {}) if direct else []
    with _sheet_judge(judge, prompt, config.llm) as of_sheet:
        asked = Asked(count, seed, pairs, tuple(sheets), of_sheet, hour_price)
        return audit(run, reader_of(run.root), asked, config.sample.target)


@contextmanager
def _sheet_judge(named: str | None, prompt: str | None, shared: LlmConfig) -> Iterator[SheetJudge | None]:
    """The judge of the sheet, if one is named; one that follows a script is called so."""
    if named is None:
        if prompt is not None:
            raise ConfigError("--prompt: is for --judge, which is missing")
        yield None
        return
    from fineinstructions.backends.llm import ChatClient

    asked_with = {PAIRS.name: sheet_prompt(prompt), TEMPLATES.name: sheet_prompt(None, TEMPLATES)}
    llm = with_overrides(shared.model_copy(update={"serve": None}), named_model(named))
    require_engine("judge", llm)
    with ChatClient(llm) as client:
        mark = f" {PLUMBING_MARK}" if is_scripted(llm, client) else ""
        yield SheetJudge(client, f"{shown_name(llm)}{mark}", asked_with)


def _direct_pairs(path: Path, columns: dict[str, str]) -> list[tuple[str, str, str]]:
    """Instruction, answer and document of every row of a Parquet file."""
    unknown = sorted(set(columns) - {"instruction", "answer", "document"})
    if unknown:
        raise ConfigError(f"--column {unknown[0]}: no such role; known are instruction, answer and document")
    names = {role: columns.get(role, role) for role in ("instruction", "answer", "document")}
    with open_parquet(path, str(path)) as file:
        there = set(file.schema_arrow.names)
        for role, name in names.items():
            if name not in there and (role != "document" or role in columns):
                raise ConfigError(f"{path}: no column {name!r}; name it with --column {role}=NAME")
        wanted = [name for name in names.values() if name in there]
        rows = [row for batch in file.iter_batches(batch_size=1024, columns=wanted) for row in batch.to_pylist()]
    found = []
    for number, row in enumerate(rows, start=1):
        texts = [row.get(names[role]) for role in ("instruction", "answer", "document")]
        if not all(isinstance(text, str) and text for text in texts[:2]):
            raise ConfigError(f"{path}, row {number}: instruction or answer is no text; take the row out")
        found.append((texts[0], texts[1], texts[2] if isinstance(texts[2], str) else ""))
    return found
