"""The model servers that a run starts itself: one for every model that ``llm.serve`` names, while a phase asks it.

In: a setup, and the phases that are about to ask. Out: the same setup with the addresses of servers that are ready; at
the end of the context they are gone. The decision to question: servers live as long as a phase, not as long as the run.
A run asks in few phases, one after the other, and between them the GPUs belong to encoders or to the next model.
"""

import contextlib
import json
import math
import os
import secrets
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.request import getproxies_environment

from fineinstructions.backends.llm_config import LlmConfig
from fineinstructions.backends.serve_config import KEY_VARIABLE, ServeConfig, find_engine, require_model
from fineinstructions.backends.served import ServedModel
from fineinstructions.config import to_plain
from fineinstructions.endpoints import asked_models, asking
from fineinstructions.engines.resources import visible_gpus
from fineinstructions.errors import ConfigError
from fineinstructions.recipe import RunConfig
from fineinstructions.runs.durable import write_text
from fineinstructions.setup import Setup

LOOPBACK = "127.0.0.1"


def served_models(config: RunConfig) -> dict[str, LlmConfig]:
    """The model of every stage that asks a server which the run starts."""
    return {stage: llm for stage, llm in asked_models(config).items() if llm.serve is not None}


def prepare_serving(config: RunConfig) -> None:
    """Make up the key that servers will want, before workers inherit the environment that holds it.

    Where that names a proxy, it learns that these servers are asked without.

    Raises:
        ConfigError: If this machine has no address that workers reach it at, or nobody would stay with the servers.
    """
    served = served_models(config)
    if not served:
        return
    if config.engine.kind == "slurm" and config.engine.slurm.detach:
        raise ConfigError(
            f"engine.slurm.detach: a run starts the server of {next(iter(served))} (llm.serve), which ends with its"
            " driver; serve the model yourself and name it in llm.base_url, or leave detach out"
        )
    os.environ.setdefault(KEY_VARIABLE, secrets.token_urlsafe(32))
    hosts = [_host(config, llm.serve) for llm in served.values() if llm.serve]
    proxies = getproxies_environment()
    if proxies:
        direct = ",".join(dict.fromkeys([*filter(None, proxies.get("no", "").split(",")), *hosts]))
        os.environ |= {"NO_PROXY": direct, "no_proxy": direct}


@contextmanager
def serving(
    setup: Setup, name: str, stages: Collection[str], note: Callable[[str], None], *, publish: bool = False
) -> Iterator[Setup]:
    """Serve the models that stages ask.

    Args:
        setup: The run.
        name: Phase that is about to ask, or what else is.
        stages: Stages that are about to ask; none where nothing is left to do.
        note: Told how it goes.
        publish: Whether workers read whom to ask in the run folder, which is this caller's alone.

    Yields:
        The setup for workers.

    Raises:
        ConfigError: If an engine is missing, or there are not enough GPUs.
        BackendError: If a server does not get ready; one line with the end of its log.
    """
    if publish:
        setup.serving_file.unlink(missing_ok=True)  # of a driver that was killed
    asked = {stage: llm for stage, llm in served_models(setup.config).items() if stage in stages}
    if not asked:
        yield setup
        return
    prepare_serving(setup.config)
    models = {_identity(llm): llm for llm in asked.values()}
    gpus = _share_gpus(setup.config, models, name)
    running: dict[str, ServedModel] = {}
    with ExitStack() as stack:
        for identity, llm in models.items():
            server = _server(setup, llm, gpus[identity], f"{name}-{len(running) + 1}", note)
            running[identity] = stack.enter_context(server)
        for server in running.values():
            server.wait_until_ready()
        places = {stage: _asking(llm, running[_identity(llm)].base_url) for stage, llm in asked.items()}
        if publish:
            stack.callback(setup.serving_file.unlink, missing_ok=True)
            write_text(setup.serving_file, json.dumps(places, indent=1) + "\n")
        yield setup.asking(places, [name for names in gpus.values() for name in names or ()])


