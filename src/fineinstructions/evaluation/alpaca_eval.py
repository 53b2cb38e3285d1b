"""AlpacaEval 2: which of two answers a judge prefers, the model's or a baseline's.

In: instructions and a baseline's answers, in the original's files. Out: for every instruction how far the model is
preferred, 0 to 1: by the probabilities of the judge's one-letter reply where there are any, else by the letter. What
differs from the original, on purpose: every pair is shown in both orders, so that a judge that likes what stands first
is found out and does not count; the original shows one order, drawn at random.

Source: https://github.com/tatsu-lab/alpaca_eval (commit cd543a1, arXiv:2404.04475), annotator
``weighted_alpaca_eval_gpt4_turbo``. Its prompt is not copied: ``prompt`` names that file, which is read as it is.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fineinstructions.backends.chat import ChatReply
from fineinstructions.backends.logprobs import TokenLogprob, token_at
from fineinstructions.backends.prompt import Prompt, read_prompt
from fineinstructions.backends.replies import thinking_end
from fineinstructions.config import Config, digest
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.grading import ROOM, Protocol, grade_messages, grade_prompt, read_grade
from fineinstructions.evaluation.items import Answer, EvalItem, ItemScore, Judgement, Question, Reading, take
from fineinstructions.evaluation.length_control import controlled_win_rate, style_win_rate
from fineinstructions.evaluation.pair_files import read_coefficients, read_pairs
from fineinstructions.statistics import mean

PLACES = ("instruction", "first", "second")
FIRST, SECOND = "m", "M"
"""What the judge calls the answers; as in the original."""
AS_SECOND, AS_FIRST = "as_second", "as_first"
"""Where the model's answer stands; the first is what the original calls ``output_2``."""
_CHATML = re.compile(r"<\|im_start\|>(\w+)\n(.*?)\n?<\|im_end\|>", re.DOTALL)
_ORIGINAL_PLACES = {"{instruction}": "{{instruction}}", "{output_1}": "{{first}}", "{output_2}": "{{second}}"}
_ORIGINAL_PLACE = re.compile("|".join(map(re.escape, _ORIGINAL_PLACES)))
_ALONE = re.compile(r"[\s\"'`*(\[]*([mM])[\s\"'`*)\].,:]*")


class AlpacaEvalConfig(Config):
    """AlpacaEval's files and how pairs are judged."""

    path: str | None = None
    """Instructions: ``alpaca_eval.json`` or the outputs of a model in the same form (``instruction``, ``dataset``,
    ``output``, ``generator``), as JSON, JSON lines, CSV or Parquet."""
    baseline: str = "reference_gpt4_1106_preview"
    """The baseline's answers: a column of the file in `path`, or another file in the form of model outputs, such as
    ``OTHER/alpaca_eval/responses/model_outputs.json``. Where it is neither, the column ``output`` of `path`."""
    orders: Literal["both", "original"] = "both"
    """Show each pair in both orders, or the baseline first only. Ours: both."""
    answer_tokens: int = Field(default=2048, ge=1)
    """Longest answer of the model under test. Ours."""
    judge_tokens: int = Field(default=1, ge=1)
    """Longest reply of the judge; more for a server or a protocol that needs it. As in the original: 1."""
    prompt: str | None = None
    """Prompt file for the judge in place of ours; places `{{instruction}}`, `{{first}}`, `{{second}}`, or a file
    of the original's form (``<|im_start|>``, ``{instruction}``, ...). The reply must be ``m`` or ``M``."""
    difficulty: str | None = None
    """What AlpacaEval publishes about its instructions, for the length-controlled figure, as CSV: ``df_gamed.csv``,
    which gives its own regression, or ``instruction_difficulty.csv`` (number of the instruction, then the value), which
    gives LC-style with that term. Both lie on the hub beside its data."""


