"""Side hallway: a model under test and a judge -> scores on benchmarks, over one ledger that survives every kill.

In: the names of benchmarks, a checkpoint or an endpoint, a judge, and where the benchmarks' files lie. Out: for each
benchmark a folder with the ledger, item scores, figures with intervals, and the answers in the original's format.

The decision to question: all answers come before the first judgement, so that a model and a judge that share a GPU are
never loaded together. What is known is written at once; the same command goes on where it stopped and asks nobody
twice.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fineinstructions.backends.cache import ResponseCache
from fineinstructions.backends.chat import ChatReply, ChatRequest, model_name
from fineinstructions.backends.completion import ChatError
from fineinstructions.backends.llm import ChatClient
from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.backends.ordered import in_order
from fineinstructions.config import differences, digest, to_plain
from fineinstructions.errors import ConfigError
from fineinstructions.evaluation.alpaca_eval import AlpacaEval
from fineinstructions.evaluation.exports import Files, alpaca_eval_files, mixeval_files, mt_bench_101_files
from fineinstructions.evaluation.items import Answer, Benchmark, EvalItem, ItemScore, Judgement, Question
from fineinstructions.evaluation.ledger import ANSWER, JUDGE, Ledger
from fineinstructions.evaluation.mixeval import MixEval
from fineinstructions.evaluation.mt_bench_101 import MtBench101
from fineinstructions.evaluation.report import page
from fineinstructions.evaluation.scoring import Counts, Figure, count, figures_of, plain_figures, score_lines
from fineinstructions.evaluation_recipe import EvaluationConfig, found_files, model_under_test, prompt_format
from fineinstructions.option_scores import score_options
from fineinstructions.progress import Progress, Silent
from fineinstructions.records import as_dict
from fineinstructions.runs.durable import watch_disk, write_text
from fineinstructions.runs.lease import hold_lease

NAMES = ("mixeval", "mixeval_hard", "mt_bench_101", "alpaca_eval")
SETTINGS_FILE, LEDGER_FILE, ITEMS_FILE, SCORES_FILE = "settings.json", "ledger.jsonl", "items.jsonl", "scores.json"
REPORT_FILE = "report.md"
ENGINE_TROUBLE = frozenset({"transport", "request", "pending"})
"""Kinds of trouble that say nothing about the item: it is asked again."""
_UNPARSED = {"format": "unparsed"}
MODEL_FOLDER = "model"
"""What trainings call the folder of the model that they made."""
SCRIPTED = "scripted"
"""What the scripted server calls its model."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What came out of one benchmark."""

    benchmark: str
    model: str
    judge: str
    is_plumbing: bool
    """Whether the judge follows a script, so that the figures say nothing about the model."""
    figures: dict[str, Figure]
    counts: Counts
    num_failed: int
    """Questions that an engine failed on; the same command asks them again."""
    num_waiting: int
    """Items that have no score until those are answered, with all others of their dialogues."""
    facts: dict[str, Any]
    """Settings that a reader of the figures must know."""
    folder: str


def evaluate(
    names: Sequence[str],
    config: EvaluationConfig,
    out: str | Path,
    *,
    redo: bool = False,
    progress: Progress | None = None,
) -> list[Evaluated]:
    """Score a model on benchmarks; continue where an earlier call was stopped.

    Args:
        names: Benchmarks, or ``all``.
        config: The models and the benchmarks' settings.
        out: Folder of the results.
        redo: Whether what other settings have made may be dropped.
        progress: Told what goes on, a step being a phase and an item a unit; by default nobody.

    Returns:
        What came out, in the order of `names`.

    Raises:
        ConfigError: If a name, a setting or a file is wrong, or other settings made what is in the folder.
        BackendError: If a model as a whole gave up; what is known stays for the next call.
    """
    told, root, config = progress or Silent(), Path(out), found_files(config)
    if "://" in str(out):
        raise ConfigError(f"{out}: an evaluation lies in a folder of this machine; choose another --out")
    for section in ("model", "judge"):
        require_engine(section, getattr(config, section))
    benchmarks = [open_benchmark(name, config) for name in chosen_names(names)]
    for benchmark in benchmarks:
        benchmark.items  # noqa: B018 -- a file that is wrong is told before any model is asked
    root.mkdir(parents=True, exist_ok=True)
    with watch_disk(root), hold_lease(root / ".lock"):
        found = [_evaluate_one(benchmark, config, root, redo, told) for benchmark in benchmarks]
        write_text(root / REPORT_FILE, page([read_evaluation(root / name) for name in NAMES if _is_done(root, name)]))
    return found


