"""`pooling` on a device: the same weights, the sums taken by one batched matrix product.

In: token vectors of many texts, padded to one length. Out: K + 1 vectors for each. The weights are those of `pooling`,
rounded to single precision, so there is one definition; the sums are single precision too, also where the model is not,
and differ from NumPy's double ones by less than 1e-5. Training and encoding share it; gradients flow through.

Shapes: B texts, R rows of weights (K + 1), T tokens with padding, t tokens without, D width.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.pooling import Pooling


def placed_weights(weights: Sequence[NDArray[np.float64]], mask_bt: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Weights of every text at the places of its tokens, zero on padding, which may stand at either end.

    Args:
        weights: For each text, shape (R, t).
        mask_bt: True where a token stands, t times in the row of a text; shape (B, T).

    Returns:
        Shape (B, R, T).
    """
    placed_brt = np.zeros((len(weights), weights[0].shape[0], mask_bt.shape[1]), np.float32)
    for number, rows in enumerate(weights):
        placed_brt[number][:, mask_bt[number]] = rows
    return placed_brt


def weighted_means(hidden_btd: Any, placed_brt: NDArray[np.float32]) -> Any:
    """Sums of token vectors under every row of weights, in single precision on the vectors' device.

    Args:
        hidden_btd: Tensor of token vectors of any precision, shape (B, T, D).
        placed_brt: What `placed_weights` gives.

    Returns:
        Tensor of shape (B, R, D).
    """
    import torch

    return torch.bmm(torch.from_numpy(placed_brt).to(hidden_btd.device, non_blocking=True), hidden_btd.float())


def pool_padded(hidden_btd: Any, mask_bt: Any, pooling: Pooling) -> Any:
    """What `Pooling.pool` gives for each text of a padded batch.

    Args:
        hidden_btd: Tensor of token vectors, shape (B, T, D).
        mask_bt: Attention mask, 1 or true where a token stands, shape (B, T); every text has a token.
        pooling: How to pool.

    Returns:
        Tensor of unit vectors, shape (B, K + 1, D).

    Raises:
        ValueError: If a text has no token.

    Source:
        arXiv:2601.22146, section 3.2; that lengths come from the mask is the authors' release.
    """
    import torch

    present_bt = np.asarray(mask_bt.cpu(), dtype=np.bool_)
    weights = [pooling.weights(int(count)) for count in present_bt.sum(axis=1)]
    means_brd = weighted_means(hidden_btd, placed_weights(weights, present_bt))
    return torch.nn.functional.normalize(means_brd, dim=-1)
