"""The template index at size: recall, speed, bytes and build time, beside FAISS's exact search in the same run.

    python benchmarks/bench_index.py --base FOLDER --size 1000000 --queries 24000 --out benchmarks/results/NAME.md

The vectors are those of `realistic_vectors` (prepare FOLDER with it first), or uniform on the sphere with --uniform, or
with --real-queries Q.parquet --documents D.parquet the descriptions that the embedded genericizer gives real queries,
searched with the K + 1 vectors of real documents (both by the encoder that ships).
Rates are queries per processor second of one thread, the two searches taking turns, medians of the turns; `IndexFlatIP`
runs over 100,000 of the vectors and is scaled to all of them, which its cost per vector allows. Recall is measured with
queries that are not indexed, against an exact search over every vector, made while the vectors go by. What the source
spends on making vectors and on that search is not counted as building. With --work the folder is kept, and a second
call searches the index that is there, so that its memory is that of searching alone.

Shapes: N vectors, Q queries, D width.
"""

import argparse
import datetime
import json
import math
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from realistic_vectors import BLOCK_ROWS, open_base, uniform

from fineinstructions.backends.vector_index import Settings, VectorIndex, build_vectors, open_vectors
from fineinstructions.backends.vector_index.truth import KEPT, Truth, merged, nearest
from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.embedded.genericizer import EmbeddedGenericizer
from fineinstructions.pooling import Pooling
from fineinstructions.records import Query, TemplateDraft
from fineinstructions.templates.genericize import GenericizeConfig, genericize

THRESHOLD = 0.865
FLAT_ROWS = 100_000
FLAT_QUERIES = 500
TOP = 50

Blocks = Callable[[int, int], NDArray[np.float32]]
"""Number of a block and how many of its rows, to vectors."""


