"""Packed tokens cut at the sequence length, in the order in which a training sees them.

In: tokens on disk. Out: sequences by their position in the training. The decision a reader would question: the target
of a sequence's last token is the first token of the next one, as in Lingua, so that every token but the very first is
learned once in an epoch; transformers alone would leave one out in every sequence.

L: tokens of a sequence.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fineinstructions.training.packed import PackedTokens

IGNORED = -100
"""A target that is not learned."""


def num_sequences(num_tokens: int, seq_len: int) -> int:
    """Whole sequences in so many tokens; one token more is needed for the last target.

    Example:
        >>> num_sequences(8193, 4096), num_sequences(8192, 4096), num_sequences(0, 4096)
        (2, 1, 0)
    """
    return max(0, num_tokens - 1) // seq_len


class Sequences:
    """What a training sees, position by position; a map-style data set.

    Args:
        packed: The tokens.
        seq_len: L.
        length: Sequences of the whole training; beyond those that there are, an epoch begins anew.
        answers_only: Whether only tokens of answers are learned.
        restart_positions: Whether positions begin at 0 with every row, which is what keeps rows apart.
    """

    def __init__(
        self, packed: PackedTokens, seq_len: int, length: int, *, answers_only: bool, restart_positions: bool
    ) -> None:
        self.packed, self.seq_len, self.length = packed, seq_len, length
        self.num_unique = num_sequences(packed.num_tokens, seq_len)
        self._answers_only, self._restarts = answers_only, restart_positions
        if answers_only:
            packed.require_answers()
        if length and not self.num_unique:
            raise ValueError("fewer tokens than a sequence has")

    def __len__(self) -> int:
        return self.length

    def place(self, position: int) -> tuple[int, int]:
        """Epoch, and the position of the first token, of a position in the training."""
        if not 0 <= position < self.length:
            raise IndexError(position)
        epoch, number = divmod(position, self.num_unique)
        return epoch, number * self.seq_len

    def rows(self, position: int) -> tuple[int, list[int]]:
        """Epoch of a position in the training, and the numbers of the rows that it reads."""
        epoch, start = self.place(position)
        return epoch, np.unique(self.packed.stretch(start, start + self.seq_len).rows).tolist()

    def __getitem__(self, position: int) -> dict[str, NDArray[np.int64]]:
        """Inputs and targets of shape (L,), and positions where these restart."""
        _, start = self.place(position)
        stretch = self.packed.stretch(start, start + self.seq_len + 1)
        targets = stretch.tokens[1:]
        if self._answers_only:
            targets = np.where(stretch.is_answer[1:], targets, IGNORED)
        found = {"input_ids": stretch.tokens[:-1], "shift_labels": targets}
        if self._restarts:
            # A row that began in the sequence before is seen from this sequence's first token on.
            is_first = stretch.rows[:-1] == stretch.rows[0]
            found["position_ids"] = stretch.places[:-1] - np.where(is_first, stretch.places[0], 0)
        return found


def collate(items: Sequence[dict[str, NDArray[np.int64]]]) -> dict[str, object]:
    """Sequences to tensors of shape (B, L)."""
    import torch

    batch: dict[str, object] = {name: torch.from_numpy(np.stack([item[name] for item in items])) for name in items[0]}
    return {**batch, "labels": batch["shift_labels"]}
