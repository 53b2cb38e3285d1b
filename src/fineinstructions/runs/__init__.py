"""The run folder: what is planned, what is committed, what is counted.

In: a resolved recipe, the phases of a journey, and records that work functions produce. Out: a folder that can be
interrupted at any moment and continued with the same bytes. Knows records, no stage.

    RUN/recipe.resolved.yaml            the recipe with every default
    RUN/plan/                           run.json (phases and digests), one unit list per phase, published/
    RUN/units/<phase>/<ordinal>-<id>/   files of one work unit; its manifest.json, renamed into place last, means done
    RUN/units/<phase>/pack-*.zip        many units that stand together in the plan, moved there from their folders
    RUN/pairs, matches, templates, ...  merged from the units in plan order
    RUN/logs, RUN/lease                 tracebacks and rates; the lock that keeps two runs apart

The journey of one phase:

    run = RunFolder.create_or_open(path, resolved_config, phases, redo=False)
    with run.lease():
        specs = plan_units([describe_parquet(p) for p in paths], unit_bytes, unit_rows)
        engine.run_units(Job(run, "matches", work, ...), run.todo("matches", specs))         # engines/engine.py

    def work(unit: Unit, models: Models, config: RunConfig) -> None:
        chunked = unit.through("chunk", documents, lambda docs: chunk(docs, models.encoder, config.chunk))
        unit.write(chunked_to_matches, Match)                                    # the engine commits on return

The decision a reader would question: a phase names its own digest and its upstream phases, and every manifest carries
a seal of its upstream manifests, so that a changed recipe, a retried unit or a repaired file invalidates exactly what
follows from it.
"""

from fineinstructions.runs.folder import Phase, RunFolder
from fineinstructions.runs.ledger import Manifest, StageAccount
from fineinstructions.runs.plan import ParquetInput, describe_parquet, plan_units
from fineinstructions.runs.specs import UnitSpec, single_unit
from fineinstructions.runs.status import PhaseStatus, RunStatus, StageFigures, funnel, status
from fineinstructions.runs.tables import TableWriter, read_table
from fineinstructions.runs.unit import Unit
from fineinstructions.runs.verify import Finding, verify

__all__ = [
    "Finding",
    "Manifest",
    "ParquetInput",
    "Phase",
    "PhaseStatus",
    "RunFolder",
    "RunStatus",
    "StageAccount",
    "StageFigures",
    "TableWriter",
    "Unit",
    "UnitSpec",
    "describe_parquet",
    "funnel",
    "plan_units",
    "read_table",
    "single_unit",
    "status",
    "verify",
]