def chosen_names(names: Sequence[str]) -> list[str]:
    """The benchmarks of these names, each once; ``all`` for every one.

    Raises:
        ConfigError: If one is unknown.
    """
    wanted = [part for name in names for part in (NAMES if name == "all" else (name.replace("-", "_"),))]
    unknown = [name for name in wanted if name not in NAMES]
    if unknown or not wanted:
        raise ConfigError(f"eval: unknown benchmark {''.join(unknown[:1])!r}; known are {', '.join(NAMES)} and all")
    return list(dict.fromkeys(wanted))


def open_benchmark(name: str, config: EvaluationConfig) -> Benchmark:
    """A benchmark by its name, with its settings; no file is read yet.

    Raises:
        ConfigError: If a prompt is wrong.
    """
    if name == "mt_bench_101":
        return MtBench101(config.mt_bench_101, config.protocol, config.limit)
    if name == "alpaca_eval":
        return AlpacaEval(config.alpaca_eval, config.protocol, config.limit)
    return MixEval(config.mixeval, name == "mixeval_hard", config.protocol, config.limit)


def require_engine(section: str, llm: LlmConfig) -> None:
    """Refuse a model that an evaluation cannot ask.

    Raises:
        ConfigError: If nothing names one, or the engine works inside runs only.
    """
    if not llm.model:
        raise ConfigError(f"{section}: no model; say --{section} FOLDER, or --{section} NAME@http://HOST:PORT/v1")
    if llm.engine == "batch" or llm.serve is not None:
        raise ConfigError(f"{section}: neither batch files nor serve work here; start a server and name it in base_url")


def _evaluate_one(benchmark: Benchmark, config: EvaluationConfig, root: Path, redo: bool, told: Progress) -> Evaluated:
    folder = root / benchmark.name
    section = config.section(benchmark.name)
    model = model_under_test(config.model, config.format, section.answer_tokens)
    judge_tokens = max(section.judge_tokens, 512) if config.protocol != "marks" else section.judge_tokens
    judge = config.judge.model_copy(update={"max_tokens": judge_tokens})
    mark = _marks(benchmark, config, model, judge)
    stale = _stale(folder, mark, redo)
    if stale == "answers":
        (folder / LEDGER_FILE).unlink(missing_ok=True)
    folder.mkdir(exist_ok=True)
    with Ledger(folder / LEDGER_FILE, forget_judgements=stale == "judgements") as ledger:
        write_text(folder / SETTINGS_FILE, json.dumps(mark, ensure_ascii=False, indent=1) + "\n")
        with _client(model, root) as client:
            _answer(benchmark, client, ledger, prompt_format(config.model, config.format), told)
        if config.options and benchmark.name.startswith("mixeval"):
            score_options(benchmark, model, ledger, told)
        plumbing = _is_plumbing(judge, root, folder)
        with _client(judge, root) as client:
            _judge(benchmark, client, ledger, told)
        return _conclude(benchmark, config, ledger, folder, plumbing)


def _marks(benchmark: Benchmark, config: EvaluationConfig, model: LlmConfig, judge: LlmConfig) -> dict[str, Any]:
    """What decides answers, and what decides judgements besides."""
    asked = [[item.item_id, list(item.messages)] for item in benchmark.items]
    known = [[item.item_id, dict(item.record)] for item in benchmark.items]
    answers = {**_decisive(model), "format": prompt_format(config.model, config.format), "items": digest(asked)}
    judgements = {**_decisive(judge), "records": digest(known), **benchmark.decisive}
    return {"answers": answers, "judgements": judgements}


def _decisive(llm: LlmConfig) -> dict[str, Any]:
    plain = to_plain(llm)
    names = ("revision", "temperature", "top_p", "max_tokens", "seed", "extra_body")
    return {"model": model_name(llm), **{name: plain[name] for name in names}}


