"""Input on a hub of data sets and in a bucket, through the filesystems that the extras bring."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gs_server import serve_gs
from object_store import serve

ROWS = [{"id": f"d{number}", "text": f"text number {number}"} for number in range(300)]

READ = """
import json, sys
from pathlib import Path
from fineinstructions.readers import DocumentsConfig, read_documents, read_rows
from fineinstructions.staging import stage_documents
config = DocumentsConfig(path=sys.argv[1])
found = [d.document_id for file in stage_documents(config, Path(sys.argv[2]))
         for d in read_documents(file.path, 0, file.num_rows, config)]
streamed = [row.values["id"] for row, _, _ in read_rows(config)]
assert streamed == found
print(json.dumps(found))
"""


@pytest.mark.extra
@pytest.mark.parametrize("name", ["rows.parquet", "rows.jsonl", "*.jsonl", ""])
@pytest.mark.parametrize(
    ("package", "root"),
    [("huggingface_hub", "hf://datasets/jo/cats"), ("s3fs", "s3://cats"), ("gcsfs", "gs://bucket/cats")],
)
def test_a_remote_folder_is_read_whole(tmp_path: Path, package: str, root: str, name: str) -> None:
    """In a process of its own, because both filesystems read their settings once and keep their listings."""
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    pq.write_table(pa.Table.from_pylist(ROWS[:100]), tmp_path / "rows.parquet")
    lines = "".join(json.dumps(row) + "\n" for row in ROWS[100:]).encode()
    files = {"rows.jsonl": lines, "rows.parquet": (tmp_path / "rows.parquet").read_bytes()}
    with serve(files) as address, serve_gs({f"cats/{name}": content for name, content in files.items()}) as bucket:
        settings = {
            "STORAGE_EMULATOR_HOST": bucket.address,
            "FSSPEC_GS_TOKEN": "anon",
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_DISABLE_XET": "1",
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "word",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }
        command = [sys.executable, "-c", READ, f"{root}/{name}", str(tmp_path / "input")]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=os.environ | settings
        )
    assert done.returncode == 0, done.stderr
    ids = [row["id"] for row in ROWS]
    expected = {"rows.parquet": ids[:100], "": ids[100:] + ids[:100]}.get(name, ids[100:])
    assert json.loads(done.stdout) == expected
