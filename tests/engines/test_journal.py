"""The journal of a Slurm task, torn at any byte: what was reported stays reported, and the next task goes on in it."""

from pathlib import Path

import pytest

from fineinstructions.engines.journal import JournalReader, JournalWriter
from fineinstructions.engines.worker import Report
from fineinstructions.runs import UnitSpec


@pytest.mark.parametrize("tail", [b"", b"\0" * 64, b"\xff\xfe{", b"5\n[]\n{}\nnull\n", b'{"event": "report"}\n'])
def test_a_journal_torn_at_any_byte(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "whole.jsonl"
    reports = [Report(0, "done", seconds=1.5), Report(1, "unit_error", "é \u2028 line"), Report(None, "ready")]
    with JournalWriter(path) as journal:
        for ordinal in range(3):
            journal.opened(UnitSpec(ordinal=ordinal, unit_id=f"u{ordinal}"))
        for report in reports:
            journal.report(report)
    raw = path.read_bytes()
    for length in range(len(raw) + 1):
        torn = tmp_path / f"{length}.jsonl"
        torn.write_bytes(raw[:length] + tail)
        reader = JournalReader(torn)
        before = list(reader.news())
        assert before == reports[: raw[:length].count(b'"report"') if raw[:length].endswith(b"\n") else len(before)]
        with JournalWriter(torn) as journal:
            journal.opened(UnitSpec(ordinal=7, unit_id="u7"))
            journal.report(Report(8, "done"))
        after = list(reader.news())
        assert after[-1] == Report(8, "done")
        assert [*before, *after[:-1]] == reports[: len(before) + len(after) - 1]
        assert (reader.open, reader.has_left) == ({7}, False)
