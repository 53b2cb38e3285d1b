"""The rules of the house that a machine can check: floors, circles, sizes, names, docs, dependencies, start-up."""

import ast
import functools
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "fineinstructions"
PACKAGE = "fineinstructions"

VOCABULARY = {"records", "errors"}
TOOLS = {
    *(
        "cards",
        "config",
        "decontamination",
        "filters",
        "formats",
        "garbage",
        "inputs",
        "json_window",
        "judging",
        "llama_shapes",
        "markdown",
        "markup",
    ),
    *(
        "moderation",
        "pair_text",
        "parquet",
        "pii",
        "plots",
        "pooling",
        "progress",
        "readers",
        "seeded_order",
        "staging",
        "statistics",
        "svg",
        "backends",
        "embedded",
    ),
    *("engines", "runs", "stores"),
}
ROOMS = {"templates", "matches", "pairs", "corpus", "training", "silver", "review", "scores", "evaluation"}
HALLWAYS = {
    "artefacts",
    "calibration",
    "comparison",
    "corpora",
    "corpus_rows",
    "corpus_sharing",
    "corpus_writing",
    "diagnostics",
    "distill",
    "documents",
    "embedded_training",
    "embedder_scores",
    "endpoints",
    "evaluate",
    "evaluation_recipe",
    "experiment",
    "experiment_benchmarks",
    "experiment_curves",
    "experiment_recipe",
    "experiment_table",
    "forecast",
    "given_rows",
    "input_changes",
    "judge_calibration",
    "option_scores",
    "outcomes",
    "phases",
    "models",
    "pipeline",
    "pretraining",
    "recipe",
    "rows",
    "sense",
    "serving",
    "setup",
    "staleness",
    "tokenizer_training",
    "student_card",
    "student_scores",
    "students",
    "trial",
    "windows",
}
FLOORS = {1: VOCABULARY, 2: TOOLS, 3: ROOMS, 4: HALLWAYS, 5: {"cli"}}
FLOOR_1_LIBRARIES = {"numpy", "pyarrow"}
BANNED_WORDS = {"utils", "util", "common", "helpers", "helper", "manager", "processor"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
HEAVY = {"torch", "openai", "faiss", "pandas", "scipy", "sklearn", "rensa", "py3langid", "pyarrow.dataset", "httpx2"}
HEAVY |= {"ray", "transformers", "sentence_transformers", "tiktoken", "tokenizers", "datasets", "accelerate"}
HEAVY |= {"s3fs", "gcsfs", "huggingface_hub"}
IMPORT_NAMES = {"faiss-cpu": "faiss", "pyyaml": "yaml", "types-PyYAML": "yaml"}
"""Distributions whose import name differs from their own."""

MODULES = sorted(SOURCE.rglob("*.py"))
PYTHON_FILES = sorted([*MODULES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")])


def module_name(path: Path) -> str:
    """Dotted name of a source file, without the package's own name; the package itself is the empty string."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {module_name(path): path for path in MODULES}


@functools.cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def floor(module: str) -> int:
    """Floor of a module; a new module at the root of the package has to be put on one above."""
    (found,) = [number for number, names in FLOORS.items() if module.split(".")[0] in names]
    return found


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def imports(node: ast.AST, include_typing: bool = True) -> Iterator[str]:
    """Dotted names that a tree imports, at any depth; `from a import b` gives `a.b` where that is a module of ours."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child) and not include_typing:
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"relative import in line {child.lineno}"
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full.removeprefix(f"{PACKAGE}.") in NAMES else str(child.module)
        else:
            yield from imports(child, include_typing)


def own_imports(module: str, include_typing: bool = True) -> set[str]:
    found = imports(tree_of(NAMES[module]), include_typing)
    return {name.partition(".")[2] for name in found if name.split(".")[0] == PACKAGE} - {""}


def test_every_module_stands_on_one_floor() -> None:
    at_the_root = {module.split(".")[0] for module in NAMES if module}
    assert sorted(at_the_root) == sorted(name for names in FLOORS.values() for name in names)


@pytest.mark.parametrize("module", [name for name in NAMES if name])
def test_imports_go_down(module: str) -> None:
    for imported in own_imports(module):
        above, below = floor(module), floor(imported)
        same_room = module.split(".")[0] == imported.split(".")[0]
        allowed = below < above or (above == below and (same_room or above in (1, 2, 4)))
        assert allowed, f"{module} (floor {above}) imports {imported} (floor {below})"


def test_no_import_circles() -> None:
    arrows = {module: own_imports(module, include_typing=False) & set(NAMES) for module in NAMES if module}
    finished: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"import circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in finished:
            for imported in sorted(arrows[module]):
                walk(imported, (*path, module))
            finished.add(module)

    for module in sorted(arrows):
        walk(module, ())


def test_the_vocabulary_needs_only_arrow_and_numpy() -> None:
    for module in VOCABULARY:
        names = {name.split(".")[0] for name in imports(tree_of(NAMES[module]))}
        assert names <= set(sys.stdlib_module_names) | FLOOR_1_LIBRARIES | {PACKAGE}, module


def distributions() -> tuple[set[str], set[str]]:
    """Import names of the base dependencies, and those of every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def import_names(requirements: list[str]) -> set[str]:
        names = {re.split(r"[<>=\[~! ;]", r)[0] for r in requirements}
        return {IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}

    extras = [r for name, group in project["optional-dependencies"].items() if name != "dev" for r in group]
    return import_names(project["dependencies"]), import_names(extras)


def test_every_dependency_is_used_and_every_import_declared() -> None:
    base, extras = distributions()
    ours = set(sys.stdlib_module_names) | {PACKAGE}
    anywhere = {name.split(".")[0] for path in MODULES for name in imports(tree_of(path))} - ours
    assert base <= anywhere, "a base dependency that no module imports"
    assert anywhere <= base | extras, "an import that pyproject.toml does not declare"
    for path in MODULES:
        top_level = [n for n in tree_of(path).body if isinstance(n, ast.Import | ast.ImportFrom)]
        eager = {name.split(".")[0] for node in top_level for name in imports(ast.Module([node], []))} - ours
        assert eager <= base, f"{path.name} imports an extra at import time: {eager - base}"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_sizes_and_names(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_FILE_LINES
    assert not BANNED_WORDS & set(path.stem.split("_")), path
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ClassDef):
            words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", node.name)
            assert not BANNED_WORDS & {word.lower() for word in words}, f"{path.name}: {node.name}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path.name}: {node.name} has {length} lines"


@pytest.mark.parametrize("module", list(NAMES))
def test_docstrings(module: str) -> None:
    tree = tree_of(NAMES[module])
    assert ast.get_docstring(tree), f"{module or PACKAGE} has no docstring"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{module}: {node.name} has no docstring"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_a_broad_except_says_why(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    for handler in ast.walk(tree_of(path)):
        if not isinstance(handler, ast.ExceptHandler) or isinstance(handler.body[-1], ast.Raise):
            continue
        if handler.type is None or re.search(r"\b(Base)?Exception\b", ast.unparse(handler.type)):
            comment = lines[handler.lineno - 1].partition("#")[2]
            reason = re.sub(r"noqa\S*(\s*BLE001)?", "", comment).strip(" #-:,")
            assert reason, f"{path.name}:{handler.lineno} catches everything without saying why"


UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
LOADERS = {"torch.load", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "pd.read_pickle"}
"""Modules and functions that run what a file says."""


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "benchmarks").rglob("*.py"))], ids=lambda p: p.name)
def test_no_file_is_trusted_with_code(path: Path) -> None:
    """No pickle is read, NumPy arrays without objects only, and no code that comes with a model is run."""
    tree = tree_of(path)
    assert not UNPICKLERS & {name.split(".")[0] for name in imports(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called, given = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            where = f"{path.name}:{node.lineno}"
            assert called not in LOADERS, where
            if called in ("np.load", "numpy.load"):
                assert given.get("allow_pickle") == "False", f"{where}: np.load without allow_pickle=False"
            if called.startswith("AutoModel") and called.endswith(".from_pretrained") and path in MODULES:
                assert given.get("use_safetensors") == "True", f"{where}: weights may come in a pickle"
            assert given.get("trust_remote_code", "False") == "False", where
            assert given.get("allow_pickle", "False") == "False", where
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value in ("trust_remote_code", "allow_pickle"):
                    assert ast.unparse(value) == "False", f"{path.name}:{value.lineno}"


DATABASES = {"sqlite3", "dbm", "shelve", "lmdb", "bsddb3", "plyvel", "rocksdb", "diskcache", "duckdb", "tinydb"}
"""What locks or maps its files, which goes wrong on a disk that several machines share."""


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_no_database_on_a_shared_disk(path: Path) -> None:
    """Caches and journals are files that are appended to; `tests/backends/test_cache.py` tears them at every byte."""
    assert not DATABASES & {name.split(".")[0] for name in imports(tree_of(path))}


WALL_CLOCK = {
    "backends.allotments": "until when a silent server is asked, for people",
    "backends.endpoint": "a Retry-After with a date",
    "engines.slurm": "a name for a folder",
    "runs.status": "rates for people",
}
"""Who may ask what time it is, and what for; everybody else measures with a clock that is never set."""


def test_nothing_that_counts_depends_on_the_time_of_day() -> None:
    asking = re.compile(r"\btime\.time(_ns)?\(|\b(datetime|date)\.(now|utcnow|today)\(|\btime\.(local|gm)time\(")
    found = {module for module, path in NAMES.items() if asking.search(path.read_text(encoding="utf-8"))}
    assert found == set(WALL_CLOCK)


def heavy_modules_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint('\\n', *sorted(set(sys.modules) & {HEAVY!r}), sep=' ')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_import_is_light() -> None:
    assert heavy_modules_after(f"import {PACKAGE}") == set()


def test_help_is_light() -> None:
    code = f"""
from {PACKAGE}.cli import main
for arguments in (["--help"], ["run", "--help"]):
    sys.argv = ["{PACKAGE}", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, stop.code
"""
    assert heavy_modules_after(code) == set()


def test_environment_files_name_versions_only() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.+!]*", pin) for pin in pins)
    base, _ = distributions()
    pinned = {IMPORT_NAMES.get(p.split("==")[0].lower(), p.split("==")[0].lower().replace("-", "_")) for p in pins}
    assert base <= pinned, "a base dependency without a pinned version"
