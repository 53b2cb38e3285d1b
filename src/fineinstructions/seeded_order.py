"""Seeded random order that depends on ids alone: not on workers, files or the order in which rows come."""

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def row_key(seed: int, stage: str, record_id: str) -> int:
    """64 random bits of a record; sorted by them, records are in random order.

    Args:
        seed: Seed of the export.
        stage: What the order is for; orders of two stages have nothing to do with each other.
        record_id: Id of the record.
    """
    return int.from_bytes(_bits(_salt(seed, stage), record_id), "little")


def row_keys(seed: int, stage: str, record_ids: Iterable[str]) -> NDArray[np.uint64]:
    """`row_key` of many records.

    Example:
        >>> row_keys(1, "shuffle", ["a", "b"]).tolist() == [row_key(1, "shuffle", "a"), row_key(1, "shuffle", "b")]
        True
    """
    salt = _salt(seed, stage)
    return np.frombuffer(b"".join(_bits(salt, record_id) for record_id in record_ids), np.dtype("<u8"))


def _salt(seed: int, stage: str) -> bytes:
    return hashlib.blake2b(f"{seed} {stage}".encode(), digest_size=32).digest()


def _bits(salt: bytes, record_id: str) -> bytes:
    return hashlib.blake2b(record_id.encode("utf-8", "surrogatepass"), digest_size=8, key=salt).digest()