def _stale(folder: Path, mark: Mapping[str, Any], redo: bool) -> str:
    """What of a folder was made with other settings: ``answers``, ``judgements`` or nothing.

    Raises:
        ConfigError: If something was, and nobody said that it may be dropped.
    """
    path = folder / SETTINGS_FILE
    if not path.exists():
        return _without_settings(folder, redo)
    changed = differences(_plain(path), json.loads(json.dumps(mark)))
    if not changed:
        return ""
    if not redo:
        name, before, now = changed[0]
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise ConfigError(
            f"{folder}: was made with {name} = {before!r}, not {now!r}{more}; choose another --out, or say --redo"
        )
    return "answers" if any(name.startswith("answers") for name, _, _ in changed) else "judgements"


def _without_settings(folder: Path, redo: bool) -> str:
    if not (folder / LEDGER_FILE).exists():
        return ""
    if not redo:
        raise ConfigError(f"{folder}: nobody knows how it was made; choose another --out, or say --redo")
    return "answers"


@contextmanager
def _client(llm: LlmConfig, root: Path) -> Iterator[ChatClient]:
    with ResponseCache(root / "cache") as cache, ChatClient(llm, cache) as client:
        yield client


def _answer(benchmark: Benchmark, client: ChatClient, ledger: Ledger, form: str, told: Progress) -> None:
    """Ask the model under test what it has not answered yet."""
    step, items = f"{benchmark.name} answers", benchmark.items
    missing = [item for item in items if item.item_id not in ledger.answers]
    told.start(step, len(items), len(items) - len(missing))

    def ask(item: EvalItem) -> "Future[ChatReply]":
        return client.submit(ChatRequest(item.messages, may_be_cut=True))

    for item, future in in_order(missing, ask, client.llm.ahead):
        try:
            reply = future.result()
            ledger.add_answer(item.item_id, _as_answer(reply.text, reply.finish_reason == "length", form))
        except ChatError as error:
            if error.kind in ENGINE_TROUBLE:
                ledger.add_failure(ANSWER, item.item_id, error.kind, str(error))
            else:
                ledger.add_answer(item.item_id, Answer(error.raw, error.kind))
        told.advance(step, 1)
    told.finish(step)


def _as_answer(text: str, is_cut: bool, form: str) -> Answer:
    """What a model said, without the next instruction that a model of bare text makes up by itself."""
    if form == "chat":
        return Answer(text, is_cut=is_cut)
    answer, goes_on, _ = text.partition("\n\nInstruction:")
    return Answer(answer.strip(), is_cut=is_cut and not goes_on)


def _judge(benchmark: Benchmark, client: ChatClient, ledger: Ledger, told: Progress) -> None:
    """Ask the judge what it has not judged yet."""
    step = f"{benchmark.name} judgements"
    wanted = [
        (item, question)
        for item in benchmark.items
        if item.item_id in ledger.answers and not ledger.answers[item.item_id].reason
        for question in benchmark.questions(item, ledger.answers[item.item_id])
    ]
    missing = [(i, q) for i, q in wanted if q.name not in ledger.judgements.get(i.item_id, {})]
    told.start(step, len(wanted), len(wanted) - len(missing))

    def ask(place: tuple[EvalItem, Question]) -> "Future[Judgement]":
        question = place[1]
        request = ChatRequest(question.messages, question.schema, logprobs=question.logprobs, may_be_cut=True)
        return client.ask_whole(request, lambda reply: Judgement(question.read(reply), reply.text))

    for (item, question), future in in_order(missing, ask, client.llm.ahead):
        try:
            ledger.add_judgement(item.item_id, question.name, future.result())
        except ChatError as error:
            if error.kind in ENGINE_TROUBLE:
                ledger.add_failure(JUDGE, item.item_id, error.kind, str(error))
            else:
                ledger.add_judgement(
                    item.item_id, question.name, Judgement(None, error.raw, _UNPARSED.get(error.kind, error.kind))
                )
        told.advance(step, 1)
    told.finish(step)


