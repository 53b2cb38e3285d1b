"""Relations that descriptions ask for, with the words that ask and those that answer (``relation_words.txt``)."""

from typing import NamedTuple

from fineinstructions.embedded.words import read_word_lists


class Relation(NamedTuple):
    """Words of one relation, each as it is written (they are stemmed before use)."""

    heads: tuple[str, ...]
    cues: tuple[str, ...]


def _read_relations() -> dict[str, Relation]:
    lists = read_word_lists("relation_words.txt")
    names = [name.removesuffix(" heads") for name in lists if name.endswith(" heads")]
    return {name: Relation(lists[f"{name} heads"], lists.get(f"{name} cues", ())) for name in names}


RELATIONS = _read_relations()
"""Relations by name, in the order of the encoder's dimensions."""