class Source:
    """Vectors made block by block; knows how long that took, and what an exact search finds in the blocks gone by."""

    def __init__(self, blocks: Blocks, count: int, queries: NDArray[np.float32]) -> None:
        self.count, self.dimension = count, queries.shape[1]
        self.cpu_seconds = 0.0
        self._blocks, self._queries = blocks, queries
        self._held = (-1, queries[:0])
        self._near: dict[int, tuple[NDArray[np.int64], NDArray[np.float32]]] = {}

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows of the blocks they lie in."""
        began = time.process_time()
        pieces = []
        for number in range(start // BLOCK_ROWS, (stop - 1) // BLOCK_ROWS + 1):
            if self._held[0] != number:
                self._held = (number, self._blocks(number, BLOCK_ROWS))
            first = number * BLOCK_ROWS
            pieces.append(self._held[1][max(start - first, 0) : stop - first])
        rows = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        if start % BLOCK_ROWS == 0 and stop == min(start + BLOCK_ROWS, self.count):
            self._near[start] = nearest(self._queries, rows, start)
        self.cpu_seconds += time.process_time() - began
        return rows

    def truth(self) -> Truth:
        """What an exact search finds in all vectors; each must have been read, in whole blocks."""
        if len(self._near) < math.ceil(self.count / BLOCK_ROWS):
            raise SystemExit("a build that was stopped went on, so the truth is not whole; remove the folder of --work")
        return merged(self._queries, list(self._near.values()), THRESHOLD)


def turns(repeats: int, *searches: Callable[[], int]) -> list[list[float]]:
    """Queries per processor second of several searches that take turns; each returns its number of queries."""
    rates: list[list[float]] = [[] for _ in searches]
    for _ in range(repeats):
        for found, search in zip(rates, searches, strict=True):
            began = time.process_time()
            number = search()
            found.append(number / (time.process_time() - began))
    return rates


def recall(index: VectorIndex, truth: Truth) -> dict[str, Any]:
    """Recall of the ten nearest and of what lies above the threshold (50 nearest of each query)."""
    lowest = float(truth.cosines[:, 9].min()) - 0.005
    near = index.search(truth.queries, min(lowest, THRESHOLD), KEPT)
    above = index.search(truth.queries, THRESHOLD, 10 * KEPT)
    at_10 = [np.isin(rows[:10], n.ids).mean() for rows, n in zip(truth.rows, near, strict=True)]
    wanted = hits = 0
    for rows, cosines, n in zip(truth.rows, truth.cosines, above, strict=True):
        over = rows[:TOP][cosines[:TOP] >= THRESHOLD]
        wanted, hits = wanted + len(over), hits + int(np.isin(over, n.ids).sum())
    return {
        "R@10": f"{np.mean(at_10):.4f}",
        f"recall above {THRESHOLD}": f"{hits / wanted:.4f} of {wanted:,}" if wanted else "none there",
        "exact neighbours above, per query (at most 50)": f"{wanted / len(truth.queries):.1f}",
    }


def build(arguments: argparse.Namespace, blocks: Blocks, queries: NDArray[np.float32], folder: Path) -> None:
    """Build the index, and keep beside it what that took and what an exact search finds."""
    source = Source(blocks, arguments.size, queries[: arguments.recall_queries])
    began, wall = time.process_time(), time.monotonic()
    settings = Settings(
        nlist=arguments.nlist,
        head_dims=arguments.head_dims,
        keeps_vectors=False,
        min_cosine=THRESHOLD,
        online=arguments.online,
        threads=arguments.threads,
    )
    build_vectors(source, folder / "index", "benchmark", kind="ivf", settings=settings)
    facts = {
        "build, CPU seconds": f"{time.process_time() - began - source.cpu_seconds:.0f}",
        "build, wall seconds with the making of vectors": f"{time.monotonic() - wall:.0f}",
        "build, peak RSS, MB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}",
    }
    truth = source.truth()
    np.savez(folder / "truth.npz", rows=truth.rows, cosines=truth.cosines, flat=blocks(0, FLAT_ROWS))
    (folder / "build.json").write_text(json.dumps({"of": decides(arguments), **facts}), encoding="utf-8")


def decides(arguments: argparse.Namespace) -> list[str]:
    """What an index was built of."""
    names = ("base", "uniform", "real_queries", "size", "nlist", "head_dims", "online")
    return [f"{name}: {getattr(arguments, name)}" for name in names]


def descriptions(path: Path) -> list[str]:
    """The distinct descriptions of the documents that queries ask for, as the embedded tier writes them."""
    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    queries = [Query(str(number), text) for number, text in enumerate(texts)]
    drafts = genericize(queries, EmbeddedGenericizer(), GenericizeConfig())
    return list(dict.fromkeys(d.compatible_document_description for d in drafts if isinstance(d, TemplateDraft)))


def made(arguments: argparse.Namespace) -> tuple[str, Blocks, NDArray[np.float32]]:
    """What the vectors are, a maker of blocks, and the queries."""
    if arguments.uniform:
        return "uniform on the sphere", lambda n, rows: uniform(BLOCK_ROWS, n)[:rows], uniform(arguments.queries, 10**6)
    if arguments.real_queries:
        encoder = EmbeddedEncoder()
        vectors = encoder.encode_texts(descriptions(arguments.real_queries))
        vectors = vectors[np.any(vectors != 0, axis=1)]
        arguments.size = len(vectors)
        documents = pq.read_table(arguments.documents, columns=["text"])["text"].to_pylist()
        asked = np.concatenate([d.vectors for d in encoder.encode_documents(documents, Pooling())])
        asked = np.random.default_rng(0).permutation(asked[np.any(asked != 0, axis=1)])[: arguments.queries]
        return "of real queries", lambda n, rows: vectors[n * BLOCK_ROWS :][:rows], asked
    base = open_base(arguments.base)
    return "like sentences", base.block, base.queries(arguments.queries, arguments.size)


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Build unless that was done, then measure."""
    kind, blocks, queries = made(arguments)
    if not (folder / "build.json").is_file():
        build(arguments, blocks, queries, folder)
    del blocks
    known = json.loads((folder / "build.json").read_text(encoding="utf-8"))
    if known.pop("of") != decides(arguments):
        raise SystemExit(f"{folder}: holds an index of something else; name another --work")
    index = open_vectors(folder / "index", verify=False, nprobe=arguments.nprobe)
    with np.load(folder / "truth.npz", allow_pickle=False) as kept:
        truth = Truth(queries[: len(kept["rows"])], kept["rows"], kept["cosines"], THRESHOLD)
        flat_vectors = kept["flat"]
    facts: dict[str, Any] = {
        "vectors": f"{arguments.size:,} {kind}, {queries.shape[1]} wide",
        "lists, probed": f"{index.manifest.nlist:,}, {arguments.nprobe}",
        "head dims": index.manifest.head_dims,
        **known,
        "bytes per vector": f"{sum(note.bytes for note in index.manifest.files.values()) / arguments.size:.0f}",
        "recall in the manifest": index.manifest.recall,
        "code error, sd and largest": f"{index.manifest.scores.error_sd:.1e}, {index.manifest.scores.error_max:.1e}"
        if index.manifest.scores
        else "",
    }
    facts |= recall(index, truth)
    flat = faiss.IndexFlatIP(queries.shape[1])
    faiss.omp_set_num_threads(1)
    flat.add(flat_vectors)
    found, walls = [], []

    def ours() -> int:
        began = time.monotonic()
        found[:] = index.search(queries, THRESHOLD, 64)
        walls.append(len(queries) / (time.monotonic() - began))
        return len(queries)

    def exact() -> int:
        flat.search(queries[:FLAT_QUERIES], TOP)
        return FLAT_QUERIES

    rates, flat_rates = turns(arguments.repeats, ours, exact)
    flat_rates = [rate * flat.ntotal / arguments.size for rate in flat_rates]
    ratios = [a / b for a, b in zip(rates, flat_rates, strict=True)]
    facts |= {
        f"queries per CPU second, batch of {len(queries):,}": f"{statistics.median(rates):,.0f}",
        f"queries per second, {arguments.threads} threads": f"{statistics.median(walls):,.0f}",
        "IndexFlatIP, queries per CPU second": f"{statistics.median(flat_rates):,.2f}",
        "ratio: median (least, most)": f"{statistics.median(ratios):.1f} ({min(ratios):.1f}, {max(ratios):.1f})",
        "found above the cut, per query": f"{np.mean([n.num_above for n in found]):.1f}",
    }
    if index.manifest.online:
        facts |= online_figures(index, truth, queries, flat, arguments)
    return facts | {"peak RSS of this call, MB": f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}"}


