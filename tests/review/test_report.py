"""Report and audit of a small real run: the same bytes each time, whole, harmless, and figures that add up."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import in_process

from fineinstructions.review.labels import FAULTS, Label, add_labels, read_labels
from fineinstructions.statistics import wilson_interval

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("viewer")]


class Elements(HTMLParser):
    """Names of all elements of a page, and its references to other places."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.references: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        assert not any(name.startswith("on") for name, _ in attrs)
        self.references |= {str(value) for name, value in attrs if name in ("src", "href")}


def test_the_report_is_whole_and_the_same_each_time(hostile_run: Path) -> None:
    code, out, errors = in_process("report", hostile_run)
    assert code == 0, errors
    page = Path(out.strip())
    assert page == hostile_run / "report" / "index.html"
    files = [page, page.with_name("report.md")]
    first = [file.read_bytes() for file in files]
    assert in_process("report", hostile_run)[0] == 0
    assert [file.read_bytes() for file in files] == first
    text = page.read_text(encoding="utf-8")
    found = Elements(text)
    assert not {"script", "img", "iframe", "link", "object"} & found.names
    assert all(reference.startswith("#") for reference in found.references)
    assert str(hostile_run) not in text
    pairs = pq.read_table(hostile_run / "pairs")
    assert f"<b>{pairs.num_rows:,}</b>pairs kept" in text
    assert text.count("<article>") >= min(20, pairs.num_rows) + min(10, pairs.num_rows)
    assert f"{pairs.num_rows:,} pairs kept" in files[1].read_text(encoding="utf-8")


def test_curves_of_an_experiment_are_drawn_and_broken_ones_named(hostile_run: Path) -> None:
    folder = hostile_run / "curves"
    folder.mkdir()
    try:
        curve = {
            "title": "Loss",
            "x_label": "step",
            "y_label": "loss",
            "series": [{"name": "a", "x": [1, 2], "y": [3, 2]}],
        }
        (folder / "loss.json").write_text(json.dumps(curve), encoding="utf-8")
        assert in_process("report", hostile_run)[0] == 0
        assert ">Loss</figcaption>" in (hostile_run / "report" / "index.html").read_text(encoding="utf-8")
        (folder / "loss.json").write_text('{"title": "Loss"}', encoding="utf-8")
        code, _, errors = in_process("report", hostile_run)
        assert code == 1
        assert "loss.json: no curves" in errors
    finally:
        (folder / "loss.json").unlink()
        folder.rmdir()


