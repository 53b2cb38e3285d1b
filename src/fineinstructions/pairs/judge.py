"""Expanded draft to judged pair; the threshold and the template cap, both applied late.

In: expanded drafts with their templates and documents. Out: one pair per draft whatever its score, or a rejection.
`judge` keeps low scores, so that the threshold can be moved later without asking a model again. An unparseable verdict
is a rejection of its own and never a low score.
"""

import functools
import json
import logging
import math
import re
import threading
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from fineinstructions.backends.llm import (
    ChatError,
    ChatModel,
    ChatReply,
    ChatRequest,
    LlmOverrides,
    chat_rejection,
    model_json,
    with_overrides,
)
from fineinstructions.backends.metered import AsksModel
from fineinstructions.backends.ordered import in_order, one_to_one
from fineinstructions.backends.prompt import as_input, read_prompt
from fineinstructions.config import Config
from fineinstructions.judging import VERDICT_PARSERS, Verdict, expected_score
from fineinstructions.pair_text import pair_text
from fineinstructions.records import (
    Document,
    ExpandedDraft,
    Judgement,
    Pair,
    Rejection,
    Template,
    as_dict,
    content_id,
    rejection,
    to_json,
)

Judged = tuple[ExpandedDraft, Template, Document]
"""What a judge sees: a draft with its template and its document."""

PLACES = ("input", "instruction", "answer", "document", "document_input", "document_rule")
"""What a judge prompt can be filled with; those of the document are empty unless `with_document` is set."""

DOCUMENT_RULE = " The document is what the answer was quoted from: an answer that contradicts it deserves at most 2."
"""What `{{document_rule}}` says where there is a document. Ours."""

LONG_ROPE_TOKENS = 4096
"""Served for more than this, a Phi-3 model uses other position factors for short texts too, and scores differ."""
_PHI_3 = re.compile(r"phi-?3|flow-?_?judge", re.IGNORECASE)
_logger = logging.getLogger(__name__)


class JudgeConfig(Config):
    """How drafts are scored and which pairs are kept."""

    model: Literal["embedded", "openai"] = "embedded"
    """Tier: the model that ships with the package, or a server."""
    llm: LlmOverrides = Field(default_factory=dict)
    """Keys of the `llm` section that this stage sets differently."""
    protocol: Literal["json", "flow", "prometheus"] = "json"
    """What the judge replies: a JSON object, the tags of Flow Judge, or Prometheus' feedback and `[RESULT]`."""
    prompt: str | None = None
    """Prompt file instead of the one that ships; places: `{{input}}` (JSON), `{{instruction}}`, `{{answer}}`,
    `{{document}}`, `{{document_input}}` (the document inside a tag), `{{document_rule}}` (how to grade against it)."""
    with_document: bool = False
    """Show the judge the document too. Ours: off, as the paper's judge scores instruction and answer."""
    max_document_chars: int = Field(default=12_000, ge=1)
    """Longest beginning of a document that the judge is shown, in characters. Ours."""
    logprobs: bool = True
    """Ask the server for token probabilities and keep the expected score (`judge_expected_score`) beside the score; a
    server without them costs nothing. Ours."""
    max_model_len: int | None = Field(default=None, ge=1)
    """Tokens that the judge is served for, recorded with every score; ``None`` takes what the server says. A Phi-3
    model such as Flow Judge scores differently above 4096. Ours."""
    min_score: int = Field(default=4, ge=1, le=5)
    """Lowest score that is kept. Paper, section 3.4."""
    min_expected_score: float | None = Field(default=None, ge=1, le=5)
    """Lowest expected score that is kept, in addition to `min_score` (set that to 1 to let this one decide); a pair
    without an expected score is measured by its score. Ours."""
    max_template_share: float = Field(default=0.04, gt=0, le=1)
    """Largest share of the kept pairs that one template may have; 1 for no limit. Applied last, to pairs that are made
    and judged; `sample.max_sampled_share` limits the matches before a model is asked. Ours."""
    template_cap_floor: int = Field(default=20, ge=0)
    """Pairs that a template may keep whatever its share, so that a small run is not thinned out. Ours."""


class Judge(Protocol):
    """A model that scores drafts, one outcome per draft, in order."""

    @property
    def model(self) -> str:
        """Name, revision and prompt digest, as a JSON object."""

    def judge(self, items: Iterable[Judged]) -> Iterator[Judgement | Rejection]:
        """Verdicts, or what became of the draft instead."""


