"""What makes a phase stale: every file and every model that decides its bytes."""

from pathlib import Path

import pytest

from fineinstructions.config import from_mapping
from fineinstructions.errors import ConfigError
from fineinstructions.models import Models
from fineinstructions.recipe import RunConfig
from fineinstructions.setup import Setup
from fineinstructions.staleness import bank_phases, pair_phases


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    (tmp_path / "queries.txt").write_text("what is a lake\n", encoding="utf-8")
    (tmp_path / "benchmark.txt").write_text("How many legs does a spider have?\n", encoding="utf-8")
    (tmp_path / "harmful.txt").write_text("poison\n", encoding="utf-8")
    queries = {
        "path": str(tmp_path / "queries.txt"),
        "benchmarks": [{"path": str(tmp_path / "benchmark.txt")}],
        "moderation": {"word_list": str(tmp_path / "harmful.txt")},
    }
    return from_mapping({"queries": queries, "documents": {"path": "documents.txt"}}, RunConfig)


def digests(config: RunConfig, folder: Path) -> dict[str, str]:
    models = Models(Setup(config, folder))
    return {p.name: p.digest for p in (*bank_phases(config, models), *pair_phases(config, models))}


@pytest.mark.parametrize("name", ["queries.txt", "benchmark.txt", "harmful.txt"])
def test_an_edited_file_makes_the_queries_stale(tmp_path: Path, config: RunConfig, name: str) -> None:
    before = digests(config, tmp_path)
    assert digests(config, tmp_path) == before
    with (tmp_path / name).open("a", encoding="utf-8") as file:
        file.write("one line more\n")
    after = digests(config, tmp_path)
    assert {phase for phase in before if before[phase] != after[phase]} == {"queries"}


def test_a_word_list_that_is_gone_is_named(tmp_path: Path, config: RunConfig) -> None:
    (tmp_path / "harmful.txt").unlink()
    with pytest.raises(ConfigError, match=r"harmful\.txt: the word list cannot be read"):
        digests(config, tmp_path)


def test_other_rules_of_the_gate_make_the_candidates_stale(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = digests(config, tmp_path)
    monkeypatch.setattr("fineinstructions.staleness.gate_digest", lambda: "another")
    after = digests(config, tmp_path)
    assert {phase for phase in before if before[phase] != after[phase]} == {"candidates"}


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        ({"templates_per_document": 3}, {"matches"}),
        ({"hubness_damping": 0.5}, {"popularity", "matches"}),
        ({"max_sampled_share": 0.01}, {"popularity", "matches"}),
    ],
)
def test_sampling_anew_retrieves_nothing_anew(
    tmp_path: Path, config: RunConfig, change: dict[str, float], stale: set[str]
) -> None:
    before = digests(config, tmp_path)
    after = digests(config.model_copy(update={"sample": config.sample.model_copy(update=change)}), tmp_path)
    assert {phase for phase in before if before[phase] != after[phase]} == stale


def test_matches_depend_on_the_corpus_only_where_sampling_looks_at_it(tmp_path: Path, config: RunConfig) -> None:
    def upstream(config: RunConfig) -> tuple[str, ...]:
        phases = {phase.name: phase for phase in pair_phases(config, Models(Setup(config, tmp_path)))}
        return phases["matches"].upstream

    assert upstream(config) == ("candidates",)
    sampled = config.sample.model_copy(update={"hubness_damping": 1.0})
    assert upstream(config.model_copy(update={"sample": sampled})) == ("candidates", "popularity")


def test_a_server_may_move_and_a_window_change(tmp_path: Path, config: RunConfig) -> None:
    def asking(**llm: object) -> RunConfig:
        stages = {
            name: {"model": "openai", "llm": {"model": "m", **llm}} for name in ("genericize", "instantiate", "judge")
        }
        return from_mapping(config.model_dump(mode="json") | stages, RunConfig)

    before = digests(asking(base_url="http://one/v1"), tmp_path)
    assert digests(asking(base_url="http://two/v1", max_in_flight=3), tmp_path) == before
    after = digests(asking(base_url="http://one/v1", max_tokens=99), tmp_path)
    assert {phase for phase in before if before[phase] != after[phase]} == {"genericize", "pairs"}
