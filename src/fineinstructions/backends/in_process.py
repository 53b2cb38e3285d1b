"""A causal language model in this process, with the extra ``[hf]``: requests of all stages, answered in batches.

In: request bodies as a server would get them. Out: completions. A thread takes what waits, first come, first served,
at most ``max_in_flight`` requests; sorts it by length, so that a batch is padded little; and generates batch by batch,
none of which holds rows that would change each other's replies, or more tokens than ``batch_tokens``.

The decision to question: batches are made of what happens to wait, because waiting for full ones would idle the device.
So who shares a batch depends on the moment. A reply does not, but for rounding (see `causal_model`).
"""

import asyncio
import contextlib
import importlib.util
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fineinstructions.backends.capabilities import ModelFacts
from fineinstructions.backends.causal_model import CausalModel, Sampling, context_limit, load_causal_model
from fineinstructions.backends.chat import precision
from fineinstructions.backends.completion import ChatError, Completion
from fineinstructions.backends.llm_config import LlmConfig, Structured
from fineinstructions.backends.model_folder import ModelFolder
from fineinstructions.errors import BackendError, ConfigError

EXTRA = "hf"
_PACKAGES = ("torch", "transformers", "safetensors")
_GATHER_SECONDS = 0.01
"""Wait for company after the first request of a batch: submitting is much faster than generating."""
_JOIN_SECONDS = 25.0
"""Wait for the last token; after that the thread is left to itself."""
_KNOWN_FIELDS = frozenset(
    {"model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "seed", "dtype", "logprobs"}
    | {"top_logprobs", "chat_template_kwargs"}
)


@dataclass
class _Job:
    """One request and who waits for it."""

    prompt: list[int]
    sampling: Sampling
    model: CausalModel
    llm: LlmConfig
    loop: asyncio.AbstractEventLoop
    reply: "asyncio.Future[Completion]"

    @property
    def size(self) -> int:
        """Tokens of the prompt and the longest reply."""
        return len(self.prompt) + self.sampling.max_tokens


class InProcess:
    """The models of this process, each loaded with its first request, and the thread in which they generate."""

    fixed: tuple[Structured, bool] | None = ("none", True)

    def __init__(self) -> None:
        missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
        if missing:
            raise ConfigError(
                f"llm.engine: transformers needs {', '.join(missing)}; run pip install 'fineinstructions[{EXTRA}]'"
            )
        self._waiting: queue.Queue[_Job | None] = queue.Queue()
        self._models: dict[str, asyncio.Future[CausalModel]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False
        self._calls = self._peak = 0

    async def complete(self, body: Mapping[str, Any], llm: LlmConfig, key: str) -> Completion:
        """Answer one request.

        Args:
            body: The request; its sampling is all that is applied, the model's own defaults are not.
            llm: Model, device and precision.
            key: Decides every draw, where the temperature is not 0.

        Raises:
            ChatError: If the prompt does not fit into the context, or the chat template refuses it.
            BackendError: If the device gives out.
            ConfigError: If the model cannot be loaded, or a field means nothing to it.
        """
        unknown = sorted(set(body) - _KNOWN_FIELDS)
        if unknown:
            raise ConfigError(f"llm.extra_body: {unknown[0]} means nothing to a model in this process; leave it out")
        model = await self._model(llm)
        job = _job(body, model, llm, key)
        self._calls += 1
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="in-process-model", daemon=True)
            self._thread.start()
        self._waiting.put(job)
        return await job.reply

    async def facts(self, llm: LlmConfig) -> ModelFacts:
        """Identity of the model and the context that its files name; no weights are loaded."""
        folder = ModelFolder.of(llm.model, llm.revision, section="llm")
        settings = folder.read("config.json"), folder.read("tokenizer_config.json")
        return ModelFacts(folder.identity, context_limit(*(s if isinstance(s, dict) else {} for s in settings)))

    def stop(self, error: BackendError) -> None:
        """Answer nothing any more but the batch that is under way."""
        with contextlib.suppress(queue.Empty):
            while job := self._waiting.get_nowait():
                _settle(job, error)

    async def close(self) -> None:
        """End the thread, which stops at the next token, and let go of the models."""
        self._closed = True
        if self._thread is not None:
            self._waiting.put(None)
            await asyncio.to_thread(self._thread.join, _JOIN_SECONDS)
        self._models.clear()

    def figures(self) -> dict[str, int]:
        """Requests so far and the largest batch."""
        return {"calls": self._calls, "retries": 0, "peak_in_flight": self._peak}

    async def _model(self, llm: LlmConfig) -> CausalModel:
        key = f"{llm.model} {llm.revision} {llm.device} {llm.dtype}"
        if key not in self._models:
            self._models[key] = asyncio.ensure_future(asyncio.to_thread(load_model, llm))
        return await asyncio.shield(self._models[key])

    def _work(self) -> None:
        while not self._closed:
            jobs = self._gather()
            for batch in _batches(jobs):
                self._peak = max(self._peak, len(batch))
                try:
                    self._answer(batch)
                except Exception as error:  # noqa: BLE001 -- a third party's; everybody who waits must hear of it
                    trouble = error if isinstance(error, BackendError) else _device_trouble(error)
                    for job in batch:
                        _settle(job, trouble)

    def _gather(self) -> list[_Job]:
        """What waits, at most one window of it; waits itself until there is something."""
        jobs: list[_Job] = []
        while not jobs or len(jobs) < jobs[0].llm.max_in_flight:
            try:
                job = self._waiting.get(timeout=_GATHER_SECONDS if jobs else None)
            except queue.Empty:
                break
            if job is None:
                break
            jobs.append(job)
        return [job for job in jobs if not job.reply.cancelled()]

    def _answer(self, batch: Sequence[_Job]) -> None:
        model = batch[0].model
        made = model.generate(
            [job.prompt for job in batch],
            [job.sampling for job in batch],
            lambda row: self._closed or batch[row].reply.cancelled(),
        )
        for job, generated in zip(batch, made, strict=True):
            logprobs = model.token_logprobs(generated) if job.sampling.logprobs else None
            reason = "stop" if generated.ended else "length"
            counts = len(job.prompt), len(generated.ids)
            _settle(job, Completion(model.text(generated), reason, "", *counts, logprobs))


def load_model(llm: LlmConfig) -> CausalModel:
    """Load the model of a section ``llm`` with the engine ``transformers``.

    Raises:
        ConfigError: If there is no such model or device.
    """
    import torch

    device = llm.device if llm.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.device(device)
    except RuntimeError:
        raise ConfigError(f"llm.device: there is no device {llm.device!r}; give cpu or cuda") from None
    folder = ModelFolder.of(llm.model, llm.revision, section="llm")
    return load_causal_model(folder, device, precision(llm.dtype, device))


def _job(body: Mapping[str, Any], model: CausalModel, llm: LlmConfig, key: str) -> _Job:
    try:
        prompt = model.prompt_ids(body["messages"], dict(body.get("chat_template_kwargs") or {}))
    except ValueError as error:
        raise ChatError("request", str(error)) from None
    most: int = body.get("max_tokens") or body["max_completion_tokens"]
    if model.context_tokens is not None:
        if len(prompt) >= model.context_tokens:
            raise ChatError(
                "too_long", f"the prompt has {len(prompt)} tokens, the context of the model {model.context_tokens}"
            )
        most = min(most, model.context_tokens - len(prompt))
    temperature, top_p = body.get("temperature"), body.get("top_p")
    sampling = Sampling(
        max_tokens=most,
        temperature=1.0 if temperature is None else temperature,
        top_p=1.0 if top_p is None else top_p,
        seed=int(key or "0", 16),
        logprobs=bool(body.get("logprobs")),
    )
    loop = asyncio.get_running_loop()
    return _Job(prompt, sampling, model, llm, loop, loop.create_future())


def _batches(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Jobs of one model and about one length each, longest first, so that too much for the memory is found early."""
    batch: list[_Job] = []
    for job in sorted(jobs, key=lambda job: (id(job.model), -job.size, -len(job.prompt))):
        if batch and not _is_batch([*batch, job]):
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


def _is_batch(jobs: Sequence[_Job]) -> bool:
    """Whether jobs may be answered together: every row is as long as the longest prompt and the longest reply."""
    model, prompts = jobs[0].model, [len(job.prompt) for job in jobs]
    most = max(job.sampling.max_tokens for job in jobs)
    fits = len(jobs) * (max(prompts) + most) <= jobs[0].llm.batch_tokens
    return fits and all(job.model is model for job in jobs) and model.may_share(prompts, most)


def _settle(job: _Job, outcome: Completion | BackendError) -> None:
    """Hand an outcome over to the loop that waits for it; nobody may wait any more, or the loop may be closed."""

    def settle() -> None:
        if not job.reply.done():
            if isinstance(outcome, Completion):
                job.reply.set_result(outcome)
            else:
                job.reply.set_exception(outcome)

    with contextlib.suppress(RuntimeError):
        job.loop.call_soon_threadsafe(settle)


def _device_trouble(error: Exception) -> BackendError:
    line = " ".join(str(error).split())[:300]
    return BackendError(
        f"the model in this process failed: {type(error).__name__}: {line}", hint="then rerun to resume"
    )
