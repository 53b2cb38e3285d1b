"""How full a request window is, seen from the server."""

import threading

from fineinstructions.backends.scripted_server import ScriptedServer


class WindowWatch:
    """How many requests a server has under way while it has any, looked at every few milliseconds."""

    def __init__(self, server: ScriptedServer) -> None:
        self._server, self._seen, self._over = server, list[int](), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.002):
            if self._server.in_flight:
                self._seen.append(self._server.in_flight)

    def stop(self) -> float:
        """The mean of what was seen."""
        self._over.set()
        self._thread.join()
        return sum(self._seen) / len(self._seen)
