"""Ctrl-C that waits until a process is started."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Start processes with Ctrl-C blocked, so that it reaches the driver only, and the driver once they are started.

    Blocking the signal is what the new process inherits. It does not protect the driver: another of its threads takes
    the signal, and Python then interrupts the main thread all the same, half-way through the start. So the signal is
    also caught and sent again at the end.
    """
    caught: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, lambda number, _: caught.append(number)) if in_main_thread else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main_thread:
            signal.signal(signal.SIGINT, handler or signal.SIG_DFL)
        if caught:
            signal.raise_signal(signal.SIGINT)
