"""A whole run against a server with every fault there is: healed without a trace, or set aside with its reason."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet as pq
import pytest
from pipeline_inputs import in_process, rows
from small_disk import small_disk
from strikes import recipe_of_all_phases, tables_of

import fineinstructions
from fineinstructions.backends.scripted_brain import echo
from fineinstructions.backends.scripted_server import (
    Brain,
    Fault,
    FaultPlan,
    Reply,
    ScriptedServer,
    StatusError,
    seeded_faults,
)
from fineinstructions.records import content_id

pytestmark = pytest.mark.xdist_group("server_faults")

TRANSPORT = ("rate_limit", "server_error", "unavailable", "reset", "half_body", "wrong_type", "bad_json", "no_choice")
HERE = ("--workers", "0", "--set", "llm.backoff_seconds=0.01")


def run_with(recipe: Path, run: Path, server: ScriptedServer, *words: str) -> str:
    """A run in this process that ends well or with failed records; what it says on standard error."""
    arguments = ["run", recipe, "--out", run, "--set", f"llm.base_url={server.base_url}", *HERE, *words]
    code, _, errors = in_process(*arguments)
    assert code == (1 if "records failed" in errors else 0), errors
    assert "Traceback" not in errors
    return errors


def is_probe(body: Mapping[str, Any]) -> bool:
    """Whether a request is one of those that find out what the server can do."""
    return "single word ready" in str(body["messages"])


def job_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a request asks for, as our prompts say it."""
    said = next(m["content"] for m in body["messages"] if m["role"] == "user")
    return json.loads(said) if said.startswith("{") else {}


def sparing_probes(plan: FaultPlan) -> FaultPlan:
    return lambda body, times: None if is_probe(body) else plan(body, times)


def reasons(run: Path, *, failed: bool) -> Counter[tuple[str, str]]:
    return Counter((row["stage"], row["reason"]) for row in rows(run, "rejected") if row["failed"] == failed)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return recipe_of_all_phases(tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="module")
def clean(recipe: Path) -> Path:
    """A run without any fault."""
    run = recipe.parent / "clean"
    with ScriptedServer() as server:
        run_with(recipe, run, server, "--set", "llm.max_reasks=4")
    assert fineinstructions.verify(run) == []
    assert len(rows(run, "pairs")) >= 20
    return run


@pytest.mark.slow
def test_all_faults_at_once_heal_without_a_trace(tmp_path: Path, recipe: Path, clean: Path) -> None:
    """Every kind the server knows, and limits without Retry-After, in one run: the bytes of a run without any."""
    seen: Counter[str] = Counter()

    def limiting(body: Mapping[str, Any]) -> str:
        seen[json.dumps(body)] += 1
        if len(seen) % 20 == 0 and seen[json.dumps(body)] == 1:
            raise StatusError(429, "slow down")
        return str(echo(body))

    faults = seeded_faults(dict.fromkeys(get_args(Fault), 0.03), seed=11)
    with ScriptedServer(limiting, faults=faults, retry_after="0.02") as server:
        run_with(recipe, tmp_path / "run", server, "--set", "llm.max_reasks=4", "--set", "llm.timeout_seconds=1")
        assert set(server.faults_sent) == set(get_args(Fault))
    assert tables_of(tmp_path / "run") == tables_of(clean)
    assert fineinstructions.verify(tmp_path / "run") == []


