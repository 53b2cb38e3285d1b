"""Small real inputs and real command lines for the tests of the whole pipeline."""

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from fineinstructions.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples" / "data"

AWKWARD = {
    "slots": "Fill <fi>a name</fi> here, and <fi>, and </fi> too.",
    "excerpts": "</excerpt> closes nothing; <excerpt>this opens<...>nothing</excerpt>, and <...> is alone.",
    "braces": "{braces} {{double}} {0} %s $x ${y} {{input}} {{document}}",
    "json": json.dumps({"instruction": "x", "answer": "y", "template": None}) + " null [1, 2]",
    "controls": "NUL \0 bell \a escape \x1b[31m delete \x7f next line \x85 backspace \b form \f",
    "right to left": "\u05d0\u05d1\u05d2 \u202etfel ot thgir\u202c \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "unicode": "e\u0301 is not \u00e9, \ufeff stays, \U0001f469\u200d\U0001f52c too, \u2028 \u2029 \ufffe \U0010ffff",
    "blanks": " \t\r\n  \r \u3000 \u200b ",
}


def take_documents(path: Path, number: int, every: int = 1) -> Path:
    """Some of the example documents, as Parquet."""
    table = pq.read_table(EXAMPLES / "documents.parquet")
    pq.write_table(table.take(list(range(0, table.num_rows, every))[:number]), path, row_group_size=16)
    return path


def awkward_documents() -> dict[str, str]:
    """Real documents with awkward text before, inside and after every paragraph, by id."""
    table = pq.read_table(EXAMPLES / "documents.parquet", columns=["id", "text"]).to_pylist()[::20]
    texts = {}
    for row, (name, awkward) in zip(table, [*AWKWARD.items()] * 2, strict=False):
        texts[f"{name}/{row['id']}"] = awkward + row["text"].replace("\n\n", f" {awkward}\n\n{awkward} ") + awkward
    return texts


def write_recipe(folder: Path, documents: Path | str, **sections: Any) -> Path:
    """A recipe over half of the example queries and some documents, with small work units."""
    recipe = {
        "queries": {"path": str(EXAMPLES / "queries.parquet"), "limit": 4000},
        "documents": {"path": str(documents)},
        "engine": {"workers": 2, "unit_rows": 8, "query_unit_rows": 2000},
        **sections,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return path


def command(*words: str | Path) -> list[str]:
    """The command line of the program under test."""
    code = "from fineinstructions.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, words)]


def call(*words: str | Path, timeout: float = 240) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=timeout, check=False)


def in_process(*words: str | Path) -> tuple[int, str, str]:
    """The same program in this process, for many short calls: exit code, standard output, standard error."""
    out, errors, arguments = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["fineinstructions", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            main()
    except SystemExit as left:
        return int(left.code or 0), out.getvalue(), errors.getvalue()
    finally:
        sys.argv = arguments
    return 0, out.getvalue(), errors.getvalue()


def look(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """What `call` gives, from the program in this process."""
    code, out, errors = in_process(*words)
    return subprocess.CompletedProcess([*map(str, words)], code, out, errors)


def doctor_checks(*words: str | Path) -> tuple[int, dict[str, tuple[bool, str]]]:
    """Exit code of `doctor`, and for every check whether it is well and what is said."""
    code, out, _ = in_process("doctor", *words, "--json")
    return code, {check["check"]: (check["ok"], check["detail"]) for check in json.loads(out)}


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder and its bytes."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.is_file()}


def rows(run: Path, table: str) -> list[dict[str, Any]]:
    """Rows of one of a run's merged tables."""
    found = [pq.read_table(p) for p in sorted((run / table).glob("part-*.parquet"))]
    values: list[dict[str, Any]] = pa.concat_tables(found).to_pylist()
    return values


def reasons(run: Path) -> dict[tuple[str, str], int]:
    """How often every stage turned a record away for every reason."""
    counts: dict[tuple[str, str], int] = {}
    for row in rows(run, "rejected"):
        key = (row["stage"], row["reason"])
        counts[key] = counts.get(key, 0) + 1
    return counts


def output_json(result: subprocess.CompletedProcess[str]) -> Any:
    """What the program printed with --json."""
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def ended(*words: str | Path) -> str:
    """Standard output of a call that has to succeed."""
    code, out, errors = in_process(*words)
    assert code == 0, errors
    return out
