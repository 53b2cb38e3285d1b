"""Training the encoder's rows on pairs of texts that belong together: questions and passages, descriptions and pages.

In: rows to start from (`learn_encoder`) and pairs by source. Out: better rows. A text's vector is the sum of its words'
rows, so a step is two sparse products and their transposes, gradients are written out here, and the same inputs give
the same bytes on one machine. Batches are filled group by group (stories, pages, meetings), so that wrong partners
come from the same story: those are what retrieval confuses. The decision to question: it stops after a fixed, small
number of steps, because more of them learn the few thousand questions by heart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.embedded.bags import bags, sparse

# Shape legend: B pairs of a batch, P pairs of a source, U distinct rows of a batch, V rows, D width.

Say = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """How rows are trained; all values ours, chosen on questions and pages kept back from training."""

    steps: int = 600
    batch: int = 384
    scale: float = 20.0
    """Cosines are multiplied by this before they compete."""
    rate: float = 0.02
    max_of_group: int = 40
    """Most pairs of one group in a batch."""
    seed: int = 20260122


@dataclass(frozen=True)
class Source:
    """Pairs of one kind; a batch holds one kind only, so that wrong partners are of the right sort."""

    name: str
    left: Sequence[NDArray[np.int32]]
    """Rows of every first text."""
    right: Sequence[NDArray[np.int32]]
    left_id: NDArray[np.int64]
    """Equal where first texts are the same; such pairs do not compete."""
    right_id: NDArray[np.int64]
    group: NDArray[np.int64]
    """Pairs of one group come into a batch together."""
    share: float
    """Share of the batches."""
    fits: NDArray[np.bool_] | None = field(default=None, repr=False)
    """Whether the second text of a pair belongs to first texts of each `left_id` too, shape (pairs, ids); such pairs do
    not compete. Where it is given, pairs are drawn one by one, those of rare first texts more often."""


def train_rows(rows_vd: NDArray[np.float32], sources: Sequence[Source], how: Training, say: Say) -> NDArray[np.float32]:
    """Train rows by contrast: a text's partner should be nearer than the partners of the other texts of its batch.

    Args:
        rows_vd: Rows to start from, weight included; not changed.
        sources: Pairs.
        how: Settings.
        say: Takes a line of progress now and then.

    Returns:
        Trained rows of the same shape.

    Raises:
        ValueError: If there is no pair.
        ConfigError: If SciPy is not installed.
    """
    drawn = [_Drawn(source, len(rows_vd), how) for source in sources if len(source.left)]
    if not drawn:
        raise ValueError("the encoder has no pairs of texts to learn from")
    rows_vd = (rows_vd / max(1e-9, float(np.linalg.norm(rows_vd, axis=1).mean()))).astype(np.float32)
    spread_v = np.full(len(rows_vd), 1e-3, np.float32)
    generator = np.random.Generator(np.random.PCG64(how.seed))
    shares = np.array([item.source.share for item in drawn])
    losses: dict[str, list[float]] = {item.source.name: [] for item in drawn}
    for step in range(how.steps):
        item = drawn[int(generator.choice(len(drawn), p=shares / shares.sum()))]
        picked_b = item.pick(generator)
        rate = how.rate * (1.0 - 0.9 * step / how.steps)
        loss = _step(rows_vd, spread_v, item.batch(picked_b), item.is_same(picked_b), how.scale, rate)
        losses[item.source.name].append(loss)
        if (step + 1) % max(1, how.steps // 5) == 0:
            told = ", ".join(f"{name} {np.mean(found[-20:]):.2f}" for name, found in losses.items() if found)
            say(f"encoder, step {step + 1}: loss {told}")
    return rows_vd


class _Drawn:
    """A source as sparse counts, and how its batches are drawn.

    Args:
        source: Pairs, at least one.
        width: Rows of the encoder's table (V).
        how: Settings.
    """

    def __init__(self, source: Source, width: int, how: Training) -> None:
        self.source, self._how = source, how
        self._left_pv, self._right_pv = bags(source.left, width), bags(source.right, width)
        self._order_p = np.argsort(source.group, kind="stable")
        self._starts = np.flatnonzero(np.diff(source.group[self._order_p], prepend=-1))
        chance_p = 1.0 / np.sqrt(np.bincount(source.left_id)[source.left_id])
        self._chance_p = chance_p / chance_p.sum()

    def pick(self, generator: np.random.Generator) -> NDArray[np.int64]:
        """Pairs of the next batch."""
        num_pairs = len(self._order_p)
        size = min(self._how.batch, num_pairs)
        if self.source.fits is not None:
            return generator.choice(num_pairs, size, replace=False, p=self._chance_p)
        picked: list[NDArray[np.int64]] = []
        left = size
        for number in generator.permutation(len(self._starts)):
            start = self._starts[number]
            stop = self._starts[number + 1] if number + 1 < len(self._starts) else num_pairs
            of_group = generator.permutation(self._order_p[start:stop])[: self._how.max_of_group]
            picked.append(of_group[:left])
            left -= len(picked[-1])
            if left == 0:
                break
        return np.concatenate(picked)

    def batch(self, picked_b: NDArray[np.int64]) -> Any:
        """Counts of first texts, then of second texts."""
        return sparse().vstack([self._left_pv[picked_b], self._right_pv[picked_b]]).tocsr()

    def is_same(self, picked_b: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which first text does not compete with which second text, shape (B, B); false on the diagonal."""
        left_b, right_b = self.source.left_id[picked_b], self.source.right_id[picked_b]
        same_bb = (right_b[:, None] == right_b[None, :]) | (left_b[:, None] == left_b[None, :])
        if self.source.fits is not None:
            same_bb |= self.source.fits[picked_b][:, left_b].T
        np.fill_diagonal(same_bb, False)
        return np.asarray(same_bb)


