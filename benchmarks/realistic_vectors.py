"""Unit vectors that look like a sentence encoder's, for index benchmarks of 100 thousand to 18 million vectors.

    python benchmarks/realistic_vectors.py --texts FILES_OR_FOLDERS --folder DIR [--sizes 100000 1000000]

Comes in: real texts. Goes out: any number of index vectors in numbered blocks, queries for them, and a table of
statistics beside those wanted. An index vector is a sentence, plus a share of a second and a third one, plus a mean
that all have in common. Blocks are made when they are asked for: block 7 is the same however many come before it, so
18 million vectors can be read twice without ever being stored.

The constants were fitted to the statistics in `WANTED`, which are of an earlier set made by hand, not of a trained
encoder. The same constants serve every size. Needs scipy (`pip install scipy`) to prepare, only NumPy afterwards.

Shapes: N index vectors, Q queries, D width, R rows of one block, T nearest neighbours kept.
"""

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_vectors import STEP, WIDTH, Floats, parquet_files, write_vectors

BLOCK_ROWS = 65_536
MEAN_SHARE = 0.64
"""Squared length of the common mean, as a share of the squared length of mean and sentence together."""

SECOND_SHARES = (0.15, 0.65)
THIRD_SHARE = 0.15
QUERY_SECOND_SHARES = (0.0, 0.65)
"""Shares of the second sentence in queries from unseen sentences; siblings have those of index vectors."""

HELD_OUT = 1 / 26
"""Share of the sentences that only queries use."""

THRESHOLD = 0.865
NEIGHBOURS = 100
SAMPLE_ROWS = 32_768
TILE_ROWS = 8192
CACHE_ROWS = 64
"""Rows that are mixed at a time: what is read and written stays in the processor's cache."""

WANTED: dict[int, dict[str, float]] = {
    100_000: {
        **{"NN1 p5": 0.78, "NN1 p50": 0.84, "NN1 p95": 0.93, "NN10 p50": 0.80},
        **{"hits p50": 0, "hits mean": 2.0, "hits p99": 35, "intrinsic dimension": 25},
    },
    1_000_000: {
        **{"NN1 p5": 0.81, "NN1 p50": 0.90, "NN1 p95": 0.97, "NN10 p50": 0.84},
        **{"hits p50": 2, "hits mean": 21, "hits p99": 360, "intrinsic dimension": 23},
    },
    18_000_000: {
        **{"NN1 p5": 0.84, "NN1 p50": 0.95, "NN1 p95": 0.98, "NN10 p50": 0.93},
        **{"hits p50": 36, "hits mean": 293, "hits p99": 4811},
    },
}
WANTED_ALWAYS = {
    **{"pair mean": 0.58, "pair sd": 0.07},
    **{"energy 64": 0.59, "energy 128": 0.71, "energy 256": 0.82, "energy 512": 0.92},
}


