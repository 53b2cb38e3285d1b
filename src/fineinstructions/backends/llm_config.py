"""How a recipe names a language model: what runs it, where it lies, how it is asked.

In: the section ``llm`` of a recipe, with a stage's own keys laid over it. Out: a checked `LlmConfig`. Addresses come
from the recipe or the environment and never hold a secret; keys come from the environment only.
"""

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from fineinstructions.backends.serve_config import Serve, another_model
from fineinstructions.config import Config, from_mapping, to_plain
from fineinstructions.errors import ConfigError

DEFAULT_BASE_URL = "https://api.openai.com/v1"

Structured = Literal["schema", "structured_outputs", "guided_json", "grammar", "object", "none"]
"""How a request can hold a reply to a JSON schema, see `fineinstructions.backends.structured`."""


class LlmConfig(Config):
    """Which language model is asked, and how; holds the name of the key's variable, never the key."""

    engine: Literal["server", "transformers", "batch"] = "server"
    """What runs the model: ``server`` is any OpenAI-compatible one; ``transformers`` this machine, with the extra
    ``[hf]``, in one worker process; ``batch`` writes the requests into files for OpenAI's batch service or
    ``vllm run-batch`` and reads the results on the next run. Ours."""
    base_url: str | list[str] = ""
    """Address of the server, up to and including ``/v1``; or several, that serve the same model: every request goes to
    the one with most free slots, and one that fails gets none until it is back. Default: the variable OPENAI_BASE_URL,
    else OpenAI's own."""
    serve: Serve = None
    """Model that the run serves itself while it asks, by vLLM or SGLang in an environment of their own, in place of
    `base_url`: a folder or a name on the hub, or a section ``llm.serve``."""
    api_key_env: str = "OPENAI_API_KEY"
    """Name of the environment variable that holds the key. A server without keys needs none."""
    model: str = ""
    """Name of the model as the server knows it, with `serve` the model that is served unless you say otherwise; with
    ``transformers`` the folder of a causal language model with a chat template, or its name on the hub."""
    revision: str | None = None
    """Commit or tag of the model. With ``transformers``: of a model on the hub, exact, and needed there. With `serve`:
    what the server is started with. With another server, which does not tell what it serves: for the record, so start
    it with the same (vLLM: ``--revision``). Stands in every pair's lineage; another one asks the model again. An empty
    text refuses to run until it is filled in (`doctor RECIPE --resolve`)."""
    device: str = "auto"
    """With ``transformers``: ``cpu``, ``cuda``, ``cuda:1``, ...; ``auto`` takes a GPU if there is one. On a CPU a
    worker process uses one thread, ``--workers 0`` all."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """With ``transformers``: precision of the model; ``auto`` is bfloat16 on a GPU and float32 elsewhere. Lineage and
    cache name it where this or `device` is set; with both ``auto`` they do not, so name one where a run may go on with
    another device. Ours."""
    batch_tokens: int = Field(default=65_536, ge=1)
    """With ``transformers``: most tokens of a batch, each row counted as long as the longest prompt and reply; a batch
    holds one request at least. Ours."""
    temperature: float | None = Field(default=0.0, ge=0)
    """Sampling temperature; None leaves it to the server. Ours: 0, so that a run can be repeated."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Nucleus sampling; None leaves it to the server."""
    max_tokens: int = Field(default=2048, ge=1)
    """Longest reply in tokens. Ours."""
    context_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt and reply together, in tokens; decides how much of a long document an instantiator is shown. None
    takes what the server or the model's own settings say; where they say nothing, only `max_document_chars` counts."""
    tokenizer: str | None = None
    """Folder of the model's tokenizer, to count what fits into the context (needs the extra ``[hf]``); None estimates 3
    bytes of UTF-8 a token, which is more than nearly any text has. A run never asks the hub: download it first. Ours.
    """
    max_tokens_key: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls that limit; OpenAI's reasoning models want the second."""
    seed: int | None = None
    """Sampling seed, for servers that know one."""
    timeout_seconds: float = Field(default=180.0, gt=0)
    """Longest wait of a server's client for one whole reply. Ours."""
    max_in_flight: int = Field(default=64, ge=1)
    """Most requests under way at once at one server, over all workers, stages and work units; fewer while it answers
    429 or 503. Where stages name different numbers for one server, the smallest holds. With ``transformers`` most
    requests in a batch, where 1 makes replies independent of rounding in batches. Ours."""
    max_retries: int = Field(default=8, ge=0)
    """Further attempts after a transport error (no connection, time-out, 408, 409, 429, 5xx, broken reply); with
    ``batch`` further rounds. Ours."""
    backoff_seconds: float = Field(default=0.5, gt=0)
    """Wait before the first retry; doubles each time, up to 30 seconds. Ours."""
    unreachable_seconds: float = Field(default=0.0, ge=0)
    """How long a server that takes no connections is waited for at every attempt, before that counts as failed; with
    `serve` its ``ready_seconds``. Ours."""
    max_retry_after_seconds: float = Field(default=120.0, ge=0)
    """Longest wait that a server's Retry-After may ask for. Ours."""
    max_reasks: int = Field(default=2, ge=0)
    """How often a reply that does not parse is answered with a request to repair it. Ours."""
    max_failures_in_a_row: int = Field(default=20, ge=1)
    """After this many failed requests without one success in between a server is given up, and the run stops where no
    other is left. Ours."""
    prompt_price: float | None = Field(default=None, ge=0)
    """What a million prompt tokens of the model cost, in whatever currency. Like `completion_price` it decides nothing:
    `status`, `audit` and `report` turn tokens into money. There is no list of prices."""
    completion_price: float | None = Field(default=None, ge=0)
    """What a million generated tokens cost."""
    structured: Literal["auto"] | Structured = "auto"
    """Ask the server to hold replies to a JSON schema: by ``response_format`` (``schema``), by a field of vLLM
    (``structured_outputs``, ``guided_json``) or of llama.cpp (``grammar``); to any JSON object (``object``), or to
    nothing. ``auto`` tries them out once, in this order, and asks for nothing with ``batch``. Replies are parsed and
    checked in every case; ``transformers`` holds them to nothing."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further fields for the request body, for servers with options of their own; ``transformers`` knows
    ``chat_template_kwargs``, values for the chat template, which may name ``chat_template`` itself."""

    @field_validator("api_key_env")
    @classmethod
    def _a_name_not_a_key(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            raise ValueError("must be the name of an environment variable, never the key itself")
        return value

    @field_validator("base_url")
    @classmethod
    def _no_password(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, str):
            return without_secrets(value)
        if not all(value):
            raise ValueError("a list of addresses must hold no empty one")
        return [without_secrets(address) for address in value]

    @model_validator(mode="before")
    @classmethod
    def _served_under_its_own_name(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("model") or not data.get("serve"):
            return data
        served = data["serve"]
        name = served.get("model") if isinstance(served, dict) else getattr(served, "model", served)
        return {**data, "model": name} if isinstance(name, str) else data

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if self.serve is not None and self.base_url:
            raise ValueError("serve and base_url: name only one; the run starts the first and finds the second running")
        if self.serve is not None and self.engine != "server":
            raise ValueError(f"serve: starts a server, but engine is {self.engine}; leave out the one or the other")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """Addresses of the servers, each once, with the environment taken into account.

        Raises:
            ConfigError: As `server_address`; or if the server is one that a run has yet to start.
        """
        if self.serve is not None:
            raise ConfigError("llm.serve: nothing has started this server; name a running one in llm.base_url")
        chosen = [self.base_url] if isinstance(self.base_url, str) else self.base_url or [""]
        return tuple(dict.fromkeys(server_address(address, "llm.base_url") for address in chosen))

    @property
    def ahead(self) -> int:
        """Requests that one stream of records starts ahead of the one it waits for.

        Results are handed on in order, and while one reply is slow, those behind it come in: with exponential waits
        and a full window of 64, about four windows of them.
        """
        many = self.engine == "server" and self.serve is None  # a run starts one server for a model
        return 4 * self.max_in_flight * (len(self.addresses) if many else 1)


def without_secrets(address: str) -> str:
    """The address of a server, or nothing, as it was given.

    Raises:
        ValueError: If it is no web address or holds a user name or password; the message does not show it.
    """
    if address and not re.match(r"https?://", address):
        raise ValueError("must start with http:// or https://")
    if "@" in re.split(r"[/?#]", address.partition("://")[2], maxsplit=1)[0]:
        raise ValueError("must not hold a user name or password; put the key into an environment variable")
    return address


def server_address(chosen: str, setting: str) -> str:
    """The address chosen, else that of the variable OPENAI_BASE_URL, else OpenAI's own.

    Args:
        chosen: Address in the recipe; empty for none.
        setting: Name of the key that holds it, for messages.

    Raises:
        ConfigError: If the address is not fit to be shown in messages and sent requests.
    """
    named = os.environ.get("OPENAI_BASE_URL", "")
    try:
        return without_secrets(chosen or named or DEFAULT_BASE_URL).rstrip("/")
    except ValueError as error:
        raise ConfigError(f"{setting if chosen else 'OPENAI_BASE_URL'}: {error}") from None


def key_of(variable: str) -> str:
    """The key that a variable holds, without the blanks and line ends that come with one read from a file.

    Args:
        variable: Name of the environment variable.

    Returns:
        The key; empty for none.

    Raises:
        ConfigError: If it cannot be sent; libraries would show it in their own words.
    """
    key = os.environ.get(variable, "").strip()
    if not re.fullmatch(r"[!-~]*", key):
        raise ConfigError(f"{variable}: holds blanks or characters that no key has; set it to the key alone")
    return key


_OF_THE_MODEL = ("revision", "context_tokens", "tokenizer", "prompt_price", "completion_price")
"""Keys that belong to one model, so that a stage with another one does not take them over."""
_PLACES = ("serve", "base_url", "engine")
"""Keys that say what runs a model; a stage that sets one of them does not ask the shared server."""


def with_overrides(shared: LlmConfig, overrides: Mapping[str, Any]) -> LlmConfig:
    """The shared ``llm:`` section with one stage's own keys laid over it.

    What belongs to the shared model (revision, context, tokenizer, prices) does not go to a stage that names another.

    Raises:
        ConfigError: If an override is unknown or has a wrong value.
    """
    plain, own = to_plain(shared), dict(overrides)
    if own.get("serve") is not None:
        plain = {key: value for key, value in plain.items() if key not in ("model", "base_url", *_OF_THE_MODEL)}
        own["serve"] = another_model(shared.serve, own["serve"]) if shared.serve else own["serve"]
    elif own.get("model", shared.model) != shared.model:
        if shared.serve is not None and not any(key in own for key in _PLACES):
            raise ConfigError(
                f"llm.model: {own['model']} is not what llm.serve starts; say `serve: {own['model']}` in that stage's"
                " llm, or name the server that has it in base_url"
            )
        plain = {key: value for key, value in plain.items() if key not in _OF_THE_MODEL}
    if any(key in own for key in _PLACES):
        plain.pop("serve")
    return from_mapping(plain | own, LlmConfig, where="llm")


def _known_overrides(overrides: dict[str, Any]) -> dict[str, Any]:
    try:
        with_overrides(LlmConfig(), overrides)
    except ConfigError as error:
        raise ValueError(str(error).removeprefix("llm: ")) from None
    return overrides


LlmOverrides = Annotated[dict[str, Any], AfterValidator(_known_overrides)]
"""Keys of `LlmConfig` that one stage sets differently, such as ``{model: ..., max_tokens: ...}``."""
