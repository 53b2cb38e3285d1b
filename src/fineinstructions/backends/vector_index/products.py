"""Products of 8-bit codes, where the processor has instructions for them.

In: two sets of codes. Out: their products, which are whole numbers and so the same on any machine. Processors with VNNI
or AMX have instructions for such products. Without them the library's 8-bit product is the slower one by far, and BLAS
multiplies floats.

Shapes: Q queries, n records, H head dims.
"""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fineinstructions.errors import ConfigError

Products = Literal["auto", "float", "int8"]
Int8Product = Callable[[NDArray[np.int8], NDArray[np.int8]], NDArray[np.float32]]
"""From codes of shape (Q, H) and (n, H) to their products, shape (Q, n)."""

_CPUINFO = Path("/proc/cpuinfo")
_FAST_8_BIT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def int8_product(products: Products) -> Int8Product | None:
    """The 8-bit product to use, if any.

    Args:
        products: ``auto`` uses one where the processor is fast at it and PyTorch is installed.

    Returns:
        The product; ``None`` to multiply floats.

    Raises:
        ConfigError: If it is demanded and PyTorch is missing.
    """
    has_torch = importlib.util.find_spec("torch") is not None
    if products == "int8" and not has_torch:
        raise ConfigError(
            "index.products: int8 needs PyTorch; pip install 'fineinstructions[embed]', or set it to auto"
        )
    wanted = products == "int8" or (products == "auto" and has_torch and _is_fast_at_8_bit())
    return _torch_product if wanted else None


@functools.cache
def _is_fast_at_8_bit() -> bool:
    """Whether the processor says that it has instructions for 8-bit products."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line.partition(":")[2] for line in text.splitlines() if line.startswith("flags")), "")
    return not _FAST_8_BIT.isdisjoint(flags.split())


def _torch_product(queries: NDArray[np.int8], records: NDArray[np.int8]) -> NDArray[np.float32]:
    import torch

    products = torch._int_mm(torch.from_numpy(queries), torch.from_numpy(records).t())
    floats: NDArray[np.float32] = products.to(torch.float32).numpy()  # below 2 ** 24, so nothing is rounded
    return floats