def _step(
    rows_vd: NDArray[np.float32],
    spread_v: NDArray[np.float32],
    batch: Any,
    same_bb: NDArray[np.bool_],
    scale: float,
    rate: float,
) -> float:
    """One step in place; the loss before it."""
    used_u, places = np.unique(batch.indices, return_inverse=True)
    counts_xu = sparse().csr_matrix((batch.data, places, batch.indptr), shape=(batch.shape[0], len(used_u)))
    rows_ud = rows_vd[used_u]
    sums_xd = counts_xu @ rows_ud
    norms_x1 = np.maximum(np.linalg.norm(sums_xd, axis=1, keepdims=True), 1e-6)
    units_xd = sums_xd / norms_x1
    size = len(same_bb)
    left_bd, right_bd = units_xd[:size], units_xd[size:]
    logits_bb = scale * (left_bd @ right_bd.T)
    logits_bb[same_bb] = -1e9
    chance_row, chance_column = _softmax(logits_bb, 1), _softmax(logits_bb, 0)
    diagonal = np.arange(size)
    hits = np.maximum(chance_row[diagonal, diagonal] * chance_column[diagonal, diagonal], 1e-12)
    slope_bb = (chance_row + chance_column) / (2.0 * size)
    slope_bb[diagonal, diagonal] -= 1.0 / size
    slope_bb *= scale
    slope_xd = np.vstack([slope_bb @ right_bd, slope_bb.T @ left_bd])
    slope_xd -= units_xd * (units_xd * slope_xd).sum(axis=1, keepdims=True)
    gradient_ud = counts_xu.T @ (slope_xd / norms_x1)
    spread_v[used_u] += np.square(gradient_ud).mean(axis=1)
    rows_vd[used_u] = rows_ud - rate * gradient_ud / np.sqrt(spread_v[used_u])[:, None]
    return float(-0.5 * np.log(hits).mean())


def _softmax(logits: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    raised = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(raised / raised.sum(axis=axis, keepdims=True))
