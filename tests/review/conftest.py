"""One small real run, whose documents are full of markup, for everything that looks at runs."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pipeline_inputs import EXAMPLES, in_process, write_recipe

SCRIPT = "<script>window.hit = 1</script><img src=x onerror='window.hit = 1'> \U0001f52c & </div>\u202e\x07"


def hostile(text: str) -> str:
    """A document with a script, a picture that runs one, a wide character and controls before every paragraph."""
    return SCRIPT + text.replace("\n\n", f"\n\n{SCRIPT}\n\n") + SCRIPT


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the embedded tier; tests may write into its `audit` and `report` only."""
    folder = tmp_path_factory.mktemp("viewed")
    table = pq.read_table(EXAMPLES / "documents.parquet").slice(0, 400)
    rows = table.take(list(range(0, table.num_rows, 8))).to_pylist()
    for row in rows:
        row["text"] = hostile(row["text"])
        row["title"] = f"{row['title']} <b onclick=alert(1)>"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / "documents.parquet")
    engine = {"workers": 0, "unit_rows": 16, "query_unit_rows": 2000}
    queries = {"path": str(EXAMPLES / "queries.parquet"), "limit": 3000}
    recipe = write_recipe(folder, folder / "documents.parquet", queries=queries, engine=engine)
    code, _, errors = in_process("run", recipe, "--out", folder / "run")
    assert code == 0, errors
    return folder / "run"
