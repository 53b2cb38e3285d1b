"""One recipe on every engine: the same bytes, also where a run is begun on one and finished on another.

In the group of the Ray tests, which look at every process of Ray on the machine.
"""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline_inputs import call, command, content, rows, take_documents, write_recipe
from slurm_cluster import missing, slurm_cluster

TABLES = ("pairs", "matches", "rejected")
SOURCE = Path(__file__).parent.parent.parent / "src"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(bank: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("everywhere")
    documents = take_documents(folder / "documents.parquet", 20, every=20)
    resources = {"candidates": {"memory": "500MB"}, "pairs": {"cpus": 1}}
    return write_recipe(
        folder,
        documents,
        queries=None,
        templates={"bank": str(bank)},
        engine={"workers": 2, "unit_rows": 5, "resources": resources, "slurm": {"poll_seconds": 0.2}},
    )


@pytest.fixture(scope="module")
def at_home(recipe: Path) -> dict[str, dict[str, bytes]]:
    """What the run gives on this machine."""
    done = call("run", recipe, "--out", recipe.parent / "local")
    assert done.returncode == 0, done.stderr
    assert all(rows(recipe.parent / "local", table) for table in TABLES), "tables without rows are alike on any engine"
    return {table: content(recipe.parent / "local" / table) for table in TABLES}


@pytest.fixture(scope="module")
def engines() -> Iterator[None]:
    """Ray, and a Slurm cluster on loopback."""
    pytest.importorskip("ray", reason="Ray is not installed (extra [ray])")
    if missing():
        pytest.skip(missing())
    with pytest.MonkeyPatch.context() as monkeypatch, slurm_cluster() as environment:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(SOURCE), os.environ.get("PYTHONPATH", "")])))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield


def start(engine: str, recipe: Path, run: Path, workers: int, until: int) -> None:
    """Begin a run, and kill its driver when some units are done."""
    words = ("run", recipe, "--out", run, "--engine", engine, "--workers", str(workers))
    driver = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 240
    while len(list(run.glob("units/*/*/manifest.json"))) < until and driver.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert driver.poll() is None, driver.communicate()[1]
    driver.kill()
    driver.communicate()


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("engines")
def test_the_same_pairs_from_every_engine(recipe: Path, at_home: dict[str, dict[str, bytes]]) -> None:
    for engine in ("ray", "slurm"):
        run = recipe.parent / engine
        done = call("run", recipe, "--out", run, "--engine", engine, timeout=600)
        assert done.returncode == 0, done.stderr
        assert {table: content(run / table) for table in TABLES} == at_home
        assert call("verify", run).returncode == 0
        again = call("run", recipe, "--out", run)
        assert "nothing to do" in again.stdout, "nor is anything stale to another engine"


@pytest.mark.xdist_group("ray")
@pytest.mark.usefixtures("engines")
def test_begun_on_one_engine_and_finished_on_others(recipe: Path, at_home: dict[str, dict[str, bytes]]) -> None:
    run = recipe.parent / "mixed"
    start("slurm", recipe, run, workers=3, until=3)
    start("ray", recipe, run, workers=1, until=7)
    done = call("run", recipe, "--out", run, "--engine", "local", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert {table: content(run / table) for table in TABLES} == at_home
    assert call("verify", run).returncode == 0
