"""Coverage-guided search for inputs that break a promise; needs `atheris`, which no other part of the package does.

Run it with ``python tests/fuzz/explore.py TARGET FOLDER SECONDS``: inputs that are of interest gather in FOLDER, where
one that breaks something is named ``crash-...``. Such an input belongs into ``tests/fuzz/corpus/TARGET``.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["fineinstructions", "json", "yaml", "csv"]):
    from targets import TARGETS


def main() -> None:
    """Search from the kept inputs of a target, for some seconds."""
    name, folder, seconds = sys.argv[1:]
    Path(folder).mkdir(parents=True, exist_ok=True)
    kept = Path(__file__).parent / "corpus" / name
    words = f"-dict={Path(__file__).with_name('words.dict')}"
    options = [words, f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=2048", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *options, "-max_len=20000", folder, str(kept)], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