class AlpacaEval:
    """The benchmark.

    Args:
        config: Its settings.
        protocol: ``marks`` for a judge that compares; any other grades each answer alone, and the better grade wins.
        limit: Instructions of each data set; None for all.

    Raises:
        ConfigError: If the prompt is wrong.
    """

    name = "alpaca_eval"

    def __init__(self, config: AlpacaEvalConfig, protocol: Protocol = "marks", limit: int | None = None) -> None:
        self._config, self._protocol, self._limit = config, protocol, limit
        self._prompt = pair_prompt(config.prompt)

    @property
    def decisive(self) -> Mapping[str, Any]:
        """What decides the judgements apart from models."""
        prompt = self._prompt if self._protocol == "marks" else grade_prompt(self._protocol)
        return {"protocol": self._protocol, "prompts": digest(prompt.digest), "orders": self._config.orders}

    @cached_property
    def items(self) -> Sequence[EvalItem]:
        """All instructions, each with the baseline's answer.

        Raises:
            ConfigError: If a file is missing or an instruction has no answer of the baseline.
        """
        if not self._config.path:
            raise ConfigError(
                "alpaca_eval.path: missing; name AlpacaEval's file of instructions (it is not part of this package)"
            )
        pairs = read_pairs(self._config.path, self._config.baseline)
        known = read_coefficients(self._config.difficulty) if self._config.difficulty else None
        if known is not None and len(known) < len(pairs):
            raise ConfigError(
                f"alpaca_eval.difficulty: no value for instruction {len(known)}; give that of the same file"
            )
        found = [
            EvalItem(
                item_id=str(number),
                part=str(pair["dataset"]),
                group=str(number),
                messages=(("user", str(pair["instruction"])),),
                record=pair if known is None else {**pair, **known[number]._asdict()},
            )
            for number, pair in enumerate(pairs)
        ]
        return take(found, self._limit)

    def questions(self, item: EvalItem, answer: Answer) -> Iterator[Question]:
        """Both orders; or a grade for each of the two."""
        instruction, baseline = item.messages[-1][1], str(item.record["baseline"])
        if self._protocol != "marks":
            for name, text in (("model", answer.text), ("baseline", baseline)):
                yield self._grade(name, instruction, text)
            return
        shown = {AS_SECOND: (baseline, answer.text), AS_FIRST: (answer.text, baseline)}
        for name in (AS_SECOND, AS_FIRST) if self._config.orders == "both" else (AS_SECOND,):
            first, second = shown[name]
            messages = self._prompt.fill({"instruction": instruction, "first": first, "second": second})
            yield Question(name, messages, _read_first if name == AS_FIRST else _read_second, logprobs=True)

    def _grade(self, name: str, instruction: str, text: str) -> Question:
        protocol = self._protocol
        messages = grade_messages(
            protocol,
            question=instruction,
            answer=text,
            reference="",
            criterion="How well does the response do what the person who gave the instruction wants?",
            best="It does all of it, rightly and readably.",
            worst="It does none of it.",
        )
        return Question(name, messages, lambda reply: read_grade(protocol, reply), logprobs=True)

    def score(self, item: EvalItem, answer: Answer, judgements: Mapping[str, Judgement]) -> ItemScore:
        """How far the model's answer is preferred, 0 to 1; an unread verdict counts for the baseline."""
        readings = {name: judgement.reading for name, judgement in judgements.items()}
        read = {name: reading for name, reading in readings.items() if reading is not None}
        is_parsed = bool(answer.reason) or (bool(readings) and len(read) == len(readings))
        facts: dict[str, Any] = {
            "dataset": item.part,
            "model_chars": len(answer.text),
            "baseline_chars": len(str(item.record["baseline"])),
            "difficulty": item.record.get("difficulty"),
            "gamed": item.record.get("gamed") or [],
        }
        if self._protocol == "marks":
            facts |= {name: reading["value"] for name, reading in read.items()}
            if not answer.reason and {AS_FIRST, AS_SECOND} <= read.keys():
                facts["first_preferred"] = (read[AS_FIRST]["value"] + 1 - read[AS_SECOND]["value"]) / 2
            value = sum(r["value"] for r in read.values()) / len(readings) if readings else 0.0
        else:
            grades = [
                float(read[who].get("expected", read[who]["score"])) for who in ("model", "baseline") if who in read
            ]
            value = (1 + (grades[0] > grades[1]) - (grades[0] < grades[1])) / 2 if len(grades) == 2 else 0.0
        value = 0.0 if answer.reason else float(value)
        return ItemScore(item.item_id, item.part, item.group, value, value, is_parsed, facts)

    @staticmethod
    def figures(scores: Sequence[ItemScore]) -> dict[str, float]:
        """The win rate and what stands beside it."""
        lengths = [[int(s.facts[f"{who}_chars"]) for s in scores] for who in ("model", "baseline")]
        preferences = [s.score for s in scores]
        first = [float(s.facts["first_preferred"]) for s in scores if "first_preferred" in s.facts]
        return {
            "win_rate": mean(preferences),
            "discrete_win_rate": discrete_win_rate(preferences),
            **_length_controlled(scores, preferences, lengths[0], lengths[1]),
            "parsed_only": mean(s.score for s in scores if s.is_parsed),
            "first_preferred": mean(first),
            "position_bias": mean(first) - 0.5,
            "model_chars": mean(lengths[0]),
            "baseline_chars": mean(lengths[1]),
        }


