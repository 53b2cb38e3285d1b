"""How often Python looks for garbage, which costs a program like this a tenth of its processor time.

In: nothing. Out: the collector's settings. The decision a reader would question: 50,000 instead of Python's own 700.
What counts references frees all but cycles at once; twenty requests to a model make 700 objects that live, and each
look goes through them and, now and then, through all there are.
"""

import gc

NEW_OBJECTS_PER_LOOK = 50_000
"""How many objects more than before make Python look among them. Ours: no more is gained by looking never."""


def look_seldom() -> None:
    """Have this process, and those that it forks, look for cycles of objects seldom."""
    gc.set_threshold(NEW_OBJECTS_PER_LOOK)


def look_no_more() -> None:
    """Leave all there is to the system, which takes it back with the process: before its end, or after imports.

    At its end Python would look through everything that is left, which takes a fifth of a second.
    """
    gc.freeze()
