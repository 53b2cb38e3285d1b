"""What the doctor says of the models that a recipe asks: they answer, what they can do, what a run will ask of them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fineinstructions.backends.llm import ChatClient
    from fineinstructions.backends.llm_config import LlmConfig
    from fineinstructions.backends.serve_config import ServeConfig
    from fineinstructions.recipe import RunConfig

Check = tuple[str, bool, str]
AT = " at "
"""Between a model and its address, where there are several."""


def model_checks(config: "RunConfig") -> Iterator[Check]:
    """Every model of the recipe's stages, each server once; each model is asked a few short questions."""
    from fineinstructions.backends.capabilities import model_key
    from fineinstructions.backends.llm import ChatClient
    from fineinstructions.endpoints import asked_models
    from fineinstructions.errors import ConfigError

    try:
        models = {model_key(llm): llm for llm in asked_models(config).values()}
        client = ChatClient(config.llm)
    except ConfigError as error:
        yield "server", False, str(error)
        return
    with client:
        served: dict[tuple[str, ...], list[LlmConfig]] = {}
        for llm in models.values():
            if llm.serve is not None:
                yield _engine_check(llm.serve)
            elif llm.engine == "server":
                served.setdefault(llm.addresses, []).append(llm)
            elif llm.engine == "batch":
                yield "model", bool(llm.model), f"{llm.model or 'llm.model is missing'} (batch files; not asked now)"
            else:
                yield _abilities(client, llm)
        for together in served.values():
            checks = list(server_checks(together[0], [llm.model for llm in together]))
            yield from checks
            known = {detail.partition(AT)[0] for name, ok, detail in checks if name == "model" and ok}
            yield from (_abilities(client, llm) for llm in together if llm.model in known)


def _engine_check(serve: "ServeConfig") -> Check:
    """Whether the program is there that a run will serve a model with; it is not started but for its version."""
    from fineinstructions.backends.serve_config import engine_version, require_model
    from fineinstructions.errors import ConfigError

    try:
        require_model(serve)
        return "serve", True, f"{serve.model}: {engine_version(serve)}; started by a run only, so not asked now"
    except ConfigError as error:
        return "serve", False, str(error)


def _abilities(client: "ChatClient", llm: "LlmConfig") -> Check:
    from fineinstructions.errors import FineInstructionsError

    try:
        found = client.capabilities(llm).result()
    except FineInstructionsError as error:
        return "abilities", False, str(error)
    context = f"{found.context_tokens:,} tokens" if found.context_tokens else "unknown"
    details = f"{llm.engine}, structured output {found.structured}, logprobs {'yes' if found.logprobs else 'no'}"
    others = [
        f"{how} {name}"
        for how, name in (("served as", found.served_as), ("answers as", found.answers_as))
        if name not in ("", llm.model)
    ]
    named = f"{llm.model} ({', '.join(others)})" if others else llm.model
    return "abilities", True, f"{named}: {details}, context {context}"


def server_checks(llm: "LlmConfig", asked: list[str]) -> Iterator[Check]:
    """Whether servers answer and know the models; nothing is generated."""
    from fineinstructions.backends.llm_config import key_of
    from fineinstructions.errors import ConfigError

    try:
        key = key_of(llm.api_key_env)
    except ConfigError as error:
        yield "key", False, str(error)
        return
    yield "key", True, f"{llm.api_key_env} is {'set' if key else 'not set (fine for a server without keys)'}"
    try:
        addresses = llm.addresses
    except ConfigError as error:
        yield "server", False, str(error)
        return
    for address in addresses:
        yield from _at_one_server(address, key, asked, AT + address if len(addresses) > 1 else "")


def _at_one_server(address: str, key: str, asked: list[str], where: str) -> Iterator[Check]:
    import openai

    from fineinstructions.backends.completion import safe_line

    try:
        client = openai.OpenAI(base_url=address, api_key=key or "none", timeout=10, max_retries=0)
        known = {model.id for model in client.models.list()}
    except openai.OpenAIError as error:
        remedy = "start it, or set llm.base_url or OPENAI_BASE_URL"
        yield "server", False, f"{address}: {safe_line(str(error), key).rstrip('.')}; {remedy}"
        return
    yield "server", True, f"{address} answers"
    for model in asked:
        others = safe_line(", ".join(sorted(known)[:5]), key)
        detail = model if model in known else f"{model!r} is not served there; it has {others}"
        yield "model", model in known, detail + where
