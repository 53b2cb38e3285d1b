"""MixEval and MixEval-Hard: short questions whose answers a judge compares with the known one.

In: the two files of a version, free-form and multiple-choice. Out: for each item a share of the full mark. The judge
sees question, known answers and response, and not the context, as in the original. What differs from it, on purpose:
an unparsed multiple-choice judgement is worth nothing (and, in a second figure, a guess), never a random option;
nothing is cut from an answer, so that a long one is judged whole; the same responses are scored by rules too.

Source: https://github.com/Psycoy/MixEval (commit 7c52b41), whose prompts are not copied: set the three lines and the
prompt files to the original's to compare with its published figures.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fineinstructions.backends.chat import ChatReply
from fineinstructions.backends.prompt import Prompt, read_prompt
from fineinstructions.config import Config, digest
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.grading import (
    ROOM,
    Protocol,
    grade_messages,
    grade_prompt,
    marks,
    number_mark,
    read_grade,
)
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
from fineinstructions.evaluation.short_answer import (
    chosen_letter,
    context_of,
    exact_match,
    holds_target,
    letters,
    short_answer,
    word_overlap,
)
from fineinstructions.statistics import mean

FREE_FORM, MULTIPLE_CHOICE = "free-form", "multiple-choice"
FREE_FORM_PLACES = ("question", "targets", "answer", "context")
MULTIPLE_CHOICE_PLACES = ("question", "options", "answer", "context")
STEP_BY_STEP = frozenset({"BBH", "GSM8k", "MATH"})
"""Sources whose questions want some steps; as in the original."""
MAX_OPTIONS = 26
_NO_OPTION = "none"


class MixEvalConfig(Config):
    """MixEval's files and how its items are asked and judged."""

    path: str | None = None
    """Folder that holds ``free-form.json`` and ``multiple-choice.json`` (also ``.gz``), or one above it that holds
    ``mixeval-<version>/mixeval`` and ``mixeval-hard``; a URL that fsspec knows, such as ``hf://``, for the first."""
    version: Literal["2024-06-01", "2024-08-11"] = "2024-08-11"
    """Version of the items. Paper, section 4.3."""
    answer_tokens: int = Field(default=512, ge=1)
    """Longest answer of the model under test. As in the original."""
    judge_tokens: int = Field(default=1024, ge=1)
    """Longest reply of the judge. Ours."""
    judge_sees_context: bool = False
    """Show the judge the text that a question is about. As in the original: no."""
    choice_line: str = "Answer with the letter of the right option."
    """Line below the options. Ours."""
    short_line: str = "Answer the question in a few words."
    """Line below a free-form question. Ours."""
    steps_line: str = "Answer the question. Think step by step."
    """Line below a free-form question of BBH, GSM8k or MATH. Ours."""
    free_form_prompt: str | None = None
    """Prompt file for the judge in place of ours; places: `{{question}}`, `{{targets}}`, `{{answer}}`, `{{context}}`;
    the reply must end with a number from 0 to 1 in double brackets."""
    multiple_choice_prompt: str | None = None
    """The same for multiple choice; places: `{{question}}`, `{{options}}`, `{{answer}}`, `{{context}}`; the reply must
    hold one letter in double brackets."""