def test_an_audit_from_the_sheet_to_error_rates_and_into_the_report(hostile_run: Path, tmp_path: Path) -> None:
    direct = {"question": [f"Direct question {n}?" for n in range(12)], "answer": ["=1+1", "-2", *"cdefghijkl"]}
    pq.write_table(pa.table(direct), tmp_path / "direct.parquet")
    words = ("--against", tmp_path / "direct.parquet", "--column", "instruction=question", "--pairs", "10")
    code, _, errors = in_process("audit", hostile_run, *words)
    assert code == 0, errors
    folder = hostile_run / "audit"
    with (folder / "sheet.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 20
    assert len({row["pair_id"][:2] for row in rows[:8]}) == 2  # both kinds, mixed
    assert not any(cell[:1] in "=+-@" for row in rows for cell in row.values() if cell)
    for number, row in enumerate(rows):
        row["judged"] = "x"
        row["hallucination"] = "x" if number % 5 == 0 else ""
    with (tmp_path / "filled.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    code, _, errors = in_process("audit", hostile_run, *words, "--sheet", tmp_path / "filled.csv")
    assert code == 0, errors
    quality = json.loads((folder / "quality.json").read_text(encoding="utf-8"))
    wrong = {arm: rates[0]["num_wrong"] for arm, rates in quality["rates"].items()}
    assert sum(wrong.values()) == 4
    rate = quality["rates"]["run"][0]
    assert rate["num_judged"] == 10
    assert (rate["low"], rate["high"]) == pytest.approx(wilson_interval(rate["num_wrong"], 10), abs=1e-6)
    assert [r["name"] for r in quality["rates"]["direct"]] == ["any", *FAULTS]
    assert in_process("report", hostile_run)[0] == 0
    text = (hostile_run / "report" / "report.md").read_text(encoding="utf-8")
    assert "Audit: quality" in text
    assert "prompted directly" in text


def test_the_audits_figures_belong_to_the_run(hostile_run: Path) -> None:
    assert in_process("audit", hostile_run)[0] == 0
    found = {
        name: json.loads((hostile_run / "audit" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("distribution", "diversity", "efficiency")
    }
    pairs = pq.read_table(hostile_run / "pairs").to_pylist()
    for one in found["distribution"]["comparisons"]:
        assert one["name"] in ("subject", "source of the query") or sum(
            row["generated"] for row in one["classes"]
        ) == len(pairs)
        assert 0 <= one["js_low"] <= one["js_high"] <= 1
        assert 0 <= one["js"] <= 1
    target = found["distribution"]["target_proposed"]
    assert sum(target) == pytest.approx(1, abs=0.01)
    assert len(target) == len(found["distribution"]["target_now"])
    templates = [pair["template_id"] for pair in pairs]
    growth = found["diversity"]["growth"]
    assert growth["templates"][-1] == len(set(templates))
    assert growth["documents"][-1] == len({pair["document_id"] for pair in pairs})
    assert growth["top_share"] == pytest.approx(max(map(templates.count, templates)) / len(pairs), abs=1e-6)
    assert found["diversity"]["places"]["num_pairs"] == len([pair for pair in pairs if pair["excerpts"]])
    assert found["efficiency"]["num_pairs"] == len(pairs)
    assert found["efficiency"]["worker_seconds"] > 0


def test_mistakes_are_one_line(hostile_run: Path, tmp_path: Path) -> None:
    (tmp_path / "sheet.csv").write_text("pair_id,note\np-1,x\n", encoding="utf-8")
    names = ",".join(("pair_id", *FAULTS))
    (tmp_path / "other.csv").write_text(f"{names}\np-none,x,,,\n", encoding="utf-8")
    pq.write_table(pa.table({"a": ["b"]}), tmp_path / "direct.parquet")
    cases = {
        ("audit", tmp_path / "none"): "no run here",
        ("report", tmp_path / "none"): "no run here",
        ("audit", hostile_run, "--sheet", tmp_path / "none.csv"): "cannot be read",
        ("audit", hostile_run, "--sheet", tmp_path / "sheet.csv"): "no column",
        ("audit", hostile_run, "--sheet", tmp_path / "other.csv"): "not in this audit",
        ("audit", hostile_run, "--against", tmp_path / "direct.parquet"): "no column 'instruction'",
    }
    for words, line in cases.items():
        code, _, errors = in_process(*words)
        assert (code, len(errors.strip().splitlines())) == (2, 1), errors
        assert line in errors


def test_labels_of_before_templates_were_labelled_are_read(tmp_path: Path) -> None:
    (tmp_path / "audit").mkdir()
    line = '{"pair_id":"p-1","faults":["hallucination"],"note":"made up"}'
    (tmp_path / "audit" / "labels.jsonl").write_text(line + "\n", encoding="utf-8")
    assert read_labels(tmp_path) == {"p-1": Label("p-1", ("hallucination",), "made up")}


def test_a_torn_label_is_passed_over(tmp_path: Path) -> None:
    add_labels(tmp_path, [Label("p-1", ("hallucination",))])
    with (tmp_path / "audit" / "labels.jsonl").open("a", encoding="utf-8") as handle:
        handle.write('{"record_id":"p-2","fau')
    add_labels(tmp_path, [Label("p-1", ()), Label("p-3", ("unanswerable",))])
    assert read_labels(tmp_path) == {"p-1": Label("p-1", ()), "p-3": Label("p-3", ("unanswerable",))}
    assert len(re.findall("\n", (tmp_path / "audit" / "labels.jsonl").read_text(encoding="utf-8"))) == 4