@dataclass(frozen=True)
class Base:
    """Sentence vectors, and the rule by which index vectors and queries are mixed from them."""

    sentences: NDArray[np.int8]
    """Centred sentence vectors in units of `STEP`, shape (S, D); the last `held_out` are for queries only."""

    held_out: int
    seed: int

    @property
    def indexed(self) -> int:
        """Number of sentences that index vectors are made of."""
        return len(self.sentences) - self.held_out

    def block(self, number: int, rows: int = BLOCK_ROWS) -> Floats:
        """Index vectors of one block.

        Args:
            number: Number of the block, from 0.
            rows: How many vectors of the block, from its first (R).

        Returns:
            Unit vectors of shape (R, D).
        """
        picks = np.random.default_rng([self.seed, 2, number]).integers(0, self.indexed, (rows, 3))
        shares = np.random.default_rng([self.seed, 3, number]).uniform(*SECOND_SHARES, rows)
        return self.mixed(picks, shares)

    def blocks(self, count: int, rows: int = BLOCK_ROWS) -> Iterator[Floats]:
        """The first `count` index vectors, `rows` at a time, the last block shorter."""
        for number, first in enumerate(range(0, count, rows)):
            yield self.block(number, min(rows, count - first))

    def queries(self, count: int, indexed: int = 0) -> Floats:
        """Queries: from unseen sentences in even rows, siblings of index vectors in odd ones.

        A sibling has the first sentence of an index vector, drawn from the whole base: one of them is among the first
        100 thousand vectors for 18 % of the siblings, among a million for 86 %, and 36 are among 18 million.

        Args:
            count: Number of queries (Q).
            indexed: Number of index vectors that are to be searched; every number has queries of its own.

        Returns:
            Unit vectors of shape (Q, D).
        """
        rng = np.random.default_rng([self.seed, 4, indexed])
        picks = rng.integers(0, self.indexed, (count, 3))
        shares = rng.uniform(*SECOND_SHARES, count)
        unseen = len(shares[::2])
        picks[::2, 0] = rng.integers(self.indexed, len(self.sentences), unseen)
        shares[::2] = rng.uniform(*QUERY_SECOND_SHARES, unseen)
        return self.mixed(picks, shares)

    def mean(self) -> Floats:
        """The mean that all vectors have in common, shape (D,)."""
        direction = np.random.default_rng([self.seed, 5]).standard_normal(WIDTH)
        length = (MEAN_SHARE / (1 - MEAN_SHARE)) ** 0.5
        return (direction * (length / np.linalg.norm(direction))).astype(np.float32)

    def mixed(self, picks: NDArray[np.int64], shares: NDArray[np.float64]) -> Floats:
        """Mean + first + share x second + `THIRD_SHARE` x third sentence, normalised.

        Args:
            picks: Numbers of the three sentences, shape (R, 3).
            shares: Share of the second one, shape (R,).

        Returns:
            Unit vectors of shape (R, D).
        """
        vectors = np.empty((len(picks), WIDTH), np.float32)
        part = np.empty((CACHE_ROWS, WIDTH), np.float32)
        mean = self.mean() / np.float32(STEP)
        seconds = shares.astype(np.float32)[:, None]
        for first in range(0, len(picks), CACHE_ROWS):
            rows = slice(first, first + CACHE_ROWS)
            out, one = vectors[rows], part[: len(picks[rows])]
            np.add(self.sentences[picks[rows, 0]], mean, out=out)
            np.multiply(self.sentences[picks[rows, 1]], seconds[rows], out=one)
            out += one
            np.multiply(self.sentences[picks[rows, 2]], np.float32(THIRD_SHARE), out=one)
            out += one
            out *= 1 / np.sqrt(np.einsum("ij,ij->i", out, out))[:, None]
        return vectors