class MixEval:
    """One of MixEval's two sets.

    Args:
        config: Its settings.
        hard: Whether it is MixEval-Hard.
        protocol: How the judge replies.
        limit: Items of each kind; None for all.

    Raises:
        ConfigError: If a file or a prompt is wrong.
    """

    def __init__(
        self, config: MixEvalConfig, hard: bool, protocol: Protocol = "marks", limit: int | None = None
    ) -> None:
        self._config, self._hard, self._protocol, self._limit = config, hard, protocol, limit
        shipped = {kind: ROOM / f"mixeval.{kind.replace('-', '_')}.prompt.txt" for kind in (FREE_FORM, MULTIPLE_CHOICE)}
        self._free_form = _prompt(config.free_form_prompt, shipped[FREE_FORM], FREE_FORM_PLACES)
        self._choice = _prompt(config.multiple_choice_prompt, shipped[MULTIPLE_CHOICE], MULTIPLE_CHOICE_PLACES)

    @property
    def name(self) -> str:
        """As on the command line."""
        return "mixeval_hard" if self._hard else "mixeval"

    @property
    def version(self) -> str:
        """Version of the items."""
        return self._config.version

    @property
    def decisive(self) -> Mapping[str, Any]:
        """What decides the judgements apart from models."""
        own = self._protocol == "marks"
        prompts = [self._free_form, self._choice] if own else [grade_prompt(self._protocol)]
        return {
            "protocol": self._protocol,
            "prompts": digest(*[prompt.digest for prompt in prompts]),
            "judge_sees_context": self._config.judge_sees_context,
        }

    @cached_property
    def items(self) -> Sequence[EvalItem]:
        """All items: free-form, then multiple choice.

        Raises:
            ConfigError: If a file is missing or a row is none of MixEval's.
        """
        found = [
            self._item(kind, where, row) for kind in (FREE_FORM, MULTIPLE_CHOICE) for where, row in self._rows(kind)
        ]
        twice = [name for name, times in Counter(item.item_id for item in found).items() if times > 1]
        if twice:
            raise ConfigError(f"{self._config.path}: the item {twice[0]} is there twice; name one version's folder")
        return take(found, self._limit)

    def _rows(self, kind: str) -> list[tuple[str, dict[str, Any]]]:
        if not self._config.path:
            raise ConfigError(
                "mixeval.path: missing; name the folder of MixEval's data (it is not part of this package)"
            )
        split = "mixeval-hard" if self._hard else "mixeval"
        root = self._config.path.rstrip("/")
        if "://" in root:
            return read_rows(f"{root}/{kind}.json", "mixeval")
        below = ("", split, f"mixeval-{self._config.version}/{split}")
        tried = [Path(root) / part / f"{kind}.json{end}" for part in reversed(below) for end in ("", ".gz")]
        chosen = next((path for path in tried if path.is_file()), None)
        if chosen is None:
            raise ConfigError(f"mixeval.path: {root} holds no {kind}.json, nor mixeval-{self._config.version}/{split}")
        if chosen.parent == Path(root) and (Path(root).name == "mixeval-hard") != self._hard:
            raise ConfigError(
                f"mixeval.path: {root} holds the other of the two sets; name the folder above for {split}"
            )
        return read_rows(str(chosen), "mixeval")

    def _item(self, kind: str, where: str, row: dict[str, Any]) -> EvalItem:
        question, source = text_of(row, "prompt", where), text_of(row, "benchmark_name", where)
        target = row.get("target")
        options = row.get("options") if kind == MULTIPLE_CHOICE else None
        if kind == FREE_FORM and not (target and isinstance(target, list) and all(isinstance(t, str) for t in target)):
            raise ConfigError(f"{where}: 'target' is no list of texts; is it MixEval's free-form.json?")
        if kind == MULTIPLE_CHOICE and not _is_choice(target, options):
            raise ConfigError(f"{where}: 'target' is not the number of one of 2 to {MAX_OPTIONS} 'options'")
        context = context_of(row)
        if options:
            lines = [f"{question}\n{_listed(options)}\n{self._config.choice_line}"]
            asked = "\n".join([context, *lines] if context else lines)
        else:
            line = self._config.steps_line if source in STEP_BY_STEP else self._config.short_line
            asked = "Question: " + "\n".join([*([context] if context else []), question, line])
        name = f"{kind}/{row.get('id', where.rpartition(' ')[2])}"
        return EvalItem(name, kind, name, (("user", asked),), row)

    def questions(self, item: EvalItem, answer: Answer) -> Iterator[Question]:
        """The one question about an answer."""
        row = item.record
        context = context_of(row) if self._config.judge_sees_context else ""
        if self._protocol != "marks":
            yield self._grade(item, answer, context)
        elif item.part == FREE_FORM:
            targets = "\n".join(f"- {target}" for target in dict.fromkeys(row["target"]))
            values = {"question": row["prompt"], "targets": targets, "answer": answer.text, "context": context}
            yield Question("", self._free_form.fill(values), _read_share)
        else:
            options = _listed(row["options"])
            values = {"question": row["prompt"], "options": options, "answer": answer.text, "context": context}
            known = letters(len(row["options"]))
            yield Question("", self._choice.fill(values), lambda reply: _read_letter(reply, known, row["target"][0]))

    def _grade(self, item: EvalItem, answer: Answer, context: str) -> Question:
        row, protocol = item.record, self._protocol
        question = f"{context}\n{row['prompt']}" if context else str(row["prompt"])
        if item.part == FREE_FORM:
            reference = " / ".join(dict.fromkeys(row["target"]))
            criterion = "Does the response give one of the known right answers, which are separated by slashes?"
        else:
            question = f"{question}\n{_listed(row['options'])}"
            right = row["target"][0]
            reference = f"{letters(MAX_OPTIONS)[right]}. {row['options'][right]}"
            criterion = "Does the response choose the option that is known to be right, and no other?"
        messages = grade_messages(
            protocol,
            question=question,
            answer=answer.text,
            reference=reference,
            criterion=criterion,
            best="It says what is known to be right.",
            worst="It says something else, or nothing.",
        )

        def read(reply: ChatReply) -> Reading:
            grade = read_grade(protocol, reply)
            return grade if item.part == FREE_FORM else {**grade, "value": float(grade["score"] >= 4)}

        return Question("", messages, read, logprobs=True)

    def score(self, item: EvalItem, answer: Answer, judgements: Mapping[str, Judgement]) -> ItemScore:
        """What an answer is worth by its judgement, and by rule."""
        judgement = judgements.get("")
        reading = judgement.reading if judgement else None
        value = float(reading["value"]) if reading and not answer.reason else 0.0
        is_parsed = bool(answer.reason) or reading is not None
        options = item.record.get("options") if item.part == MULTIPLE_CHOICE else None
        guess = value if is_parsed or not options else 1 / len(options)
        facts = {"source": item.record["benchmark_name"], **_by_rule(item, answer.text)}
        return ItemScore(item.item_id, item.part, item.group, value, guess, is_parsed, facts)

    @staticmethod
    def figures(scores: Sequence[ItemScore]) -> dict[str, float]:
        """Means over items, which weighs both kinds by their number as the original does."""
        return {
            "score": mean(s.score for s in scores),
            "score_at_chance": mean(s.chance for s in scores),
            "free_form": mean(s.score for s in scores if s.part == FREE_FORM),
            "multiple_choice": mean(s.score for s in scores if s.part == MULTIPLE_CHOICE),
            "multiple_choice_at_chance": mean(s.chance for s in scores if s.part == MULTIPLE_CHOICE),
            **dict(_fact_means(scores)),
        }


