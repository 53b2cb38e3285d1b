"""Seeded samples of a run's pairs and rejections.

Comes in: ``RUN/pairs`` and ``RUN/rejected``. Goes out: records, in an order that depends on the seed and on the ids
alone, so the same seed shows the same rows whoever asks. Only the id columns are read before the draw is made.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fineinstructions.errors import ConfigError
from fineinstructions.records import Pair, R, Rejection, from_table
from fineinstructions.runs import RunFolder, funnel
from fineinstructions.runs.layout import Layout
from fineinstructions.runs.remote import place_of


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
    files = parts(run_dir, "pairs")
    ids = [pair_id for file in files for pair_id in _column(file, "pair_id")]
    return _rows(files, _draw(ids, count, seed), Pair)


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
        table = pq.read_table(file, columns=["stage", "reason", "record_id"]).to_pylist()
        for row in table:
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
    return _rows(files, [place for _, place in drawn], Rejection)


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


def _column(file: Path, name: str) -> list[str]:
    values: list[str] = pq.read_table(file, columns=[name]).column(name).to_pylist()
    return values


def _draw(keys: Iterable[str], count: int, seed: int) -> list[int]:
    """Positions of the `count` keys whose seeded hashes are smallest, in hash order."""
    salt = seed.to_bytes(8, "little", signed=True)
    hashes = [
        int.from_bytes(hashlib.blake2b(k.encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest())
        for k in keys
    ]
    order = np.argsort(np.array(hashes, dtype=np.uint64), kind="stable")
    return [int(i) for i in order[:count]]


def _rows(files: list[Path], positions: list[int], record_type: type[R]) -> list[R]:
    """The rows at global positions over all part files, in the order given."""
    found: dict[int, R] = {}
    start = 0
    for file in files:
        parquet = pq.ParquetFile(file)
        for group in range(parquet.num_row_groups):
            stop = start + parquet.metadata.row_group(group).num_rows
            wanted = sorted(p for p in positions if start <= p < stop)
            if wanted:
                table = parquet.read_row_group(group).take([p - start for p in wanted])
                found.update(zip(wanted, from_table(table, record_type), strict=True))
            start = stop
    return [found[p] for p in positions]
