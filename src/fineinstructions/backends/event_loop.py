"""An event loop in a thread of its own, for synchronous code that has to wait for many things at once.

In: coroutines from any thread. Out: their futures. The decision a reader would question: `stop` cancels nothing,
because only the owner knows what may be cancelled; see `cancel_others`.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE_SECONDS = 30
"""How long opening and closing something on the loop may take."""


class LoopThread:
    """A running event loop.

    Args:
        name: Name of its thread.
    """

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Begin some work on the loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do some short work on the loop, and wait for it.

        Raises:
            TimeoutError: If it takes longer than `PATIENCE_SECONDS`.
        """
        return self.start(work).result(timeout=PATIENCE_SECONDS)

    def stop(self) -> None:
        """End the thread and close the loop; what is still under way is never heard of again."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=PATIENCE_SECONDS)
        self.loop.close()


async def cancel_others() -> None:
    """Cancel everything else that runs on this loop, and wait until it has ended."""
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