def by_source(scores: Sequence[ItemScore]) -> dict[str, tuple[float, int]]:
    """Mean score and number of items of every benchmark that the items come from."""
    found: dict[str, list[float]] = {}
    for score in scores:
        found.setdefault(str(score.facts["source"]), []).append(score.score)
    return {name: (mean(values), len(values)) for name, values in sorted(found.items())}


def _prompt(chosen: str | None, shipped: Path, places: Sequence[str]) -> Prompt:
    return read_prompt(Path(chosen) if chosen else shipped, places)


def _is_choice(target: Any, options: Any) -> bool:
    if not (
        isinstance(options, list) and 2 <= len(options) <= MAX_OPTIONS and all(isinstance(o, str) for o in options)
    ):
        return False
    return isinstance(target, list) and len(target) == 1 and target[0] in range(len(options))


def _listed(options: Sequence[str]) -> str:
    return "\n".join(f"{name}. {option}" for name, option in zip(letters(len(options)), options, strict=True))


def _read_share(reply: ChatReply) -> Reading:
    return {"value": number_mark(reply.text, 0, 1)}


def _read_letter(reply: ChatReply, known: str, right: int) -> Reading:
    """The option that the judge found; it may say that there is none, which is an answer."""
    found = [m for m in marks(reply.text) if (len(m) == 1 and m in known) or m.lower() == _NO_OPTION]
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} options in double brackets instead of one of {', '.join(known)} or {_NO_OPTION}"
        )
    return {"value": float(found[0] == known[right]), "letter": found[0]}


def _by_rule(item: EvalItem, response: str) -> dict[str, Any]:
    row = item.record
    if item.part == MULTIPLE_CHOICE:
        letter = chosen_letter(response, row["options"])
        right = letters(len(row["options"]))[row["target"][0]]
        guess = 1 / len(row["options"]) if letter is None else float(letter == right)
        unread = float(letter is None)
        return {"rule_choice": float(letter == right), "rule_choice_at_chance": guess, "rule_unread": unread}
    found = short_answer(response)
    return {
        "short_answer": found,
        "rule_exact": float(exact_match(found, row["target"])),
        "rule_holds": float(holds_target(response, row["target"])),
        "rule_overlap": word_overlap(found, row["target"]),
    }


_FACTS = (
    *("rule_exact", "rule_holds", "rule_overlap", "rule_choice", "rule_choice_at_chance", "rule_unread"),
    *("option_letter", "option_letter_mass", "option_text", "option_text_per_char"),
)


def _fact_means(scores: Sequence[ItemScore]) -> Iterator[tuple[str, float]]:
    """Means of what rules and option probabilities say, over the items that they apply to."""
    for name in _FACTS:
        values = [float(s.facts[name]) for s in scores if s.facts.get(name) is not None]
        if values:
            yield name, mean(values)
