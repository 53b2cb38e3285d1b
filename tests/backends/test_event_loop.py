"""An event loop in a thread of its own."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest

from fineinstructions.backends.event_loop import LoopThread, cancel_others


async def thread_name() -> str:
    return threading.current_thread().name


async def wait_for_ever() -> None:
    await asyncio.Event().wait()


def test_work_is_done_in_the_named_thread_which_ends_with_it() -> None:
    loop = LoopThread("a-loop")
    assert loop.run(thread_name()) == "a-loop"
    loop.stop()
    assert loop.loop.is_closed()
    assert "a-loop" not in {thread.name for thread in threading.enumerate()}


def test_all_other_work_is_cancelled_and_has_ended_before_the_call_returns() -> None:
    loop = LoopThread("a-loop")
    waiting = [loop.start(wait_for_ever()) for _ in range(3)]
    loop.run(cancel_others())
    for future in waiting:
        with pytest.raises(CancelledError):
            future.result(timeout=30)
    loop.stop()


def test_an_error_reaches_the_caller() -> None:
    async def fail() -> None:
        raise ValueError("no")

    loop = LoopThread("a-loop")
    with pytest.raises(ValueError, match="no"):
        loop.run(fail())
    loop.stop()
