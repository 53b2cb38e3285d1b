"""Nearest neighbours above a cosine threshold, from a thousand vectors to tens of millions, in one kind of folder."""

from fineinstructions.backends.vector_index.building import Settings, VectorSource, save_array
from fineinstructions.backends.vector_index.manifest import Manifest, read_manifest
from fineinstructions.backends.vector_index.neighbours import Neighbours, VectorIndex
from fineinstructions.backends.vector_index.products import Products
from fineinstructions.backends.vector_index.store import (
    ArraySource,
    IndexKind,
    add_vectors,
    build_vectors,
    forget_manifest,
    open_vectors,
    remove_vectors,
    require_memory_to_build,
    set_min_cosine,
)

__all__ = [
    "ArraySource",
    "IndexKind",
    "Manifest",
    "Neighbours",
    "Products",
    "Settings",
    "VectorIndex",
    "VectorSource",
    "add_vectors",
    "build_vectors",
    "forget_manifest",
    "open_vectors",
    "read_manifest",
    "remove_vectors",
    "require_memory_to_build",
    "save_array",
    "set_min_cosine",
]