def prepare(paths: list[Path], folder: Path, seed: int = 0) -> Base:
    """The base of these texts in a folder: made once, about two minutes for 20 million words, then only opened.

    Args:
        paths: Parquet files with a `text` column, or folders of them.
        folder: Where the sentence vectors are kept, up to 0.53 GB.
        seed: Seed of the base and of everything that is made from it.

    Raises:
        SystemExit: If the folder holds the base of other texts, or the texts are too few.
    """
    files = parquet_files(paths)
    texts = [[file.name, file.stat().st_size] for file in files]
    note = folder / "base.json"
    if note.exists():
        found = json.loads(note.read_text(encoding="utf-8"))
        if (found["texts"], found["seed"]) != (texts, seed):
            raise SystemExit(f"{folder} holds the base of other texts or of another seed; name another folder")
        return open_base(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count = write_vectors(files, folder / "sentences.npy", seed)
    about = {"texts": texts, "seed": seed, "sentences": count, "held_out": int(count * HELD_OUT)}
    note.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return open_base(folder)


def open_base(folder: Path) -> Base:
    """A base that was prepared before; its sentences stay in the file, mapped."""
    about = json.loads((folder / "base.json").read_text(encoding="utf-8"))
    sentences = np.asarray(np.load(folder / "sentences.npy", mmap_mode="r", allow_pickle=False))
    return Base(sentences, held_out=about["held_out"], seed=about["seed"])


def uniform(count: int, seed: int = 0) -> Floats:
    """Vectors spread evenly over the sphere, the worst case for every index, shape (N, D)."""
    vectors = np.random.default_rng([seed, 6]).standard_normal((count, WIDTH), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def statistics(blocks: Iterable[Floats], queries: Floats, threshold: float = THRESHOLD) -> dict[str, float]:
    """Exact statistics of queries against index vectors, every pair computed.

    Args:
        blocks: Index vectors, shapes (R, D); each is read once.
        queries: Unit vectors of shape (Q, D).
        threshold: Cosine from which an index vector is a hit.

    Returns:
        Percentiles over the queries of the cosine of the nearest (NN1) and tenth (NN10) neighbour and of the number
        of hits; mean and standard deviation of the cosine of random pairs of index vectors, and the share of the
        centred variance in the first principal components, both over the first rows of the first block; local
        intrinsic dimension (see `intrinsic_dimension`).
    """
    nearest = np.full((len(queries), NEIGHBOURS), -1, np.float32)
    hits = np.zeros(len(queries), np.int64)
    found: dict[str, float] = {}
    for block in blocks:
        if not found:
            found = shape(block[:SAMPLE_ROWS])
        for first in range(0, len(block), TILE_ROWS):
            cosines = queries @ block[first : first + TILE_ROWS].T
            hits += np.count_nonzero(cosines >= threshold, axis=1)
            both = np.concatenate([nearest, cosines], axis=1)
            nearest = np.partition(both, -NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
    nearest = -np.sort(-nearest, axis=1)
    ranks = {f"NN1 p{p}": float(np.percentile(nearest[:, 0], p)) for p in (5, 50, 95)}
    return {
        **ranks,
        "NN10 p50": float(np.median(nearest[:, 9])),
        "hits p50": float(np.median(hits)),
        "hits mean": float(hits.mean()),
        "hits p99": float(np.percentile(hits, 99)),
        "intrinsic dimension": intrinsic_dimension(nearest),
        **found,
    }


def shape(vectors: Floats) -> dict[str, float]:
    """Random-pair cosines (each vector with the one before it) and principal components of a sample (R, D)."""
    pairs = np.einsum("ij,ij->i", vectors, np.roll(vectors, 1, axis=0))
    centred = vectors - vectors.mean(axis=0)
    energy = np.sort(np.linalg.eigvalsh((centred.T @ centred).astype(np.float64)))[::-1]
    shares = np.cumsum(energy) / energy.sum()
    first = {f"energy {number}": float(shares[number - 1]) for number in (64, 128, 256, 512)}
    return {"pair mean": float(pairs.mean()), "pair sd": float(pairs.std()), **first}


def intrinsic_dimension(nearest: Floats) -> float:
    """Local intrinsic dimension: maximum likelihood over the T nearest neighbours, pooled over the queries.

    Args:
        nearest: Cosines of the nearest neighbours, falling, shape (Q, T).

    Source:
        Levina and Bickel 2004, pooled as MacKay and Ghahramani 2005 propose; distances are Euclidean.
    """
    distances = np.sqrt(np.maximum(2 - 2 * nearest.astype(np.float64), 1e-7))
    return float(-1 / np.mean(np.log(distances[:, :-1] / distances[:, -1:])))


def table(size: int, queries: int, found: dict[str, float]) -> list[str]:
    """Statistics beside those wanted, as lines of Markdown."""
    lines = [f"{size:,} index vectors, {queries:,} queries", "", "| statistic | wanted | found | off |"]
    lines.append("| --- | ---: | ---: | ---: |")
    wanted = {**WANTED.get(size, {}), **WANTED_ALWAYS}
    for name, value in found.items():
        digits = 1 if name.startswith(("hits", "intrinsic")) else 3
        goal = wanted.get(name)
        off = f"{value / goal - 1:+.1%}" if goal else ""
        lines.append(f"| {name} | {'' if goal is None else f'{goal:g}'} | {value:.{digits}f} | {off} |")
    return [*lines, ""]


def speed(base: Base, blocks: int = 3) -> float:
    """Index vectors made per CPU second, after one block that brings the sentences into memory."""
    base.block(0)
    began = time.process_time()
    for number in range(1, 1 + blocks):
        base.block(number)
    return blocks * BLOCK_ROWS / (time.process_time() - began)


def main() -> None:
    """Prepare a base, print how fast vectors come and what they look like."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=Path, nargs="+", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    base = prepare(arguments.texts, arguments.folder, arguments.seed)
    print(f"{base.indexed:,} sentences to index, {base.held_out:,} held out")
    print(f"{speed(base):,.0f} vectors made per CPU second\n")
    for size in arguments.sizes:
        queries = base.queries(arguments.queries, indexed=size)
        print("\n".join(table(size, len(queries), statistics(base.blocks(size), queries))), flush=True)


if __name__ == "__main__":
    main()
