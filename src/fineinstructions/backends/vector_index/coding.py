"""How a list-major index sees a vector: a share along the mean direction, and 8-bit coordinates in a turned basis.

In: a sample of the vectors. Out: a `Coding`, which turns vectors into coordinates, codes and list numbers, alike for
what is indexed and for what is asked.

Sentence vectors share a large common mean. It is taken out as one float, ``along``, so that the codes have only the
rest to describe. The basis of the rest starts with the directions of greatest variance: the first `head_dims`
coordinates carry nearly all of a product, and by Cauchy and Schwarz the others add at most the product of the two tail
lengths. A search takes the head's product, adds that bound, and goes on only where the sum reaches the threshold: half
a head's width further first, then to the end. Nothing is lost by it. Inside each of these parts the basis is turned at
random, which makes its coordinates alike; every vector has a code step of its own for head and tail, so none is cut
off, however unlike the sample.

The decision to question: lists are made, and chosen, on the first `list_dims` coordinates only. All 1,024 would cost
four times as much, and neighbours at a high cosine agree in these.

Shapes: N vectors, D width, H head dims, M head and middle dims, C list dims, L lists.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fineinstructions.backends.vector_index.exact import load_faiss
from fineinstructions.runs.durable import sync_file

F = TypeVar("F", np.float32, np.float64)

_SEED = 1
_ROWS_AT_ONCE = 1024
_ROUNDING = np.float32(1e-5)
"""Far more than a squared distance between unit vectors is off in single precision."""
_KMEANS_ROUNDS = 10
MIN_VECTORS_PER_LIST = 39
"""What FAISS wants for training each centroid."""


@dataclass(frozen=True)
class Coding:
    """A trained basis with its lists."""

    axis_d: NDArray[np.float32]
    """Mean direction, unit length, shape (D,)."""
    basis_dd: NDArray[np.float32]
    """Rows are the new axes, shape (D, D); the first C, H, M and D of them span nested spaces."""
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
    def middle_dims(self) -> int:
        """Coordinates that are looked at before the rest of the tail is (M)."""
        return middle_of(self.head_dims, self.dimension)

    @property
    def nlist(self) -> int:
        """Number of lists (L)."""
        return len(self.centroids_lc)

    def coordinates(self, vectors: NDArray[F]) -> tuple[NDArray[F], NDArray[F]]:
        """Share along the mean direction, shape (N,), and coordinates of the rest, shape (N, D); in their precision."""
        axes: Any = self._axes_64 if vectors.dtype == np.float64 else self._axes_32
        products = vectors @ axes
        return products[:, -1], products[:, :-1]

    @cached_property
    def _axes_64(self) -> NDArray[np.float64]:
        """New axes without their share along the mean direction, then that direction, as columns; shape (D, D + 1)."""
        axis, basis = self.axis_d.astype(np.float64), self.basis_dd.astype(np.float64)
        return np.ascontiguousarray(np.vstack([basis - np.outer(basis @ axis, axis), axis]).T)

    @cached_property
    def _axes_32(self) -> NDArray[np.float32]:
        return self._axes_64.astype(np.float32)

    def codes(
        self, coordinates: NDArray[np.float32]
    ) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.float32]]:
        """Coordinates as 8-bit codes, shape (N, D), and the value of one step in head and tail, both of shape (N,)."""
        codes = np.empty(coordinates.shape, np.int8)
        steps = np.empty((2, len(coordinates)), np.float32)
        for start in range(0, len(coordinates), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            for number, part in enumerate((slice(0, self.head_dims), slice(self.head_dims, None))):
                codes[rows, part], steps[number, rows] = quantized(coordinates[rows, part])
        return codes, steps[0], steps[1]

    def decoded(self, records: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors that records stand for, shape (N, D)."""
        coordinates = np.concatenate([head_of(records, self.head_dims), tail_of(records, self.head_dims)], axis=1)
        vectors = records["along"][:, None] * self.axis_d + coordinates @ self.basis_dd
        return vectors.astype(np.float32)

    def turned(self, records: NDArray[Any]) -> NDArray[np.float32]:
        """Vectors that records stand for in the turned basis, the share along the mean put back, shape (N, D)."""
        coordinates = np.concatenate([head_of(records, self.head_dims), tail_of(records, self.head_dims)], axis=1)
        return self.put_back(records["along"], coordinates)

    def put_back(self, along: NDArray[np.float32], coordinates: NDArray[np.float32]) -> NDArray[np.float32]:
        """Coordinates with the share along the mean put back: products are those of the vectors, shape (N, D)."""
        return coordinates + along[:, None] * self._axis_turned_d

    @cached_property
    def _axis_turned_d(self) -> NDArray[np.float32]:
        return np.asarray(self.basis_dd @ self.axis_d)

    def nearest_list(self, along: NDArray[np.float32], coordinates: NDArray[np.float32]) -> NDArray[np.int64]:
        """Nearest list of every vector by Euclidean distance, shape (N,)."""
        nearest = np.empty(len(along), np.int64)
        for part, distances in self._distances(along, coordinates):
            nearest[part] = distances.argmin(axis=1)
        return nearest

    def nearest_lists(
        self, along: NDArray[np.float32], coordinates: NDArray[np.float32], number: int
    ) -> NDArray[np.int64]:
        """Nearest lists of every vector, in no order, shape (N, number); the same for a vector in any company.

        A product in single precision rounds a row otherwise among other rows, so lists that are as near as the last one
        but for rounding are measured again, each by itself.
        """
        nearest = np.empty((len(along), number), np.int64)
        if number == self.nlist:
            nearest[:] = np.arange(number)
            return nearest
        for part, distances in self._distances(along, coordinates):
            found = np.argpartition(distances, number - 1, axis=1)[:, :number]
            last = np.take_along_axis(distances, found, axis=1).max(axis=1)
            near = distances <= last[:, None] + _ROUNDING
            for row in np.flatnonzero(np.count_nonzero(near, axis=1) > number):
                place = np.append(along[part][row], coordinates[part][row, : self.list_dims]).astype(np.float64)
                lists = np.flatnonzero(near[row])
                again = np.square(self.centroids_lc[lists] - place).sum(axis=1)
                found[row] = lists[np.lexsort((lists, again))[:number]]
            nearest[part] = found
        return nearest

    def _distances(
        self, along: NDArray[np.float32], coordinates: NDArray[np.float32]
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Squared distances to all lists, less what they have in common, shape (n, L), for slices of rows."""
        places_nc = np.column_stack([along, coordinates[:, : self.list_dims]])
        for start in range(0, len(along), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            distances = places_nc[part] @ self._centroids_cl
            distances += self._offsets_l
            yield part, distances

    @cached_property
    def _centroids_cl(self) -> NDArray[np.float32]:
        return np.ascontiguousarray(-2 * self.centroids_lc.T)

    @cached_property
    def _offsets_l(self) -> NDArray[np.float32]:
        return np.asarray(np.square(self.centroids_lc.astype(np.float64)).sum(axis=1), np.float32)

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


def quantized(values: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Rows as 8-bit codes, of the same shape, and the value of one step of every row."""
    largest = np.maximum(values.max(axis=1, initial=0.0), -values.min(axis=1, initial=0.0))
    steps = np.where(largest > 0, largest / 127, 1.0).astype(np.float32)
    scaled = values * (1 / steps)[:, None]
    return np.rint(scaled, out=scaled).astype(np.int8), steps


def record_type(dimension: int) -> np.dtype[Any]:
    """One indexed vector on disk: its share along the mean, the length of its tail, its code steps, its codes."""
    floats = [(name, "<f4") for name in ("along", "tail", "head_step", "tail_step")]
    return np.dtype([*floats, ("codes", "i1", (dimension,))])


def head_of(records: NDArray[Any], head_dims: int) -> NDArray[np.float32]:
    """Head coordinates of records, shape (N, H)."""
    head = records["codes"][:, :head_dims].astype(np.float32)
    head *= records["head_step"][:, None]
    return head


def middle_of(head_dims: int, dimension: int) -> int:
    """Where the middle part ends that follows a head (M)."""
    return min(dimension, head_dims + head_dims // 2)


def tail_of(records: NDArray[Any], start: int, stop: int | None = None) -> NDArray[np.float32]:
    """Tail coordinates of records from one to another, at or behind the head, shape (N, stop - start)."""
    tail = records["codes"][:, start:stop].astype(np.float32)
    tail *= records["tail_step"][:, None]
    return tail


def lengths(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lengths of rows, a little longer than they are, so that rounding can never make a bound too low."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", vectors, vectors)) * np.float32(1 + 1e-6))


def records_of(along: NDArray[np.float32], coordinates: NDArray[np.float32], coding: Coding) -> NDArray[Any]:
    """Records of vectors, shape (N,)."""
    records = np.empty(len(along), record_type(coding.dimension))
    records["along"] = along
    records["codes"], records["head_step"], records["tail_step"] = coding.codes(coordinates)
    records["tail"] = lengths(tail_of(records, coding.head_dims))
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
    """Principal directions, turned at random inside the list part, the remaining head, the middle, and the rest."""
    dimension = rest.shape[1]
    _, directions = np.linalg.eigh((rest.T @ rest).astype(np.float64))
    directions = directions[:, ::-1].T  # greatest variance first
    rng = np.random.default_rng(_SEED)
    parts = []
    for start, stop in pairwise((0, list_dims, head_dims, middle_of(head_dims, dimension), dimension)):
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
