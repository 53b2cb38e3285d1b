"""What every test shares: no key or endpoint of the user's, and no skipped engine where all of them are required."""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from pipeline_inputs import EXAMPLES, in_process, write_recipe
from slurm_cluster import missing, slurm_cluster

# Machines are shared: no test may depend on speed. The same cases are tried each time, so that a change is never blamed
# for a case that another change could have met; `make search` looks for new ones.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("same")

REQUIRE_EXTRAS = "FINEINSTRUCTIONS_REQUIRE_EXTRAS"


@pytest.fixture(autouse=True)
def _no_user_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see none of the user's keys, endpoints or hub settings."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "HF_", "AWS_")):
            monkeypatch.delenv(name)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Torch computes with one thread, because sums round by how many there are; afterwards as before."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A template bank made of the first 3,000 example queries; nobody changes it."""
    folder = tmp_path_factory.mktemp("bank")
    queries = {"path": str(EXAMPLES / "queries.parquet"), "limit": 3000}
    recipe = write_recipe(folder, Path("unused.parquet"), queries=queries, engine={"workers": 0})
    code, _, errors = in_process("templates", "build", recipe, "--out", folder / "bank")
    assert code == 0, errors
    return folder / "bank"


@pytest.fixture(scope="session")
def cluster() -> Iterator[dict[str, str]]:
    """A Slurm cluster, and the environment that leads to it and lets its tasks import these tests."""
    if missing():
        pytest.skip(missing())
    tests = Path(__file__).parent
    paths = [str(tests.parent / "src"), str(tests), os.environ.get("PYTHONPATH", "")]
    with slurm_cluster() as environment:
        yield environment | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip of a test that needs an engine into a failure where every engine must be there."""
    report = yield
    if report.skipped and item.get_closest_marker("extra") and os.environ.get(REQUIRE_EXTRAS):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped although {REQUIRE_EXTRAS} is set: {report.longrepr}"
    return report
