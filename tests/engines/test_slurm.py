"""The Slurm engine on a real cluster of one node: the bytes of the local engine, whatever dies, and nothing lost."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy_run
from pipeline_inputs import in_process, take_documents, write_recipe
from slurm_cluster import slurm, wait_for
from slurm_runs import finish, jobs, num_committed, start_driver, tasks_of, toy_on
from toy_run import Toy, check, content, documents, expected, run_toy

from fineinstructions.engines.journal import JournalReader, JournalWriter
from fineinstructions.engines.slurm import SlurmEngine
from fineinstructions.engines.slurm_config import SlurmConfig
from fineinstructions.engines.slurm_task import function_named, name_of
from fineinstructions.engines.worker import Report
from fineinstructions.errors import BackendError, ConfigError
from fineinstructions.runs import RunFolder, UnitSpec, funnel, status

pytestmark = pytest.mark.xdist_group("slurm")


@pytest.fixture
def toy(cluster: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    return toy_on(cluster, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("slurm_keys", [{}, {"workers_per_task": 2}])
def test_the_same_bytes_as_on_one_machine(toy: Toy, tmp_path: Path, slurm_keys: dict[str, int]) -> None:
    outcomes = run_toy(replace(toy, slurm=slurm_keys, open_units=2))
    assert [(o.num_done, o.set_aside, o.num_deaths) for o in outcomes] == [(12, [], 0), (12, [], 0)]
    assert content(toy.out) == expected(toy, tmp_path)
    assert check(toy.out) == []
    assert not (Path(toy.out) / "slurm").exists()
    assert [p.name for p in (Path(toy.out) / "logs").glob("slurm/*")] == [], "tasks had nothing to say"


@pytest.mark.slow
def test_who_could_use_gpus_and_asks_for_none_is_told(toy: Toy) -> None:
    said: list[str] = []
    run_toy(replace(toy, could_use_gpu=True), note=said.append)
    lines = [
        f"engine.resources.{phase}: says nothing of GPUs, so its tasks ask Slurm" for phase in ("matches", "pairs")
    ]
    assert [line[: len(start)] for line, start in zip(said, lines, strict=True)] == lines
    said.clear()
    asked = replace(toy, could_use_gpu=True, out=f"{toy.out}-asked", slurm={"options": ["--gpus=0"]})
    run_toy(asked, note=said.append)
    run_toy(replace(toy, out=f"{toy.out}-none"), note=said.append)
    assert said == []


@pytest.mark.slow
def test_arrays_larger_than_allowed_are_split(toy: Toy, tmp_path: Path, cluster: dict[str, str]) -> None:
    run_toy(replace(toy, slurm={"units_per_task": 1}))
    arrays = {job["ArrayJobId"]: job for job in jobs(cluster, toy) if job["Comment"] == "matches"}
    assert len(arrays) == 3, "twelve tasks, four to an array"
    assert content(toy.out) == expected(toy, tmp_path)


@pytest.mark.slow
def test_a_killed_task_loses_nothing(toy: Toy, tmp_path: Path) -> None:
    toy = replace(toy, seconds=0.05, open_units=2)
    driver = start_driver(toy)
    for number in (2, 14):
        wait_for(lambda least=number: num_committed(toy) >= least or driver.poll() is not None)  # type: ignore[misc]
        for pid in tasks_of(toy)[:1]:
            os.kill(pid, signal.SIGKILL)
    assert finish(driver) == (0, "")
    assert content(toy.out) == expected(toy, tmp_path)
    assert check(toy.out) == []


@pytest.mark.slow
def test_a_unit_that_kills_its_worker_or_its_task_is_set_aside_alone(toy: Toy, tmp_path: Path) -> None:
    toy = replace(toy, inputs=(documents(tmp_path, {26: "KILL", 31: "TASK"}),), open_units=2)
    matches, pairs = run_toy(toy)
    assert sorted((a.spec.row_start, a.reason) for a in matches.set_aside) == [(25, "worker_died"), (30, "worker_died")]
    assert (matches.num_done, pairs.num_done, pairs.set_aside) == (10, 12, [])
    assert "its Slurm task, 3 times; 5 rows counted as failed" in " ".join(a.detail for a in matches.set_aside)
    failed = {line.stage: line.account.failed for line in funnel(RunFolder.open(toy.out)) if line.account.failed}
    assert failed == {"read": {"worker_died": 10}}
    assert check(toy.out) == []


@pytest.mark.slow
def test_a_task_back_in_the_queue_goes_on_and_no_unit_is_blamed(
    toy: Toy, tmp_path: Path, cluster: dict[str, str]
) -> None:
    """What Slurm does when a job has to make room for another; and a warning that the time is nearly up."""
    toy = replace(toy, seconds=0.1)
    driver = start_driver(toy)
    wait_for(lambda: num_committed(toy) >= 1)
    running = [job["JobId"] for job in jobs(cluster, toy) if job["JobState"] == "RUNNING"]
    slurm(cluster, "scontrol", "requeue", running[0])
    slurm(cluster, "scancel", "--batch", "--signal=USR1", running[1])
    wait_for(lambda: any(j["JobId"] == running[0] and j["JobState"] == "PENDING" for j in jobs(cluster, toy)))
    slurm(cluster, "scontrol", "update", f"jobid={running[0]}", "StartTime=now")
    assert finish(driver) == (0, "")
    assert any(job["Restarts"] == "1" for job in jobs(cluster, toy))
    assert content(toy.out) == expected(toy, tmp_path)
    assert list(Path(toy.out).glob("logs/*.log")) == [], "no unit was given up"


@pytest.mark.slow
def test_begun_on_slurm_and_finished_elsewhere(toy: Toy, tmp_path: Path, cluster: dict[str, str]) -> None:
    """The driver is killed, its tasks live on; the next run ends them, or bars them from the folder."""
    toy = replace(toy, seconds=0.1)
    driver = start_driver(toy)
    wait_for(lambda: num_committed(toy) >= 2)
    driver.kill()
    finish(driver)
    assert tasks_of(toy)
    again = start_driver(replace(toy, workers=1))
    before = num_committed(toy)
    wait_for(lambda: num_committed(toy) >= before + 3)
    again.kill()
    finish(again)
    run_toy(replace(toy, engine="local", workers=3, seconds=0.0))
    assert content(toy.out) == expected(toy, tmp_path)
    wait_for(lambda: not tasks_of(toy))
    assert content(toy.out) == expected(replace(toy), tmp_path), "its tasks have changed nothing since"
    assert not list(Path(toy.out).glob("units/*/tmp-*"))


@pytest.mark.slow
def test_ctrl_c_ends_the_jobs_and_status_works_while_they_run(
    toy: Toy, tmp_path: Path, cluster: dict[str, str]
) -> None:
    driver = start_driver(replace(toy, seconds=0.2))
    wait_for(lambda: num_committed(toy) >= 1)
    state = status(RunFolder.open(toy.out))
    assert state.holder.startswith(f"process {driver.pid} on ")
    assert state.phases[0].num_units == 12
    assert 1 <= state.phases[0].num_done < 12
    driver.send_signal(signal.SIGINT)
    assert finish(driver) == (1, "interrupted\n")
    assert slurm(cluster, "squeue", "--noheader") == ""
    assert tasks_of(toy) == []
    run_toy(toy)
    assert content(toy.out) == expected(toy, tmp_path)


@pytest.mark.slow
def test_trouble_is_one_line(toy: Toy, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"engine\.slurm: the job was refused \(.*[Ii]nvalid partition"):
        run_toy(replace(toy, slurm={"partition": "nowhere"}))
    nothing = tmp_path / "nothing.sh"
    nothing.write_text("#!/bin/bash\nexit 1\n")
    with pytest.raises(BackendError, match=r"3 Slurm tasks ended without a sign of life \(do the nodes see"):
        run_toy(replace(toy, slurm={"template": str(nothing)}))
    with pytest.raises(ConfigError, match=r"^config trouble$"):
        run_toy(replace(toy, inputs=(documents(tmp_path, {52: "CONFIG"}),), redo=True))
    with pytest.raises(ConfigError, match=r"a worker is to have 2 GPUs, but this machine shows 0"):
        run_toy(replace(toy, redo=True, gpus=2, slurm={"template": no_gres(tmp_path), "options": ["--gres=none"]}))


def no_gres(folder: Path) -> str:
    script = folder / "no-gpus.sh"
    script.write_text('#!/bin/bash\nexport CUDA_VISIBLE_DEVICES=\nexec "$@"\n')
    return str(script)


@pytest.mark.slow
def test_a_task_that_will_not_start_is_told(toy: Toy, cluster: dict[str, str]) -> None:
    driver = start_driver(replace(toy, slurm={"time_minutes": 600}))
    wait_for(lambda: "PartitionTimeLimit" in slurm(cluster, "squeue", "--noheader", "--format=%r"))
    time.sleep(1)
    driver.send_signal(signal.SIGINT)
    said, _ = driver.communicate(timeout=60)
    assert "Slurm tasks of phase 'matches' wait, says Slurm: PartitionTimeLimit (job fineinstructions-" in said
    assert said.count("PartitionTimeLimit") == 1


# ---------------------------------------------------------------------------------------------------------------------
# Without a cluster


def test_a_slurm_run_says_how_many_workers_and_where_slurm_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"^engine\.workers: missing; say how many"):
        SlurmEngine(run, None, SlurmConfig(), print)
    with pytest.raises(ConfigError, match=r"^engine\.slurm\.template: nowhere\.sh: no such file$"):
        SlurmEngine(run, 2, SlurmConfig(template="nowhere.sh"), print)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^engine\.kind: slurm, but there is no sbatch here"):
        SlurmEngine(run, 2, SlurmConfig(), print)


@pytest.mark.slow
def test_a_forecast_submits_nothing(bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    recipe = write_recipe(
        tmp_path, take_documents(tmp_path / "d.parquet", 8), queries=None, templates={"bank": str(bank)}
    )
    code, said, errors = in_process("run", recipe, "--out", tmp_path / "run", "--engine", "slurm", "--dry-run")
    assert (code, errors.count("sbatch")) == (0, 0), errors
    assert said


def test_a_journal_tells_what_was_open_when_its_task_died(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    reader = JournalReader(path)
    assert list(reader.news()) == []
    first, second = (UnitSpec(ordinal=i, unit_id=f"u{i}") for i in range(2))
    with JournalWriter(path) as journal:
        journal.opened(first)
        journal.opened(second)
        journal.report(Report(0, "done", seconds=1.5))
    assert list(reader.news()) == [Report(0, "done", seconds=1.5)]
    assert (reader.open, reader.has_left) == ({1}, False)
    with path.open("a") as file:
        file.write('{"event": "opened", "un')  # torn by a kill
    assert list(reader.news()) == []
    with JournalWriter(path) as journal:
        journal.left("ended by Slurm")
    assert list(reader.news()) == []
    assert (reader.open, reader.has_left) == (set(), True)


def test_functions_go_by_their_names() -> None:
    assert function_named(name_of(toy_run.find_matches)) is toy_run.find_matches