def require_engines(config: RunConfig, phases: Sequence[str], first: str) -> None:
    """Refuse to begin a run whose servers could not be started later.

    Args:
        config: The recipe.
        phases: All phases, in flow order.
        first: The first that is to come.

    Raises:
        ConfigError: If an engine or a model is missing, or there are not enough GPUs.
    """
    for phase in phases[phases.index(first) :]:
        asked = {stage: llm for stage, llm in served_models(config).items() if stage in asking(config, phase)}
        for llm in asked.values():
            assert llm.serve is not None
            find_engine(llm.serve)
            require_model(llm.serve)
        _share_gpus(config, {_identity(llm): llm for llm in asked.values()}, phase)


def _server(
    setup: Setup, llm: LlmConfig, gpus: list[str] | None, name: str, note: Callable[[str], None]
) -> ServedModel:
    assert llm.serve is not None
    require_model(llm.serve)
    host = _host(setup.config, llm.serve)
    port = _free_port(host, llm.serve.port)
    log = setup.root / "logs" / f"serve-{name}.log"
    return ServedModel(llm.serve, llm.model, llm.revision, host, port, gpus=gpus, log=log, note=note)


def _asking(llm: LlmConfig, base_url: str) -> dict[str, Any]:
    """The ``llm`` section of a stage whose server is running."""
    assert llm.serve is not None
    place = {"base_url": base_url, "api_key_env": KEY_VARIABLE, "unreachable_seconds": llm.serve.ready_seconds}
    return {name: value for name, value in to_plain(llm).items() if name != "serve"} | place


def _identity(llm: LlmConfig) -> str:
    """What stages have in common that share a server."""
    serve = llm.serve
    return json.dumps([serve and to_plain(serve), llm.model, llm.revision])


def _share_gpus(config: RunConfig, models: Mapping[str, LlmConfig], phase: str) -> dict[str, list[str] | None]:
    """The GPUs of this machine that each server sees; ``None`` for all.

    They are the last ones, as workers that choose for themselves take the first.

    Raises:
        ConfigError: If several servers, or servers and workers, would sit on the same GPUs.
    """
    wanted = {identity: llm.serve.gpus if llm.serve else None for identity, llm in models.items()}
    if not wanted:
        return {}
    visible = visible_gpus()
    per_worker = math.ceil(config.resources_of(phase).gpus) if config.engine.kind == "local" else 0
    if visible and None in wanted.values() and len(wanted) + bool(per_worker) > 1:
        beside = f"{len(wanted)} servers" if len(wanted) > 1 else "a server beside workers with GPUs"
        raise ConfigError(
            f"llm.serve.gpus: missing; phase {phase!r} has {beside} on this machine with {len(visible)} GPUs, so say "
            "how many each server has"
        )
    total = sum(number or 0 for number in wanted.values())
    if total and total + per_worker > len(visible):
        raise ConfigError(
            f"llm.serve.gpus: phase {phase!r} wants {total + per_worker} GPUs, but this machine shows {len(visible)};"
            " lower it, or look at CUDA_VISIBLE_DEVICES and nvidia-smi"
        )
    left = visible[len(visible) - total :]
    return {key: None if number is None else [left.pop(0) for _ in range(number)] for key, number in wanted.items()}


def _host(config: RunConfig, serve: ServeConfig) -> str:
    """Address that workers reach this machine at.

    Raises:
        ConfigError: If other machines have to, and it knows none.
    """
    private = config.engine.kind == "ray" and os.environ.get("RAY_ADDRESS", "") in ("", "local")
    if serve.host or config.engine.kind == "local" or private:
        return serve.host or LOOPBACK
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        out.connect(("192.0.2.1", 9))  # sends nothing; the system says which of its addresses it would use
        return str(out.getsockname()[0])
    raise ConfigError(
        "llm.serve.host: missing; workers on other machines ask the server, so name this machine's address"
    )


def _free_port(host: str, port: int | None) -> int:
    """A port to listen on.

    Raises:
        ConfigError: If the address is not this machine's, or the port is taken.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind((host, port or 0))
            return int(found.getsockname()[1])
    except OSError as error:
        raise ConfigError(
            f"llm.serve.{'port' if port else 'host'}: nothing can listen at {host}:{port or 'any port'}"
            f" ({error.strerror or error}); name another"
        ) from None
