"""Texts as sparse rows of word counts, for training alone.

In: texts as rows of a table. Out: a sparse matrix. The decision to question: SciPy, which the base installation lacks,
because its sparse products take a sixth of the time of dense ones; reading and using an encoder needs NumPy alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError


def sparse() -> Any:
    """SciPy's sparse matrices.

    Raises:
        ConfigError: If SciPy is not installed.
    """
    try:
        import scipy.sparse
    except ImportError:
        raise ConfigError("encoder: learning needs scipy; run pip install 'fineinstructions[train]'") from None
    return scipy.sparse


def bags(texts: Sequence[NDArray[np.int32]], width: int) -> Any:
    """Counts of every number in every text, a sparse matrix of shape (texts, width), columns ascending.

    Args:
        texts: Numbers below `width`, in any order.
        width: Columns.
    """
    ends = np.cumsum([0, *(len(text) for text in texts)])
    columns = np.concatenate([*texts, np.zeros(0, np.int32)])
    counted = sparse().csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(texts), width))
    counted.sum_duplicates()
    return counted
