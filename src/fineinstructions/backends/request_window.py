"""How many requests one server is asked at once: as many as it takes, learned from what it turns back.

In: how many requests succeeded, how many came back with 429 or 503. Out: the size of the window, between 1 and a limit.

The decision a reader would question: the window shrinks by as many requests as were turned back, at most by half in one
round trip, and not by half for every one of them. A server that is full turns back what is too much, so one round trip
tells how much that is; a server that turns back everything halves it; and one that fails at random costs one slot at a
time, which one round trip of successes brings back. To ask how much it takes costs a request each time, so a size that
failed is tried less and less often.
"""

MAX_PATIENCE = 32
"""Most round trips of successes before a size that failed is tried again."""


class RequestWindow:
    """The window of one server.

    Args:
        limit: Largest size, and the first.
    """

    def __init__(self, limit: int) -> None:
        self.limit = self.size = self.least = limit
        self.trip = 0
        """Number of this round trip: requests that were sent in an earlier one say nothing of this window."""
        self.num_changes = 0
        """How often the size changed."""
        self._safe = limit
        """Size up to which every success brings back a slot; from there on only a round trip of them adds one."""
        self._before = limit
        self._turned_back = self._successes = self._progress = 0
        self._patience = 1
        self._had_success = False

    def lower_limit(self, limit: int) -> None:
        """Take over a limit, if it is the lower one."""
        if limit < self.limit:
            self.limit = limit
            self._resize(min(self.size, limit))

    def succeeded(self, number: int, *, is_full: bool) -> None:
        """Count replies.

        Args:
            number: How many came.
            is_full: Whether more requests wait than the window holds; else success does not say that there is room.
        """
        self._successes += number
        if self.size >= self.limit or not is_full:
            return
        if self.size < self._safe:
            self._resize(min(self._safe, self.limit, self.size + number))
            return
        self._progress += number
        if self._progress >= self.size * self._patience:
            self._progress = 0
            if self.size > self._safe:  # it has stood a size that was not known to be safe
                self._patience = max(1, self._patience // 2)
            self._resize(self.size + 1)

    def turned_back(self, number: int, trip: int) -> None:
        """Count requests that came back with 429 or 503.

        Args:
            number: How many.
            trip: Round trip in which they were sent. What was sent in the last one counts with it, what is older counts
                for nothing.
        """
        if not number or not max(0, self.trip - 1) <= trip <= self.trip:
            return
        if trip == self.trip:
            self._begin_trip()
        self._turned_back += number
        self._resize(max(self._before - self._turned_back, self._before // 2, 1))
        if self._had_success:
            self._safe = self.size

    def _begin_trip(self) -> None:
        is_probe = self.size > self._safe
        self._patience = min(MAX_PATIENCE, 2 * self._patience) if is_probe else 1
        self._had_success = self._successes > 0  # a server that only turns back is away, which says nothing of its size
        self._before, self._turned_back, self._successes, self._progress = self.size, 0, 0, 0
        self.trip += 1

    def _resize(self, size: int) -> None:
        self.num_changes += size != self.size
        self.size = size
        self.least = min(self.least, size)
