"""A finished run folder with pairs of one's own choice, planned, committed and published as a run does it."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fineinstructions.config import from_mapping, to_plain
from fineinstructions.documents import document_units
from fineinstructions.pair_text import pair_text
from fineinstructions.recipe import RunConfig
from fineinstructions.records import Pair, content_id
from fineinstructions.runs import Phase, RunFolder
from fineinstructions.runs.tables import tables_of
from fineinstructions.setup import Setup

PHASES = [Phase("candidates", "c", entry="documents"), Phase("assemble", "a", upstream=("candidates",))]
TOPICS = ("rain", "granite", "the heart", "copper", "maize", "the moon", "chess", "salt")


def some_texts(number: int) -> list[str]:
    """Documents of different lengths, some of them without an ASCII character."""
    return [
        f"About {TOPICS[n % 8]}, number {n}. " + ("Ünïcödé ☂ " if n % 5 == 0 else "It is well known. ") * (n * 7 % 23)
        for n in range(number)
    ]


def pair_of(document: int, number: int) -> tuple[str, str]:
    """Instruction and answer of one pair."""
    topic = TOPICS[document % 8]
    return f"What is pair {number} of document {document} about?", f"About {topic}. " * (1 + (document + number) % 4)


def write_run(
    folder: Path,
    texts: Sequence[str],
    pairs_of: Callable[[int], int] = lambda n: n * 5 % 7,
    make_pair: Callable[[int, int], tuple[str, str]] = pair_of,
    unit_rows: int = 25,
    changes: Callable[[Pair], Pair] = lambda pair: pair,
    **sections: Any,
) -> Path:
    """Write a run.

    Args:
        folder: Its parent; the run is called ``run``.
        texts: Documents, ``d0``, ``d1`` and so on.
        pairs_of: Number of pairs of a document.
        make_pair: Instruction and answer of a pair.
        unit_rows: Documents in a work unit.
        changes: What is different in a pair.
        sections: Of the run's recipe, beside documents.
    """
    documents = pa.table(
        {
            "id": [f"d{n}" for n in range(len(texts))],
            "text": list(texts),
            "source": [f"source {n % 2}" for n in range(len(texts))],
            "licence": [("CC-BY-4.0", "CC0", "odd & | own")[n % 3] for n in range(len(texts))],
        }
    )
    pq.write_table(documents, folder / "documents.parquet", row_group_size=10)
    plain = {"documents": {"path": str(folder / "documents.parquet")}, "engine": {"unit_rows": unit_rows}}
    config = from_mapping(plain | sections, RunConfig)
    run = RunFolder.create_or_open(folder / "run", to_plain(config), PHASES)
    with run.lease():
        specs = document_units(Setup(config, folder / "run"))
        run.todo("candidates", specs)
        for spec in specs:
            with run.unit("candidates", spec) as unit:
                for _ in unit.keep("documents", range(spec.num_rows)):
                    pass
                unit.commit()
        rows = [changes(_pair(n, i, make_pair)) for n in range(len(texts)) for i in range(pairs_of(n))]
        run.publish("pairs", Pair, tables_of(rows, Pair), phase="assemble", rows_per_part=max(1, len(rows) // 2))
    return folder / "run"


def _pair(document: int, number: int, make_pair: Callable[[int, int], tuple[str, str]]) -> Pair:
    instruction, answer = make_pair(document, number)
    return Pair(
        pair_id=content_id("p", str(document), str(number)),
        document_id=f"d{document}",
        template_id=f"t{number % 5}",
        query_ids=("q1",),
        chunk=-1,
        cosine=0.5,
        instruction=instruction,
        answer=answer,
        slots=(),
        excerpts=(),
        excerpt_ratio=0.5 + number % 5 / 10,
        coverage_ratio=0.9,
        judge_score=3 + number % 3,
        judge_feedback="",
        models=json.dumps({"judge": {"model": "some-judge", "prompt": "0123abcd"}}),
        licence=("CC-BY-4.0", "CC0", "odd & | own")[document % 3],
        template_licence="MIT; CC0",
        source=f"source {document % 2}",
        title="",
        url="",
        metadata='{"lang": "en"}',
        text=pair_text(instruction, answer),
    )


def with_score(score: int) -> Callable[[Pair], Pair]:
    return lambda pair: dataclasses.replace(pair, judge_score=score)