@pytest.mark.slow
def test_what_does_not_heal_is_set_aside_with_its_reason(tmp_path: Path, recipe: Path) -> None:
    """Nothing is asked again here, so every fault costs a record, which stands in the run with the reason for it."""

    def brain(body: Mapping[str, Any]) -> str | Reply:
        kinds = ("refusal", "length", "request", "too_long", "content_filter")
        luck = sum(map(ord, str(body["messages"])))
        kind = kinds[luck // 9 % len(kinds)] if luck % 9 == 0 and not is_probe(body) else ""
        if kind == "request":
            raise StatusError(400, "this request is not to my taste")
        if kind == "too_long":
            raise StatusError(400, "the prompt is longer than the context length")
        if kind == "refusal":
            return Reply(None, refusal="no")
        return Reply(str(echo(body)), finish_reason=kind or "stop")

    shares: dict[Fault, float] = {**dict.fromkeys(TRANSPORT, 0.02), "garbage": 0.1}
    faults = sparing_probes(seeded_faults(shares, seed=2))
    nothing_again = ["--set", "llm.max_reasks=0", "--set", "llm.max_retries=0"]
    run = tmp_path / "run"
    with ScriptedServer(brain, faults=faults) as server:
        errors = run_with(recipe, run, server, *nothing_again)
        sent = Counter(server.faults_sent)
    assert fineinstructions.verify(run) == []
    failures, rejections = reasons(run, failed=True), reasons(run, failed=False)
    lost = sum(failures.values())
    assert {reason for _, reason in failures} == {"transport", "request"}
    assert sum(n for (_, reason), n in failures.items() if reason == "transport") == sum(sent[f] for f in TRANSPORT)
    unreadable = sum(n for (_, reason), n in rejections.items() if reason in ("format", "unparseable"))
    assert unreadable == sent["garbage"] > 5
    assert {"refusal", "length", "too_long"} <= {reason for _, reason in rejections}
    assert f"{lost} records failed; run again with --retry-failed" in errors
    with ScriptedServer() as server:
        run_with(recipe, run, server, "--retry-failed", *nothing_again)
        assert server.requests["/v1/chat/completions"] >= lost
    assert reasons(run, failed=True) == Counter()
    assert fineinstructions.verify(run) == []


def test_answers_for_other_prompts_never_become_pairs_of_another_document(tmp_path: Path, recipe: Path) -> None:
    """A server that mixes its answers up: what quotes another document is turned away, however alike it looks."""
    swapped: set[tuple[str, str]] = set()
    first: list[Mapping[str, Any]] = []

    def brain(body: Mapping[str, Any]) -> str:
        job = job_of(body)
        if "document" not in job:
            return str(echo(body))
        first.append(body)
        other = job_of(first[0])
        if other["document"] == job["document"] or len(first) % 4:
            return str(echo(body))
        swapped.add((job["document"], job["instruction_template"]))
        return str(echo(first[0]))

    run = tmp_path / "run"
    with ScriptedServer(brain) as server:
        run_with(recipe, run, server, "--set", "llm.max_reasks=4")
    assert len(swapped) > 5
    assert fineinstructions.verify(run) == []
    documents = {row["id"]: row["text"] for row in pq.read_table(recipe.parent / "documents.parquet").to_pylist()}
    templates = {row["template_id"]: row["template"] for row in rows(run, "templates")}
    made = {(documents[pair["document_id"]], templates[pair["template_id"]]) for pair in rows(run, "pairs")}
    assert made
    assert not made & swapped
    ids = {text: name for name, text in [*documents.items(), *templates.items()]}
    turned_away = {row["record_id"] for row in rows(run, "rejected") if row["stage"] in ("instantiate", "excerpts")}
    assert {content_id("p", ids[document], ids[template]) for document, template in swapped} <= turned_away


@pytest.mark.parametrize(("named", "is_told"), [("another-7b", True), ("org/scripted-2026-11-01", False)])
def test_a_server_that_answers_with_another_model_is_told(
    tmp_path: Path, recipe: Path, named: str, is_told: bool
) -> None:
    brain: Brain = lambda body: Reply(str(echo(body)), model=named)  # noqa: E731
    words = ["--set", "queries.limit=10", "--set", "documents.limit=2"]
    with ScriptedServer(brain) as server:
        errors = run_with(recipe, tmp_path / "run", server, *words)
    line = f"genericize: {server.base_url} was asked for 'scripted' and answers as 'another-7b'"
    assert (line in errors) == is_told
    assert (" answers as " in errors) == is_told


@pytest.mark.slow
def test_a_disk_that_fills_up_with_replies(tmp_path: Path, recipe: Path, clean: Path) -> None:
    """Early and late in a run: with tables, replies, units or published parts."""
    with small_disk(tmp_path / "run", 100_000) as disk, ScriptedServer() as server:
        words = ["--set", "llm.max_reasks=4"]
        run_with(recipe, disk.root, server, *words)
        used, said = disk.used_kib(), set()
        for tenth in (3, 6, 9):
            disk.empty()
            disk.resize(used * tenth // 10)
            arguments = ["run", recipe, "--out", disk.root, "--set", f"llm.base_url={server.base_url}", *HERE, *words]
            code, out, errors = in_process(*arguments)
            assert (code in (1, 2), out) == (True, ""), errors
            (trouble,) = [line for line in errors.splitlines() if line.startswith("fineinstructions: ")]
            assert trouble.startswith(f"fineinstructions: {disk.root}")
            said.add(trouble)
            disk.resize(100_000)
            run_with(recipe, disk.root, server, *words)
            assert tables_of(disk.root) == tables_of(clean)
            assert fineinstructions.verify(disk.root) == []
    assert any("no space left on the disk; make room and run again" in line for line in said)
