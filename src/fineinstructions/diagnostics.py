"""The figures that tell how matching went, from the committed units of a run to ``RUN/diagnostics.json``.

In: a run whose documents are matched. Out: the file, written in one step, the same bytes from the same units.
`matches.diagnose` adds up, `review.diagnostics` reads the file; here the units are read and ids are looked up. Vectors
that the encoder does not make (a server has no coverage chunks) have no figures.
"""

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.matches.diagnose import Diagnoser, Diagnosis
from fineinstructions.matches.popularity import open_counts
from fineinstructions.records import as_dict
from fineinstructions.review.diagnostics import DIAGNOSTICS_FILE, origin, read_diagnostics
from fineinstructions.runs import RunFolder, UnitSpec, funnel
from fineinstructions.runs.durable import write_text
from fineinstructions.setup import Setup
from fineinstructions.templates.index import TemplateIndex, open_index


def write_diagnostics(run: RunFolder, setup: Setup) -> None:
    """Diagnose a run, unless that is done.

    Args:
        run: The run; every unit up to its matches is committed.
        setup: Its recipe and where its index lies.

    Raises:
        DataError: If a unit is missing or damaged.
    """
    if read_diagnostics(run) is not None:
        return
    index = open_index(setup.index_dir, verify=False)
    figures = {"made_from": origin(run), **_plain(_diagnose(run, setup, index), index)}
    write_text(run.root / DIAGNOSTICS_FILE, json.dumps(figures, ensure_ascii=False, indent=1) + "\n")


def _diagnose(run: RunFolder, setup: Setup, index: TemplateIndex) -> Diagnosis:
    diagnoser = Diagnoser(index.num_slots, _coverage_chunks(run), setup.config.sample.target)
    for spec in run.planned("candidates") or ():
        marks = _marks(run, spec)
        start = 0
        for table in run.unit_groups("candidates", spec, "candidates", ["rows", "chunks"]):
            stop = start + len(table.column("rows").combine_chunks().flatten())
            diagnoser.add(table, marks[start:stop] if marks is not None else np.zeros(stop - start, dtype=np.bool_))
            start = stop
    searched = sum(f.account.num_in for f in funnel(run) if (f.phase, f.stage) == ("candidates", "retrieve"))
    return diagnoser.diagnosis(searched, open_counts(setup.popularity_dir))


def _coverage_chunks(run: RunFolder) -> int:
    """Coverage chunks of a document of this run; none where the encoder gave the whole only, whatever the recipe says.

    All documents have the same number, so the first one tells.
    """
    for spec in run.planned("candidates") or ():
        for table in run.unit_groups("candidates", spec, "chunks", ["starts"]):
            if table.num_rows:
                return len(table.column("starts")[0])
    return 0


def _marks(run: RunFolder, spec: UnitSpec) -> NDArray[np.bool_] | None:
    """Which candidates of a unit were chosen, in their order; ``None`` where the choice was given up."""
    columns = [t.column("sampled").to_numpy() for t in run.unit_groups("matches", spec, "match", ["sampled"])]
    manifest = run.manifest("matches", spec)
    return None if manifest is None or manifest.set_aside else np.concatenate([np.empty(0, np.bool_), *columns])


def _plain(diagnosis: Diagnosis, index: TemplateIndex) -> dict[str, Any]:
    """The figures as plain values, hubs by name instead of by row."""
    plain = as_dict(diagnosis)
    rows = np.array([hub.row for hub in diagnosis.hubs], np.int64)
    for hub, template in zip(plain["hubs"], index.templates(rows), strict=True):
        del hub["row"]
        hub |= {"template_id": template.template_id, "template": template.template}
    return plain
