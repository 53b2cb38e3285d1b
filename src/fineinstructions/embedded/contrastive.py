"""Training the encoder's rows on pairs of texts that belong together: questions and passages, titles and bodies.

In: rows to start from (`learn_encoder`) and pairs by source. Out: better rows. A text's vector is the sum of its words'
rows, so a step is two small matrix products and their transposes: gradients are written out here, nothing but NumPy is
needed, and the same inputs give the same bytes on one machine. The decision to question: it stops after a fixed, small
number of steps, because more of them learn the few thousand questions by heart.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Shape legend: B pairs of a batch, U distinct rows of a batch, V rows, D width.

Say = Callable[[str], None]


@dataclass(frozen=True)
class Training:
    """How rows are trained; all values ours."""

    steps: int = 700
    batch: int = 384
    scale: float = 20.0
    """Cosines are multiplied by this before they compete."""
    rate: float = 0.02
    seed: int = 20260122


@dataclass(frozen=True)
class Source:
    """Pairs of one kind; a batch holds one kind only, so that wrong partners are of the right sort."""

    name: str
    left: Sequence[NDArray[np.int32]]
    """Rows of every first text."""
    right: Sequence[NDArray[np.int32]]
    right_id: NDArray[np.int64]
    """Equal where second texts are the same; such pairs do not compete."""
    left_id: NDArray[np.int64]
    share: float
    """Share of the batches."""


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
    """
    sources = [source for source in sources if len(source.left)]
    if not sources:
        raise ValueError("the encoder has no pairs of texts to learn from")
    rows_vd = rows_vd / max(1e-9, float(np.linalg.norm(rows_vd, axis=1).mean()))
    spread_v = np.full(len(rows_vd), 1e-3, np.float32)
    generator = np.random.Generator(np.random.PCG64(how.seed))
    shares = np.array([source.share for source in sources])
    losses: dict[str, list[float]] = {source.name: [] for source in sources}
    for step in range(how.steps):
        source = sources[int(generator.choice(len(sources), p=shares / shares.sum()))]
        picked = generator.choice(len(source.left), min(how.batch, len(source.left)), replace=False)
        loss = _step(rows_vd, spread_v, source, picked, how.scale, how.rate * (1.0 - 0.9 * step / how.steps))
        losses[source.name].append(loss)
        if (step + 1) % max(1, how.steps // 5) == 0:
            told = ", ".join(f"{name} {np.mean(found[-20:]):.2f}" for name, found in losses.items() if found)
            say(f"encoder, step {step + 1}: loss {told}")
    return rows_vd


def _step(
    rows_vd: NDArray[np.float32],
    spread_v: NDArray[np.float32],
    source: Source,
    picked: NDArray[np.int64],
    scale: float,
    rate: float,
) -> float:
    """One step in place; the loss before it."""
    left = [source.left[k] for k in picked]
    right = [source.right[k] for k in picked]
    used_u, counts_xu = _counts([*left, *right])
    rows_ud = rows_vd[used_u]
    sums_xd = counts_xu @ rows_ud
    norms_x1 = np.maximum(np.linalg.norm(sums_xd, axis=1, keepdims=True), 1e-6)
    units_xd = sums_xd / norms_x1
    size = len(picked)
    left_bd, right_bd = units_xd[:size], units_xd[size:]
    logits_bb = scale * (left_bd @ right_bd.T)
    same = source.right_id[picked][:, None] == source.right_id[picked][None, :]
    same |= source.left_id[picked][:, None] == source.left_id[picked][None, :]
    np.fill_diagonal(same, False)
    logits_bb[same] = -1e9
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


def _counts(texts: Sequence[NDArray[np.int32]]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Distinct rows of some texts, and how often each text has each of them, shape (texts, U)."""
    used_u, places = np.unique(np.concatenate(texts), return_inverse=True)
    owner = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    counted = np.bincount(owner * len(used_u) + places, minlength=len(texts) * len(used_u))
    return used_u.astype(np.int64), counted.reshape(len(texts), len(used_u)).astype(np.float32)
