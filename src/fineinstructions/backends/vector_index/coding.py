"""How a list-major index sees a vector: a share along the mean direction, and 8-bit coordinates in a turned basis.

In: a sample of the vectors. Out: a `Coding`, which turns vectors into coordinates, codes and list numbers, alike for
what is indexed and for what is asked.

Sentence vectors share a large common mean. It is taken out as one float, ``along``, so that the codes have only the
rest to describe. The basis of the rest starts with the directions of greatest variance: the first `head_dims`
coordinates carry nearly all of a product, and by Cauchy and Schwarz the others add at most the product of the two tail
lengths. A search takes the head's product, adds that bound, and looks at the tail only where the sum reaches the
threshold: nothing is lost by it. Inside the head and inside the tail the basis is turned at random, which makes all
coordinates alike; every vector has a code step of its own for each, so none is cut off, however unlike the sample.

The decision to question: lists are made, and chosen, on the first `list_dims` coordinates only. That costs an eighth of
what all 1,024 would cost, and neighbours at a high cosine agree in them.

Shapes: N vectors, D width, H head dims, C list dims, L lists.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.exact import load_faiss
from fineinstructions.runs.durable import sync_file

F = TypeVar("F", np.float32, np.float64)

_SEED = 1
_ROWS_AT_ONCE = 4096
_KMEANS_ROUNDS = 10
MIN_VECTORS_PER_LIST = 39
"""What FAISS wants for training each centroid."""


@dataclass(frozen=True)
class Coding:
    """A trained basis with its lists."""

    axis_d: NDArray[np.float32]
    """Mean direction, unit length, shape (D,)."""
    basis_dd: NDArray[np.float32]
    """Rows are the new axes, shape (D, D); the first C, H and D of them span nested spaces."""
    head_dims: int
    """H."""
    list_dims: int
    """C."""
    centroids_lc: NDArray[np.float32]
    """Centres of the lists: the share along the mean, then C coordinates; shape (L, C + 1)."""

    @property
    def dimension(self) -> int:
        """Width of a vector (D)."""
        return len(self.axis_d)

    @property
    def nlist(self) -> int:
        """Number of lists (L)."""
        return len(self.centroids_lc)

    def coordinates(self, vectors: NDArray[F]) -> tuple[NDArray[F], NDArray[F]]:
        """Share along the mean direction, shape (N,), and coordinates of the rest, shape (N, D); in their precision."""
        axis, basis = self.axis_d.astype(vectors.dtype), self.basis_dd.astype(vectors.dtype)
        along = vectors @ axis
        coordinates = vectors @ basis.T
        coordinates -= along[:, None] * (basis @ axis)
        return along, coordinates

    def codes(
        self, coordinates: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates as 8-bit codes, shape (N, D), and the value of one step in head and tail, both of shape (N,)."""
        codes = np.empty(coordinates.shape, np.int8)
        steps = []
        for part in (slice(0, self.head_dims), slice(self.head_dims, None)):
            largest = np.abs(coordinates[:, part]).max(axis=1, initial=0.0)
            step = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
            codes[:, part] = np.rint(coordinates[:, part] / step[:, None])
            steps.append(step)
        return codes, steps[0], steps[1]

    def decoded(self, records: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors that records stand for, shape (N, D)."""
        coordinates = np.concatenate([head_of(records, self.head_dims), tail_of(records, self.head_dims)], axis=1)
        vectors = records["along"][:, None] * self.axis_d + coordinates @ self.basis_dd
        return vectors.astype(np.float32)

    def nearest_lists(self, along: NDArray[F], coordinates: NDArray[F], number: int) -> NDArray[np.int64]:
        """Nearest lists of every vector by Euclidean distance, nearest first where it is one, shape (N, number)."""
        places_nc = np.column_stack([along, coordinates[:, : self.list_dims]])
        centroids_lc = self.centroids_lc.astype(places_nc.dtype)
        offsets_l = np.square(centroids_lc).sum(axis=1)
        nearest = np.empty((len(along), number), np.int64)
        for start in range(0, len(along), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            distances = offsets_l - 2.0 * (places_nc[part] @ centroids_lc.T)
            if number == 1:
                nearest[part, 0] = distances.argmin(axis=1)
            elif number < self.nlist:
                nearest[part] = np.argpartition(distances, number - 1, axis=1)[:, :number]
            else:
                nearest[part] = np.arange(self.nlist)
        return nearest

    def save(self, path: Path) -> None:
        """Write everything to one ``.npz`` file, in one step."""
        temporary = path.with_name(f"tmp-{path.name}")
        with temporary.open("wb") as file:
            np.savez(
                file,
                axis=self.axis_d,
                basis=self.basis_dd,
                dims=np.array([self.head_dims, self.list_dims]),
                centroids=self.centroids_lc,
            )
        sync_file(temporary)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Coding":
        """Read what `save` wrote.

        Raises:
            OSError: If the file cannot be read, or KeyError or ValueError if it is something else.
        """
        with np.load(path, allow_pickle=False) as arrays:
            head_dims, list_dims = arrays["dims"].tolist()
            return cls(
                axis_d=arrays["axis"],
                basis_dd=arrays["basis"],
                head_dims=head_dims,
                list_dims=list_dims,
                centroids_lc=arrays["centroids"],
            )


def record_type(dimension: int) -> np.dtype[Any]:
    """One indexed vector on disk: its share along the mean, the length of its tail, its code steps, its codes."""
    floats = [(name, "<f4") for name in ("along", "tail", "head_step", "tail_step")]
    return np.dtype([*floats, ("codes", "i1", (dimension,))])


def head_of(records: NDArray[Any], head_dims: int) -> NDArray[np.float32]:
    """Head coordinates of records, shape (N, H)."""
    head = records["codes"][:, :head_dims].astype(np.float32)
    head *= records["head_step"][:, None]
    return head


def tail_of(records: NDArray[Any], head_dims: int) -> NDArray[np.float32]:
    """Tail coordinates of records, shape (N, D - H)."""
    tail = records["codes"][:, head_dims:].astype(np.float32)
    tail *= records["tail_step"][:, None]
    return tail


def records_of(along: NDArray[np.float32], coordinates: NDArray[np.float32], coding: Coding) -> NDArray[Any]:
    """Records of vectors, shape (N,)."""
    records = np.empty(len(along), record_type(coding.dimension))
    records["along"] = along
    records["codes"], records["head_step"], records["tail_step"] = coding.codes(coordinates)
    tail = tail_of(records, coding.head_dims)
    # A little longer than it is, so that rounding can never make the bound too low.
    records["tail"] = np.sqrt(np.einsum("ij,ij->i", tail, tail)) * np.float32(1 + 1e-6)
    return records


def train(sample: NDArray[np.float32], nlist: int, head_dims: int, list_dims: int, threads: int = 1) -> Coding:
    """Learn the basis and the lists from a sample.

    Args:
        sample: Unit vectors, shape (n, D).
        nlist: Number of lists (L); lowered where the sample has too few vectors for it.
        head_dims: Coordinates whose products are always taken (H).
        list_dims: Coordinates that decide the lists (C).
        threads: For k-means.

    Returns:
        The coding; the same for the same sample where the numeric libraries run in one thread.
    """
    dimension = sample.shape[1]
    head_dims, list_dims = min(head_dims, dimension), min(list_dims, head_dims, dimension)
    mean = sample.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    axis = (mean / length if length > 1e-6 else np.eye(dimension)[0]).astype(np.float32)
    rest = sample - (sample @ axis)[:, None] * axis
    basis = _basis(rest, list_dims, head_dims)
    half_trained = Coding(axis, basis, head_dims, list_dims, np.zeros((1, list_dims + 1), np.float32))
    along, coordinates = half_trained.coordinates(sample)
    nlist = max(1, min(nlist, len(sample) // MIN_VECTORS_PER_LIST))
    centroids = _centroids(np.column_stack([along, coordinates[:, :list_dims]]), nlist, threads)
    return Coding(axis, basis, head_dims, list_dims, centroids)


def _basis(rest: NDArray[np.float32], list_dims: int, head_dims: int) -> NDArray[np.float32]:
    """Principal directions, turned at random inside the list part, inside the remaining head, and inside the tail."""
    dimension = rest.shape[1]
    _, directions = np.linalg.eigh((rest.T @ rest).astype(np.float64))
    directions = directions[:, ::-1].T  # greatest variance first
    rng = np.random.default_rng(_SEED)
    parts = []
    for start, stop in ((0, list_dims), (list_dims, head_dims), (head_dims, dimension)):
        if stop > start:
            turn, _ = np.linalg.qr(rng.standard_normal((stop - start, stop - start)))
            parts.append(turn @ directions[start:stop])
    return np.ascontiguousarray(np.concatenate(parts), dtype=np.float32)


def _centroids(places: NDArray[np.float32], nlist: int, threads: int) -> NDArray[np.float32]:
    faiss: Any = load_faiss()
    if threads > 1:
        faiss.omp_set_num_threads(threads)
    places = np.ascontiguousarray(places, dtype=np.float32)
    enough = max(MIN_VECTORS_PER_LIST, len(places) // nlist + 1)
    kmeans = faiss.Kmeans(
        places.shape[1],
        nlist,
        niter=_KMEANS_ROUNDS,
        seed=_SEED,
        max_points_per_centroid=enough,
        min_points_per_centroid=1,
    )
    kmeans.train(places)
    faiss.omp_set_num_threads(1)
    centroids: NDArray[np.float32] = kmeans.centroids
    return centroids
