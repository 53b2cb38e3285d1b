"""Side hallway: the probabilities that a model of this process gives to the options of multiple-choice items.

In: MixEval's items and the model under test. Out: `option_facts` of each item, in the ledger. A server is not asked:
few of them tell how probable a text is that they did not write themselves.
"""

from collections.abc import Sequence

from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.backends.prompt import Message
from fineinstructions.evaluation.items import Benchmark
from fineinstructions.evaluation.ledger import Ledger
from fineinstructions.evaluation.mixeval import MULTIPLE_CHOICE
from fineinstructions.evaluation.options import option_facts
from fineinstructions.progress import Progress


def score_options(benchmark: Benchmark, llm: LlmConfig, ledger: Ledger, told: Progress) -> None:
    """Score what has not been scored yet; items that do not fit into the context get no facts.

    Args:
        benchmark: MixEval or MixEval-Hard.
        llm: The model under test.
        ledger: Where facts are kept.
        told: Told what goes on.

    Raises:
        ConfigError: If the model cannot be loaded.
    """
    step = f"{benchmark.name} options"
    items = [item for item in benchmark.items if item.part == MULTIPLE_CHOICE]
    missing = [item for item in items if item.item_id not in ledger.options]
    if llm.engine != "transformers":
        told.note(f"{step}: left out, as the model runs elsewhere")
        return
    told.start(step, len(items), len(items) - len(missing))
    if missing:
        probability_of = _Chances(llm)
        for item in missing:
            try:
                ledger.add_options(item.item_id, option_facts(item, probability_of))
            except _TooLongError:
                ledger.add_options(item.item_id, {})
            told.advance(step, 1)
    told.finish(step)


class _TooLongError(Exception):
    """A prompt with a continuation does not fit into the context."""


class _Chances:
    """Tells how probable beginnings of a reply are."""

    def __init__(self, llm: LlmConfig) -> None:
        from fineinstructions.backends.in_process import load_model

        self._model = load_model(llm)
        self._values = dict(llm.extra_body.get("chat_template_kwargs", {}))
        self._blank = " " if "chat_template" in self._values else ""  # the form "Answer:" goes on with a blank

    def __call__(self, messages: Sequence[Message], beginnings: Sequence[str]) -> list[float]:
        from fineinstructions.backends.continuations import continuation_logprobs

        asked = [{"role": role, "content": text} for role, text in messages]
        prompt = self._model.prompt_ids(asked, self._values)
        parts = [self._model.text_ids(f"{self._blank}{text}") for text in beginnings]
        limit = self._model.context_tokens
        if limit is not None and len(prompt) + max(map(len, parts)) > limit:
            raise _TooLongError
        return continuation_logprobs(self._model, prompt, parts)
