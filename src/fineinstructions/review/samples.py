"""Seeded samples of a run's pairs and rejections.

Comes in: ``RUN/pairs`` and ``RUN/rejected``. Goes out: records, in an order that depends on the seed and on the ids
alone, so the same seed shows the same rows whoever asks. Only the id columns are read before the draw is made.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError
from fineinstructions.records import Pair, R, Rejection, from_table, schema_of
from fineinstructions.review.rows import Rows
from fineinstructions.runs import RunFolder, funnel
from fineinstructions.runs.layout import Layout
from fineinstructions.runs.remote import place_of

_DRAWN_AT_ONCE = 1 << 20


def parts(run_dir: Path, name: str) -> list[Path]:
    """Part files of one of a run's outputs, in plan order.

    Raises:
        ConfigError: If the run has not written that output yet.
    """
    if not (run_dir / "plan").is_dir():
        raise ConfigError(f"{place_of(run_dir)}: no run here; give the folder that was named by --out")
    found = sorted(Layout(run_dir).fetched_table(name).glob("part-*.parquet"))
    if not found:
        raise ConfigError(f"{place_of(run_dir)}: no {name} yet; finish the run first with 'fineinstructions run'")
    return found


def draw_pairs(run_dir: Path, count: int, seed: int) -> list[Pair]:
    """A seeded sample of kept pairs.

    Args:
        run_dir: A run folder with merged pairs.
        count: How many; all of them if there are fewer.
        seed: Decides which.

    Returns:
        Pairs in the order of the draw.

    Raises:
        ConfigError: If the run has no pairs yet.
    """
    rows = Rows(parts(run_dir, "pairs"))
    return records_at(rows, drawn_places(rows, "pair_id", count, seed), Pair)


def drawn_places(rows: Rows, id_column: str, count: int, seed: int) -> list[int]:
    """Which rows a seeded sample consists of: those whose ids have the smallest seeded hashes.

    Args:
        rows: A table of a run.
        id_column: Column of ids.
        count: How many; all of them if there are fewer.
        seed: Decides which.

    Returns:
        Row numbers in the order of the draw.
    """
    ids = rows.fingerprints(id_column)
    salt = np.uint64(int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest()))
    places, keys = np.empty(0, np.int64), np.empty(0, np.uint64)
    for start in range(0, len(ids), _DRAWN_AT_ONCE):
        some = _mixed(ids[start : start + _DRAWN_AT_ONCE] ^ salt)
        keys = np.concatenate([keys, some])
        places = np.concatenate([places, np.arange(start, start + len(some))])
        first = np.argsort(keys, kind="stable")[: max(0, count)]
        keys, places = keys[first], places[first]
    found: list[int] = places.tolist()
    return found


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers whose bits all depend on all bits of the given ones; different ones stay different.

    Source:
        The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def records_at(rows: Rows, places: Sequence[int], record_type: type[R]) -> list[R]:
    """Records by their row numbers, in that order."""
    schema = schema_of(record_type)
    return list(from_table(pa.Table.from_pylist(rows.take(places, schema.names), schema=schema), record_type))


def draw_rejections(run_dir: Path, count: int, seed: int, stage: str = "", reason: str = "") -> list[Rejection]:
    """A seeded sample of rejections, of one stage or reason if asked; every reason once before any comes twice.

    Args:
        run_dir: A run folder with merged outputs.
        count: How many; all of them if there are fewer.
        seed: Decides which.
        stage: Only rejections of this stage.
        reason: Only rejections with this reason.

    Returns:
        Rejections in the order of the draw.

    Raises:
        ConfigError: If the run has not been merged yet, or has no such stage.
    """
    files = parts(run_dir, "rejected")
    _require_stage(run_dir, stage)
    keys: list[str] = []
    groups: list[tuple[str, str]] = []
    kept: list[int] = []
    position = 0
    for file in files:
        table = pq.ParquetFile(file).read(["stage", "reason", "record_id"])
        for row in table.to_pylist():
            if row["stage"] == (stage or row["stage"]) and row["reason"] == (reason or row["reason"]):
                keys.append(f"{row['stage']}/{row['reason']}/{row['record_id']}/{position}")
                groups.append((row["stage"], row["reason"]))
                kept.append(position)
            position += 1
    met: Counter[tuple[str, str]] = Counter()
    rounds: list[tuple[int, int]] = []
    for i in _draw(keys, len(keys), seed):
        rounds.append((met[groups[i]], kept[i]))
        met[groups[i]] += 1
    drawn = sorted(rounds, key=lambda item: item[0])[:count]  # a stable sort: hash order within a round
    return records_at(Rows(files), [place for _, place in drawn], Rejection)


def _require_stage(run_dir: Path, stage: str) -> None:
    """Refuse a stage that this run has not."""
    known = list(dict.fromkeys(figures.stage for figures in funnel(RunFolder.open(run_dir))))
    if stage and stage not in known:
        raise ConfigError(f"--stage {stage}: no such stage in this run; it has {', '.join(known)}")


def find_pair(run_dir: Path, pair_id: str) -> Pair:
    """One pair by its id.

    Raises:
        ConfigError: If the run holds no such pair.
    """
    for file in parts(run_dir, "pairs"):
        for batch in pq.ParquetFile(file).iter_batches(batch_size=4096):
            found = batch.filter(pc.equal(batch["pair_id"], pair_id))
            if found.num_rows:
                return next(from_table(pa.Table.from_batches([found]), Pair))
    raise ConfigError(f"{place_of(run_dir)}: no kept pair {pair_id!r}; 'fineinstructions inspect' lists some ids")


def _draw(keys: Iterable[str], count: int, seed: int) -> list[int]:
    """Positions of the `count` keys whose seeded hashes are smallest, in hash order."""
    salt = seed.to_bytes(8, "little", signed=True)
    hashes = [
        int.from_bytes(hashlib.blake2b(k.encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest())
        for k in keys
    ]
    order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
    return [int(i) for i in order[:count]]
