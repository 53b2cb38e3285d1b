"""A limit of memory that one unit hits: that unit is set aside, the others are done."""

import resource
from pathlib import Path

from toy_run import Toy, check, run_toy, some_texts, write_documents

from fineinstructions.runs import RunFolder, funnel


def test_a_unit_that_hits_a_limit_of_memory_is_set_aside_alone(tmp_path: Path) -> None:
    """A limit of the system, inherited by the worker; what the kernel kills for memory is a death like others."""
    texts = some_texts(60)
    texts[25] = "HUNGRY"
    documents = write_documents(tmp_path / "documents.parquet", texts)
    toy = Toy(inputs=(str(documents),), out=str(tmp_path / "run"), workers=1, open_units=2)
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (64 << 30, before[1]))
    try:
        matches, pairs = run_toy(toy)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert (matches.num_done, [a.reason for a in matches.set_aside]) == (5, ["unit_error"])
    assert "MemoryError" in matches.set_aside[0].detail
    assert (pairs.num_done, matches.num_deaths) == (6, 0)
    assert {line.stage: line.account.failed for line in funnel(RunFolder.open(toy.out)) if line.account.failed} == {
        "read": {"unit_error": 10}
    }
    assert check(toy.out) == []
