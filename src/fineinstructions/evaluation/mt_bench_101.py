"""MT-Bench-101: one reply in a dialogue whose earlier turns are given, judged from 1 to 10 by the rubric of its task.

In: the file of dialogues. Out: a score per turn; per dialogue the least of them, per task the mean over dialogues, in
all the mean over the 13 tasks. What differs from the original's scorer, on purpose: a judgement that cannot be read is
not dropped before the least is taken, which would raise the score of a dialogue. Such a dialogue is worth nothing in
``score`` and no part of ``parsed_only``; what the original would say is ``as_original``.

Source: https://github.com/mtbench101/mt-bench-101 (commit bc18b3e, arXiv:2402.14762); the scorer of OpenCompass. The
rubrics are in our own words; ``prompt`` and ``rubrics`` name other files.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fineinstructions.backends.chat import ChatReply
from fineinstructions.backends.prompt import Message, read_prompt
from fineinstructions.config import Config, digest
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.grading import ROOM, Protocol, grade_messages, grade_prompt, number_mark, read_grade
from fineinstructions.evaluation.items import (
    Answer,
    EvalItem,
    ItemScore,
    Judgement,
    Question,
    Reading,
    read_rows,
    take,
    text_of,
)
from fineinstructions.statistics import mean

TASKS = ("CM", "AR", "SI", "TS", "CC", "CR", "FR", "SC", "SA", "MR", "GR", "IC", "PI")
FIRST_TURN_GIVEN = frozenset({"FR", "CR", "AR", "SA", "SC", "CM"})
"""Tasks whose first turn only prepares the second, and is not judged."""
WITH_REFERENCE = frozenset({"MR", "GR"})
"""Tasks whose judge is shown the dialogue as it is given, its last reply included."""
PLACES = ("criterion", "dialogue", "reference")
LOWEST, HIGHEST = 1, 10


class MtBench101Config(Config):
    """MT-Bench-101's file and how it is judged."""

    path: str | None = None
    """``mtbench101.jsonl``: rows with ``task``, ``id`` and ``history`` (a list of ``user`` and ``bot``)."""
    turns: Literal["all", "first"] = "all"
    """Which turns are answered: all that are judged, or the first of them in each dialogue, which makes it a test of
    single replies. Where a task's first turn is given, that is the second one. Ours: all, as in the original."""
    answer_tokens: int = Field(default=1024, ge=1)
    """Longest answer of the model under test. Ours."""
    judge_tokens: int = Field(default=1024, ge=1)
    """Longest reply of the judge. Ours."""
    prompt: str | None = None
    """Prompt file for the judge in place of ours; places: `{{criterion}}`, `{{dialogue}}`, `{{reference}}`; the reply
    must end with a whole number from 1 to 10 in double brackets."""
    rubrics: str | None = None
    """File with the criterion of each task in place of ours: a line ``TASK: criterion`` each."""