def _is_plumbing(judge: LlmConfig, root: Path, folder: Path) -> bool:
    """Whether the judge only follows a script; a folder that is done asks no server."""
    if judge.engine != "server" or SCRIPTED in judge.model.lower():
        return SCRIPTED in judge.model.lower()
    kept = folder / "judge.json"
    asked = {"model": judge.model, "addresses": list(judge.addresses)}
    if kept.exists() and (known := _plain(kept)).get("asked") == asked:
        return bool(known["is_scripted"])
    with _client(judge, root) as client:
        found = is_scripted(judge, client)
    write_text(kept, json.dumps({"asked": asked, "is_scripted": found}, indent=1) + "\n")
    return found


def is_scripted(llm: LlmConfig, client: ChatClient) -> bool:
    """Whether a model only follows a script, by all the names that it has."""
    if llm.engine != "server" or SCRIPTED in llm.model.lower():
        return SCRIPTED in llm.model.lower()
    found = client.capabilities(llm).result()
    return SCRIPTED in f"{found.served_as} {found.answers_as}".lower()


def _conclude(
    benchmark: Benchmark, config: EvaluationConfig, ledger: Ledger, folder: Path, is_plumbing: bool
) -> Evaluated:
    """Score what is known and write it."""
    known = [item for item in benchmark.items if item.item_id in ledger.answers]
    waiting = {
        i.group for i in benchmark.items if i.item_id not in ledger.answers or not _is_whole(benchmark, i, ledger)
    }
    scores = [_score(benchmark, item, ledger) for item in known if item.group not in waiting]
    found = Evaluated(
        benchmark.name,
        shown_name(config.model),
        shown_name(config.judge),
        is_plumbing,
        figures_of(benchmark.name, scores, config.seed) if scores else {},
        count(ledger.answers, ledger.judgements, scores),
        ledger.num_failed,
        len(benchmark.items) - len(scores),
        config.shown(benchmark.name),
        str(folder),
    )
    write_text(folder / ITEMS_FILE, score_lines(scores))
    answers = [(item, ledger.answers[item.item_id]) for item in known]
    for path, text in _files(benchmark, found, answers, scores).items():
        place = folder / "responses" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, text)
    write_text(folder / SCORES_FILE, json.dumps(plain(found), ensure_ascii=False, indent=1) + "\n")
    return found


def shown_name(llm: LlmConfig) -> str:
    """What a reader calls a model: a folder by its own name, not by where it lies; ``model`` in it by that of both."""
    if llm.engine != "transformers" or not Path(llm.model).is_dir():
        return llm.model
    folder = Path(llm.model).resolve()
    return folder.parent.name if folder.name == MODEL_FOLDER and folder.parent.name else folder.name


def _is_whole(benchmark: Benchmark, item: EvalItem, ledger: Ledger) -> bool:
    """Whether nothing about an item waits to be asked again."""
    answer = ledger.answers[item.item_id]
    known = ledger.judgements.get(item.item_id, {})
    return bool(answer.reason) or all(question.name in known for question in benchmark.questions(item, answer))


def _score(benchmark: Benchmark, item: EvalItem, ledger: Ledger) -> ItemScore:
    score = benchmark.score(item, ledger.answers[item.item_id], ledger.judgements.get(item.item_id, {}))
    options = ledger.options.get(item.item_id)
    return replace(score, facts={**score.facts, **options}) if options else score


def _files(
    benchmark: Benchmark, found: Evaluated, answers: Sequence[tuple[EvalItem, Answer]], scores: Sequence[ItemScore]
) -> Files:
    if isinstance(benchmark, MixEval):
        return mixeval_files(benchmark.name, benchmark.version, found.model, answers)
    if isinstance(benchmark, MtBench101):
        return mt_bench_101_files(found.model, answers)
    return alpaca_eval_files(found.model, found.judge, answers, {score.item_id: score for score in scores})


def plain(found: Evaluated) -> dict[str, Any]:
    """What came out, as plain JSON values."""
    return {**as_dict(replace(found, figures={})), "figures": plain_figures(found.figures)}


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What came out of a benchmark, as `plain` gave it and its folder keeps it.

    Raises:
        ConfigError: If the file cannot be read.
    """
    return _plain(folder / SCORES_FILE)


def _is_done(root: Path, name: str) -> bool:
    return (root / name / SCORES_FILE).exists()


def _plain(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); remove it and run again") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path}: holds no JSON object; remove it and run again")
    return found
