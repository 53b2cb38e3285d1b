"""What one stage of one work unit has asked of language models: counted where replies come in.

In: completions, in the client's thread. Out: a `Meter`. The decision a reader would question: a reply that comes out
of the response cache counts as it did when it was first given. So the figures of a unit are what its records rest on,
the same whether it was done at once or again after a kill, and a unit that is never committed counts for nothing.
"""

from dataclasses import dataclass

from fineinstructions.backends.completion import Completion


@dataclass
class Meter:
    """Replies of models, and what they took."""

    calls: int = 0
    """Replies, re-asks included; attempts that brought none are not in it."""
    reasks: int = 0
    """Replies that did not parse and were sent back."""
    prompt_tokens: int = 0
    """As the servers count."""
    completion_tokens: int = 0
    seconds: float = 0.0
    """From each request to its reply, all added up; 0 for engines that are no server."""

    def add(self, completion: Completion) -> None:
        """Count one reply."""
        self.calls += 1
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens
        self.seconds += completion.seconds

    @property
    def counts(self) -> dict[str, int]:
        """What is the same whenever the same is asked: all but the seconds."""
        return {name: value for name, value in vars(self).items() if name != "seconds"}