def _length_controlled(
    scores: Sequence[ItemScore], preferences: Sequence[float], model_chars: Sequence[int], baseline_chars: Sequence[int]
) -> dict[str, float]:
    """The length-controlled figure that can be had, under a name that says which it is."""
    known = [float(s.facts["difficulty"]) for s in scores if s.facts.get("difficulty") is not None]
    gamed = [s.facts["gamed"] for s in scores if s.facts.get("gamed")]
    if scores and len(known) == len(gamed) == len(scores):
        return {"length_controlled": controlled_win_rate(preferences, model_chars, baseline_chars, known, gamed)}
    difficulty = known if known and len(known) == len(scores) else None
    return {"length_controlled_style": style_win_rate(preferences, model_chars, baseline_chars, difficulty)}


def discrete_win_rate(preferences: Sequence[float]) -> float:
    """Share of wins, ties counted half.

    Args:
        preferences: For each item how far the model is preferred, 0 to 1.

    Example:
        >>> discrete_win_rate([0.9, 0.2, 0.5, 0.51])
        0.625
    """
    wins = Counter((value > 0.5) - (value < 0.5) for value in preferences)
    return (wins[1] + wins[0] / 2) / len(preferences) if preferences else math.nan


def pair_prompt(path: str | None) -> Prompt:
    """The prompt for comparing: ours, one in our form, or one in the original's.

    Raises:
        ConfigError: If it cannot be read or lacks a place.
    """
    if path is None:
        return read_prompt(ROOM / "alpaca_eval.prompt.txt", PLACES)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"alpaca_eval.prompt: {path} cannot be read: {error}") from None
    turns = _CHATML.findall(text)
    if not turns:
        return read_prompt(Path(path), PLACES)
    parts = {role: _ORIGINAL_PLACE.sub(lambda place: _ORIGINAL_PLACES[place[0]], said.strip()) for role, said in turns}
    lacking = [place for place in PLACES if f"{{{{{place}}}}}" not in parts.get("user", "")]
    if set(parts) - {"system", "user"} or len(parts) != len(turns) or lacking:
        raise ConfigError(f"alpaca_eval.prompt: {path}: needs one user turn with {', '.join(_ORIGINAL_PLACES)}")
    return Prompt(parts.get("system", ""), parts["user"])


def second_preferred(text: str, logprobs: Sequence[TokenLogprob] | None) -> float:
    """How far a judge prefers the answer that it calls ``M``, 0 to 1.

    Args:
        text: Its reply.
        logprobs: Of the reply's tokens, where there are any: then the share of ``M`` in the probability of both names.

    Raises:
        ValueError: If the reply names neither, or says more than a name.

    Source:
        AlpacaEval's ``logprob_parser``, which reads the first token.

    Example:
        >>> second_preferred("M", None), second_preferred(" m.", None)
        (1.0, 0.0)
    """
    start = thinking_end(text)
    found = _ALONE.fullmatch(text, start)
    token: TokenLogprob | None = None
    if found and logprobs:
        place = token_at(logprobs, text, found.start(1))
        token = place[0] if place else None
    elif not found and logprobs and not start:
        token = logprobs[0]  # the judge said another word where both names were likely too
    if token is not None:
        chances = {FIRST: 0.0, SECOND: 0.0}
        for name, value in dict([*token.alternatives, (token.token, token.logprob)]).items():
            if (bare := name.strip(" \"'`*([")) in chances:
                chances[bare] += math.exp(value)
        if sum(chances.values()) > 0:
            return chances[SECOND] / sum(chances.values())
    if not found:
        raise ValueError(f"the reply is neither {FIRST} nor {SECOND}")
    return float(found[1] == SECOND)


def _read_second(reply: ChatReply) -> Reading:
    """The model's answer stands second."""
    return {"value": second_preferred(reply.text, reply.logprobs)}


def _read_first(reply: ChatReply) -> Reading:
    """The model's answer stands first."""
    return {"value": 1 - second_preferred(reply.text, reply.logprobs)}