class MtBench101:
    """The benchmark.

    Args:
        config: Its settings.
        protocol: How the judge replies.
        limit: Dialogues of each task; None for all.

    Raises:
        ConfigError: If the prompt or the rubrics are wrong.
    """

    name = "mt_bench_101"

    def __init__(self, config: MtBench101Config, protocol: Protocol = "marks", limit: int | None = None) -> None:
        self._config, self._protocol, self._limit = config, protocol, limit
        self._prompt = read_prompt(Path(config.prompt) if config.prompt else ROOM / "mt_bench_101.prompt.txt", PLACES)
        self._criteria = _read_rubrics(Path(config.rubrics) if config.rubrics else ROOM / "mt_bench_101.rubrics.txt")

    @property
    def turns(self) -> str:
        """Which turns are answered."""
        return self._config.turns

    @property
    def decisive(self) -> Mapping[str, Any]:
        """What decides the judgements apart from models."""
        prompt = self._prompt if self._protocol == "marks" else grade_prompt(self._protocol)
        return {"protocol": self._protocol, "prompts": digest(prompt.digest, self._criteria)}

    @cached_property
    def items(self) -> Sequence[EvalItem]:
        """The turns to be answered, each with the given ones before it.

        Raises:
            ConfigError: If the file is missing or a row is no dialogue of the 13 tasks.
        """
        if not self._config.path:
            raise ConfigError(
                "mt_bench_101.path: missing; name the benchmark's mtbench101.jsonl (it is not part of this package)"
            )
        rows = read_rows(self._config.path, "mt_bench_101")
        found = [item for where, row in rows for item in self._turns_of(where, row)]
        twice = [name for name, times in Counter(item.item_id for item in found).items() if times > 1]
        if twice:
            raise ConfigError(
                f"{self._config.path}: the turn {twice[0]} is there twice; every dialogue needs its own id"
            )
        return take(found, self._limit)

    def _turns_of(self, where: str, row: dict[str, Any]) -> Iterator[EvalItem]:
        task, history = text_of(row, "task", where), row.get("history")
        if task not in TASKS:
            raise ConfigError(f"{where}: unknown task {task!r}; known are {', '.join(TASKS)}")
        if not isinstance(history, list) or not all(isinstance(turn, dict) for turn in history):
            raise ConfigError(f"{where}: 'history' is no list of turns; is it MT-Bench-101's own file?")
        said = [(text_of(turn, "user", where), text_of(turn, "bot", where)) for turn in history]
        first = 1 if task in FIRST_TURN_GIVEN else 0
        if len(said) <= first:
            raise ConfigError(f"{where}: no turn to judge; task {task} needs {first + 1} or more")
        group = f"{task}/{row.get('id')}"
        for number in range(first, len(said) if self._config.turns == "all" else first + 1):
            before: list[Message] = []
            for user, bot in said[:number]:
                before += [("user", user), ("assistant", bot)]
            messages = (*before, ("user", said[number][0]))
            yield EvalItem(f"{group}/{number + 1}", task, group, messages, {**row, "turn": number})

    def questions(self, item: EvalItem, answer: Answer) -> Iterator[Question]:
        """The one question about a reply."""
        gold = item.record["history"][: item.record["turn"] + 1]
        reference = ""
        if item.part in WITH_REFERENCE:
            reference = _written([m for turn in gold for m in (("user", turn["user"]), ("assistant", turn["bot"]))])
        dialogue = _written([*item.messages, ("assistant", answer.text)])
        criterion = self._criteria[item.part]
        if self._protocol == "marks":
            values = {"criterion": criterion, "dialogue": dialogue, "reference": reference}
            yield Question("", self._prompt.fill(values), _read_rating)
            return
        protocol = self._protocol
        messages = grade_messages(
            protocol,
            question=_written(item.messages),
            answer=answer.text,
            reference=reference,
            criterion=criterion,
            best="The last reply meets all of it.",
            worst="The last reply misses it.",
        )

        def read(reply: ChatReply) -> Reading:
            grade = read_grade(protocol, reply)
            return {**grade, "value": LOWEST + grade["value"] * (HIGHEST - LOWEST)}

        yield Question("", messages, read, logprobs=True)

    def score(self, item: EvalItem, answer: Answer, judgements: Mapping[str, Judgement]) -> ItemScore:
        """The rating of a reply, 1 to 10; 0 where there is no answer or no rating."""
        judgement = judgements.get("")
        reading = judgement.reading if judgement else None
        value = float(reading["value"]) if reading and not answer.reason else 0.0
        return ItemScore(item.item_id, item.part, item.group, value, value, bool(answer.reason) or reading is not None)

    @staticmethod
    def figures(scores: Sequence[ItemScore]) -> dict[str, float]:
        """The mean over tasks of the mean over dialogues; then every task's own.

        Args:
            scores: Of dialogues, as `dialogues` makes them.
        """
        tasks = {task: found for task in TASKS if (found := [s for s in scores if s.part == task])}
        least_read = [[s.facts["least_read"] for s in found] for found in tasks.values()]
        return {
            "score": mean(mean(s.score for s in found) for found in tasks.values()),
            "parsed_only": _mean_of_means([s.score for s in found if s.is_parsed] for found in tasks.values()),
            "as_original": _mean_of_means([least for least in found if least is not None] for found in least_read),
            **{f"task_{task}": mean(s.score for s in found) for task, found in tasks.items()},
        }


def dialogues(scores: Sequence[ItemScore]) -> list[ItemScore]:
    """One score for each dialogue: the least of its turns, where a turn without a rating counts 0.

    Args:
        scores: Of turns.

    Returns:
        Dialogues in the order of their first turns; ``least_read`` is the least of the ratings that could be read,
        which is what the original takes, and None where there is none.
    """
    turns: dict[str, list[ItemScore]] = {}
    for score in scores:
        turns.setdefault(score.group, []).append(score)
    made = []
    for group, found in turns.items():
        read = [turn.score for turn in found if turn.is_parsed]
        least = min(turn.score if turn.is_parsed else 0.0 for turn in found)
        facts = {"least_read": min(read, default=None)}
        made.append(ItemScore(group, found[0].part, group, least, least, len(read) == len(found), facts))
    return made


def _mean_of_means(values: Iterable[Sequence[float]]) -> float:
    return mean(mean(part) for part in values if part)


def _written(messages: Sequence[Message]) -> str:
    names = {"user": "User", "assistant": "Assistant"}
    return "\n\n".join(f"{names[role]}: {text}" for role, text in messages)


def _read_rating(reply: ChatReply) -> Reading:
    value = number_mark(reply.text, LOWEST, HIGHEST)
    if value != int(value):
        raise ValueError(f"[[{value}]] is no whole number")
    return {"value": value}


def _read_rubrics(path: Path) -> dict[str, str]:
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mt_bench_101.rubrics: {path} cannot be read: {error}") from None
    found = {task.strip(): text.strip() for task, colon, text in (line.partition(":") for line in lines) if colon}
    missing = [task for task in TASKS if not found.get(task)]
    if missing:
        raise ConfigError(f"mt_bench_101.rubrics: {path} has no line '{missing[0]}: ...'")
    return {task: found[task] for task in TASKS}