def judge(
    items: Iterable[Judged], judge: Judge, lineage: Mapping[str, str] | None = None
) -> Iterator[Pair | Rejection]:
    """Score drafts and make pairs of them, whatever the score.

    Args:
        items: Expanded drafts with their templates and documents.
        judge: The model.
        lineage: Further models behind the pairs, name of the role to a JSON object, such as ``genericizer``.

    Yields:
        One pair or rejection per item, in order.

    Raises:
        BackendError: If the model as a whole gave up, or did not keep to the order.

    Source:
        arXiv:2601.22146, sections 3.4 and 4.2.
    """
    for item, outcome in one_to_one(items, judge.judge, _belongs, "judge"):
        if isinstance(outcome, Rejection):
            yield outcome
        else:
            yield _pair(item, outcome, {"judge": outcome.model or judge.model, **(lineage or {})})


def _belongs(item: Judged, outcome: Judgement | Rejection) -> bool:
    return pair_id(item[0]) == (outcome.record_id if isinstance(outcome, Rejection) else outcome.pair_id)


def pair_id(draft: ExpandedDraft) -> str:
    """Id of the pair that a draft becomes."""
    return content_id("p", draft.document_id, draft.template_id)


def _pair(item: Judged, verdict: Judgement, models: dict[str, str]) -> Pair:
    draft, template, document = item
    plain = {**as_dict(draft), "slots": draft.slots, "excerpts": draft.excerpts}
    model = plain.pop("model")
    return Pair(
        **plain,
        pair_id=pair_id(draft),
        query_ids=template.query_ids,
        judge_score=verdict.score,
        judge_expected_score=verdict.expected_score,
        judge_feedback=verdict.feedback,
        models=_models_json((("instantiator", model), *models.items())),
        licence=document.licence,
        template_licence=template.licence,
        source=document.source,
        title=document.title,
        url=document.url,
        metadata=document.metadata,
        text=pair_text(draft.instruction, draft.answer),
    )


@functools.lru_cache(maxsize=64)
def _models_json(models: tuple[tuple[str, str], ...]) -> str:
    """One JSON object of the models; each is itself a JSON object, or a plain name."""
    return to_json({role: json.loads(model) if model.startswith("{") else model for role, model in models})


def select(pairs: Iterable[Pair], config: JudgeConfig, surplus: Collection[str]) -> Iterator[Pair | Rejection]:
    """Both late filters: the threshold, then the template cap.

    Args:
        pairs: Judged pairs.
        config: The threshold.
        surplus: Ids that `surplus_pairs` named, of the pairs above the threshold.

    Yields:
        Each pair, or its rejection: ``low_score`` or ``low_expected_score`` with that score as value, or
        ``template_cap``.

    Source:
        arXiv:2601.22146, section 3.4; the cap is ours.
    """
    for pair in pairs:
        too_low = too_low_score(pair, config)
        if too_low is not None:
            yield rejection("select", too_low[0], pair.pair_id, pair, too_low[1])
        elif pair.pair_id in surplus:
            yield rejection("select", "template_cap", pair.pair_id, pair)
        else:
            yield pair


def too_low_score(pair: Pair, config: JudgeConfig) -> tuple[str, float] | None:
    """Reason and score of a pair below one of the thresholds; None for a pair that is good enough."""
    return too_low(pair.judge_score, pair.judge_expected_score, config)


def too_low(score: int, expected_score: float | None, config: JudgeConfig) -> tuple[str, float] | None:
    """Reason and score of a pair with these scores; None for a pair that is good enough.

    Args:
        score: The judge's score.
        expected_score: Its expected score; None where there is none.
        config: The thresholds.
    """
    if score < config.min_score:
        return "low_score", float(score)
    expected = score if expected_score is None else expected_score
    if config.min_expected_score is not None and expected < config.min_expected_score:
        return "low_expected_score", float(expected)
    return None


def surplus_pairs(
    ids: Iterable[tuple[str, str]], max_template_share: float, seed: int, floor: int = 0
) -> frozenset[str]:
    """Pairs to turn down so that no template has more than its share of what is kept.

    Every template keeps at most as many pairs as the largest cap allows that makes the share hold; which of its pairs
    stay is settled by a hash of seed and pair id, so neither order nor workers matter.

    Args:
        ids: Pair id and template id of every selected pair.
        max_template_share: Largest share, 0 to 1.
        seed: Seed of the run.
        floor: Pairs that every template keeps whatever its share.

    Returns:
        Ids of the surplus pairs. Empty where no cap can make the share hold, because there are too few templates.

    Source:
        Ours; the paper reports no template above 0.09 % of its data (section 6.1).

    Example:
        >>> ids = [(f"p-{n}", "t-much") for n in range(9)] + [("p-x", "t-a"), ("p-y", "t-b"), ("p-z", "t-c")]
        >>> len(surplus_pairs(ids, 0.4, seed=0))
        7
    """
    by_template: defaultdict[str, list[str]] = defaultdict(list)
    for pair, template in ids:
        by_template[template].append(pair)
    found = template_cap([len(pairs) for pairs in by_template.values()], max_template_share)
    if found is None:
        return frozenset()
    cap = max(found, floor)
    return frozenset(
        pair
        for pairs in by_template.values()
        if len(pairs) > cap
        for pair in sorted(pairs, key=lambda pair: content_id("cap", str(seed), pair))[cap:]
    )


