"""Keeping answers tied to their questions while requests run ahead.

In: records and a function that starts work on one of them. Out: the same records in the same order, each with its own
result. `one_to_one` exists because a model that skips or swaps one record would pair every later record with the
wrong answer, silently; it costs one comparison per record.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from fineinstructions.errors import BackendError

T = TypeVar("T")
U = TypeVar("U")


def in_order(items: Iterable[T], start: Callable[[T], "Future[U]"], ahead: int) -> Iterator[tuple[T, "Future[U]"]]:
    """Start work on items ahead of time and hand the results out in the items' order.

    Args:
        items: Read lazily, at most `ahead` items before the one handed out.
        start: Starts the work on one item and returns at once.
        ahead: How many items may be under way in this stream, at least 1.

    Yields:
        Each item with its future; ``future.result()`` waits for it. What is still under way when the caller stops
        reading is cancelled.

    Raises:
        ValueError: If `ahead` is below 1.
    """
    if ahead < 1:
        raise ValueError(f"ahead must be at least 1, not {ahead}")
    under_way: deque[tuple[T, Future[U]]] = deque()
    try:
        for item in items:
            under_way.append((item, start(item)))
            while under_way and (len(under_way) >= ahead or under_way[0][1].done()):
                yield under_way.popleft()
        while under_way:
            yield under_way.popleft()
    finally:
        for _, future in under_way:
            future.cancel()


def one_to_one(
    items: Iterable[T],
    run: Callable[[Iterable[T]], Iterator[U]],
    belongs: Callable[[T, U], bool],
    what: str,
) -> Iterator[tuple[T, U]]:
    """Run a model over items and check that it gives exactly one outcome per item, in order.

    Args:
        items: Records for the model.
        run: The model: a lazy function from records to outcomes.
        belongs: Whether an outcome carries the ids of this item.
        what: Name of the model for the error message.

    Yields:
        Each item with its outcome.

    Raises:
        BackendError: If an outcome is missing, surplus or belongs to another item.
    """
    handed_over: deque[T] = deque()

    def recorded() -> Iterator[T]:
        for item in items:
            handed_over.append(item)
            yield item

    for outcome in run(recorded()):
        if not handed_over or not belongs(handed_over[0], outcome):
            raise BackendError(
                f"{what}: an outcome does not belong to the record it answers", hint="a bug in the model"
            )
        yield handed_over.popleft(), outcome
    if handed_over:
        raise BackendError(f"{what}: {len(handed_over)} records got no outcome", hint="a bug in the model")