def online_figures(
    index: VectorIndex, truth: Truth, queries: NDArray[np.float32], flat: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Recall and rate of the short codes, in batches of 1,000 and one query at a time."""
    lowest = float(truth.cosines[:, 9].min()) - 0.005
    near = index.search(truth.queries, lowest, 10, online=True)
    at_10 = np.mean([np.isin(rows[:10], n.ids).mean() for rows, n in zip(truth.rows, near, strict=True)])
    facts: dict[str, Any] = {"online, R@10": f"{at_10:.4f}"}
    for batch, times in ((1000, 1), (1, 100)):
        some = queries[: batch * times]

        def ours(some: NDArray[np.float32] = some, batch: int = batch) -> int:
            for start in range(0, len(some), batch):
                index.search(some[start : start + batch], lowest, 10, online=True)
            return len(some)

        def exact(some: NDArray[np.float32] = some, batch: int = batch) -> int:
            number = min(len(some), FLAT_QUERIES)
            for start in range(0, number, batch):
                flat.search(some[start : min(start + batch, number)], 10)
            return number

        rates, flat_rates = turns(arguments.repeats, ours, exact)
        ratios = [a / (b * flat.ntotal / arguments.size) for a, b in zip(rates, flat_rates, strict=True)]
        facts[f"online, batches of {batch:,}: queries per CPU second"] = f"{statistics.median(rates):,.0f}"
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f}, {max(ratios):.1f})"
        facts[f"online, batches of {batch:,}: ratio to IndexFlatIP"] = spread
    return facts


def processor() -> str:
    """Name and vector instructions of the processor."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    lines = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    fields = {name.strip(): value for name, value in lines.items()}
    flags = [f for f in ("avx2", "avx512f", "avx512_vnni") if f in fields.get("flags", "").split()]
    return f"{fields.get('model name', platform.machine()).strip()} ({', '.join(flags)})"


def main() -> None:
    """Measure and add a table to the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path)
    parser.add_argument("--uniform", action="store_true")
    parser.add_argument("--real-queries", type=Path, help="queries whose descriptions are indexed, with --documents")
    parser.add_argument("--documents", type=Path)
    parser.add_argument("--size", type=int, default=0)
    parser.add_argument("--queries", type=int, default=24_000)
    parser.add_argument("--recall-queries", type=int, default=1000)
    parser.add_argument("--nlist", type=int)
    parser.add_argument("--nprobe", type=int, default=64)
    parser.add_argument("--head-dims", type=int, default=384)
    parser.add_argument("--threads", type=int, default=1, help="say the same to OMP_NUM_THREADS")
    parser.add_argument("--online", action="store_true", help="short codes too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, help="folder that is kept, with the index; a temporary one by default")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    if not (arguments.uniform or arguments.base or (arguments.real_queries and arguments.documents)):
        parser.error("give --base, --uniform, or --real-queries and --documents")
    folder = arguments.work or Path(tempfile.mkdtemp(prefix="bench-index-"))
    folder.mkdir(parents=True, exist_ok=True)
    facts = measure(arguments, folder)
    if arguments.work is None:
        shutil.rmtree(folder)
    report = [
        "",
        f"## {facts['vectors']} vectors, {datetime.date.today()}",
        "",
        f"{processor()}, {arguments.threads} threads, NumPy {np.__version__}, FAISS {faiss.__version__}.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {figure} | {value} |" for figure, value in facts.items()),
    ]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with arguments.out.open("a", encoding="utf-8") as file:
        file.write("\n".join(report) + "\n")
    print("\n".join(report))


if __name__ == "__main__":
    main()