def template_cap(counts: Sequence[int], max_share: float) -> int | None:
    """Largest number of pairs per template with which no template exceeds a share of all that are kept.

    Args:
        counts: Number of pairs of every template.
        max_share: Largest share, 0 to 1.

    Returns:
        The cap, at least 1; None where none is needed or none can help.

    Example:
        >>> template_cap([9, 1, 1, 1], 0.4), template_cap([5, 5], 0.6), template_cap([5, 5], 0.3)
        (2, None, None)
    """
    rising = sorted(counts)
    total = sum(rising)
    if not rising or rising[-1] <= max_share * total:
        return None
    # With a cap between two neighbouring counts the kept total grows evenly: one division finds the largest cap there.
    for place in range(len(rising) - 1, -1, -1):
        total -= rising[place]
        capped = len(rising) - place
        lowest = rising[place - 1] if place else 0
        # cap <= share * (total + capped * cap)  <=>  cap * (1 - share * capped) <= share * total
        slope = 1 - max_share * capped
        cap = rising[place] if slope <= 0 else min(rising[place], math.floor(max_share * total / slope + 1e-9))
        if cap >= max(1, lowest):
            return cap
    return None


class PromptedJudge(AsksModel):
    """Judge that asks a model, by prompt and reply format of a protocol.

    Args:
        client: The language model.
        config: The stage's settings.

    Raises:
        ConfigError: If the prompt file or an override is wrong.
    """

    def __init__(self, client: ChatModel, config: JudgeConfig) -> None:
        self._client = client
        self._config = config
        self._llm = with_overrides(client.llm, config.llm)
        shipped = Path(__file__).with_name(f"judge.{config.protocol}.prompt.txt")
        self._prompt = read_prompt(Path(config.prompt) if config.prompt else shipped, PLACES)
        self._parse = VERDICT_PARSERS[config.protocol]
        self._asking_server = threading.Lock()

    @property
    def model(self) -> str:
        """Model, sampling, protocol and prompt digest, as a JSON object; no server is asked for it."""
        return to_json(self._described)

    @property
    def _described(self) -> dict[str, Any]:
        return {**json.loads(model_json(self._llm, self._prompt)), "protocol": self._config.protocol}

    @functools.cached_property
    def _max_model_len(self) -> int | None:
        """What the judge is served for, as set or as the server says; warns of what that does to a Phi-3 model."""
        found = self._config.max_model_len or self._client.context_tokens(self._llm)
        if found is not None and found > LONG_ROPE_TOKENS and _PHI_3.search(self._llm.model):
            _logger.warning(
                "judge %s is served with max_model_len %s: a Phi-3 model scores short texts differently above %s; "
                "serve it with --max-model-len %s",
                *(self._llm.model, found, LONG_ROPE_TOKENS, LONG_ROPE_TOKENS),
            )
        return found

    def judge(self, items: Iterable[Judged]) -> Iterator[Judgement | Rejection]:
        """Verdicts as the model gave them; runs ahead by two windows.

        Raises:
            BackendError: If the server as a whole fails.
        """
        with self._asking_server:  # units of several threads share this judge
            model = to_json({**self._described, "max_model_len": self._max_model_len})
        for (draft, _, _), future in in_order(items, self._ask, ahead=self._llm.ahead):
            try:
                verdict, expected = future.result()
                yield Judgement(pair_id(draft), verdict.score, verdict.feedback, model, expected)
            except ChatError as error:
                yield chat_rejection("judge", pair_id(draft), as_dict(draft), error, format_reason="unparseable")

    def _ask(self, item: Judged) -> "Future[tuple[Verdict, float | None]]":
        draft, _, document = item
        shown = document.text[: self._config.max_document_chars] if self._config.with_document else ""
        values = {"instruction": draft.instruction, "answer": draft.answer} | ({"document": shown} if shown else {})
        places = {
            **values,
            "input": as_input(**values),
            "document": shown,
            "document_input": f"\n<document>\n{shown}\n</document>" if shown else "",
            "document_rule": DOCUMENT_RULE if shown else "",
        }
        schema = SCHEMA if self._config.protocol == "json" else None
        request = ChatRequest(self._prompt.fill(places), schema, self._llm, self._config.logprobs)
        return self._client.ask_whole(request, self._read)

    def _read(self, reply: ChatReply) -> tuple[Verdict, float | None]:
        verdict = self._parse(reply.text)
        return verdict, expected_score(reply.text, verdict, reply.logprobs)


SCHEMA = {
    "type": "object",
    "properties": {"feedback": {"type": "string"}, "score": {"type": "integer", "enum": [1, 2, 3, 4, 5]}},
    "required": ["feedback", "score"],
    "additionalProperties": False,
}
"""Schema of a verdict in the json protocol."""
