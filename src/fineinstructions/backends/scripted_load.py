"""What a scripted server has under way: counted, added up over time, and turned back where it is too much."""

import time
from typing import Any


class Load:
    """Requests under way.

    Args:
        capacity: Most of them; None for any number.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.in_flight = self.max_in_flight = self.num_taken = self.num_turned_back = 0
        self._slot_seconds = 0.0
        self._changed_at = time.monotonic()

    def takes_one_more(self) -> bool:
        """Whether there is room for a request; counts it as turned back where there is not."""
        has_room = self.capacity is None or self.in_flight < self.capacity
        self.num_turned_back += not has_room
        return has_room

    def begin(self) -> None:
        """Count a request that was taken."""
        self._change(1)
        self.num_taken += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def end(self) -> None:
        """Count its end."""
        self._change(-1)

    def figures(self) -> dict[str, Any]:
        """How things stand: ``slot_seconds`` is the number under way, added up over time until ``seconds``."""
        self._change(0)
        return {
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "taken": self.num_taken,
            "turned_back": self.num_turned_back,
            "slot_seconds": self._slot_seconds,
            "seconds": self._changed_at,
        }

    def _change(self, number: int) -> None:
        now = time.monotonic()
        self._slot_seconds += self.in_flight * (now - self._changed_at)
        self._changed_at = now
        self.in_flight += number
