"""Coverage-guided search for inputs that break a promise of `tests/fuzz_targets.py`.

Needs `atheris`, which nothing else does: ``pip install atheris`` into an environment that has this package. Run it with
``python benchmarks/fuzz.py TARGET FOLDER SECONDS``: inputs that are of interest gather in FOLDER, and one that breaks
something is named ``crash-...`` there; it belongs into ``tests/fuzz/corpus/TARGET``.
"""

import sys
from pathlib import Path

import atheris

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

with atheris.instrument_imports(include=["fineinstructions", "json", "yaml", "csv"]):
    from fuzz_targets import TARGETS


def main() -> None:
    """Search from the kept inputs of a target, for some seconds."""
    name, folder, seconds = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    words = f"-dict={Path(__file__).with_suffix('.dict')}"
    options = [words, f"-max_total_time={seconds}", "-timeout=30", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/"]
    kept = str(TESTS / "fuzz" / "corpus" / name)
    atheris.Setup([sys.argv[0], *options, "-max_len=20000", folder, kept], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
