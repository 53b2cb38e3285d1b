"""Whose requests go first: those of the work that was begun first.

Work units that are open together would share the slots of a server evenly, come to their ends together, and leave the
slots empty until the next ones are begun. So each asks in the turn of its beginning: the first has what it can use, the
others what it leaves, and they end one after the other.
"""

import itertools
from contextvars import ContextVar

_turns = itertools.count(1)
_turn: ContextVar[int] = ContextVar("turn", default=0)


def begin_turn() -> None:
    """Have what this thread asks from now on come after all that others have begun."""
    _turn.set(next(_turns))


def this_turn() -> int:
    """The turn of this thread, or of the thread that started this task; 0 for one without."""
    return _turn.get()
