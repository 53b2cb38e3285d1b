"""How a recipe has a run start a model server of its own: which engine, from where, for which model, with what.

In: the key ``serve`` of the section ``llm``. Out: a checked `ServeConfig`, the command line, and the environment of the
server. The decision to question: the server is a program of somebody else's environment, found by its path, so that
neither its dependencies nor ours pin the other's; nothing of our environment goes to it.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from fineinstructions.config import Config
from fineinstructions.errors import ConfigError

KEY_VARIABLE = "FINEINSTRUCTIONS_SERVE_KEY"
"""Variable that holds the key of the servers of this run: made up by its driver, passed on to its workers."""
ENGINES = ("vllm", "sglang")
VERSION_SECONDS = 120.0
"""Longest wait for a program to tell its version: it may import all of torch for that."""
_OURS = {"--host", "--port", "--api-key", "--served-model-name", "--revision", "--model", "--model-path", "--config"}
"""Options that the keys of a recipe stand for, or that would put a key where others can read it."""
_SPREAD = re.compile(r"--(tensor|pipeline|data)-parallel-size|--(tp|pp|dp)(-size)?|-(tp|pp|dp)")
_SECRET = re.compile(
    r"(^|_)(KEYS?|TOKENS?|SECRETS?|CREDENTIALS?|AUTH)(_|$)|PASSW|APIKEY|ACCESS_?KEY|^OPENAI_", re.IGNORECASE
)
_OF_THE_HUB = re.compile(r"HF_TOKEN(_PATH)?|HUGGING_FACE_HUB_TOKEN")
_OF_OUR_PYTHON = re.compile(r"PYTHON|VIRTUAL_ENV|__PYVENV|CONDA_(PREFIX|DEFAULT_ENV)")


class ServeConfig(Config):
    """A model server that the run starts before the first question to its model and ends after the last.

    The name of a model alone stands for ``{model: NAME}``; in a stage's own ``llm`` it starts another model as the
    shared section says, but for ``args`` and ``port``. The log of the server lies in ``RUN/logs``.
    """

    model: str = Field(min_length=1)
    """Folder of the model, or its name on the hub; asked for by ``llm.model``, which is the same by default.
    ``llm.revision`` goes to the server."""
    engine: Literal["auto", "vllm", "sglang"] = "auto"
    """What serves it. ``auto`` goes by the name of `executable`, or else takes vLLM where it is on the PATH, then
    SGLang. Ours."""
    executable: str | None = None
    """Program in the engine's own environment, such as ``/opt/vllm/bin/vllm``; or the Python there, with `engine`.
    ``None`` looks for ``vllm`` and ``sglang`` on the PATH."""
    args: list[str] = Field(default=[])
    """Further options of the engine, such as ``[--max-model-len, "8192"]``, as its own documentation has them."""
    gpus: int | None = Field(default=None, ge=1)
    """GPUs that the server alone sees and the model is spread over. ``None`` shows it all that there are, which only
    one server can have. Ours."""
    host: str | None = None
    """Address to listen on. ``None`` is this machine's loopback, and with Ray or Slurm the address that other machines
    know it by; whoever can reach that one should be trusted, as engines ask for the key on some of their paths only.
    Ours."""
    port: int | None = Field(default=None, ge=1, le=65_535)
    """Port; ``None`` for a free one."""
    ready_seconds: float = Field(default=1800.0, gt=0)
    """Longest wait until the server is ready, first and after each new start. Ours."""

    @field_validator("model", "executable", "host")
    @classmethod
    def _no_option(cls, value: str | None) -> str | None:
        if value is not None and value.startswith("-"):
            raise ValueError("must not start with a dash")
        return value

    @field_validator("args")
    @classmethod
    def _not_ours(cls, value: list[str]) -> list[str]:
        taken = sorted(_OURS & {word.partition("=")[0].replace("_", "-") for word in value})
        if taken:
            raise ValueError(f"{', '.join(taken)} cannot stand here; the keys of llm and llm.serve say it")
        return value


def _section(value: Any) -> Any:
    return {"model": value} if isinstance(value, str) else value


Serve = Annotated[ServeConfig | None, BeforeValidator(_section, json_schema_input_type=str | ServeConfig | None)]
"""The key ``serve``: a section, or the name of a model alone."""


def another_model(shared: ServeConfig, own: Any) -> Any:
    """What a stage's own ``serve`` means beside the shared one: a name alone is started as that one is."""
    if not isinstance(own, str):
        return own
    return shared.model_dump(mode="json", exclude={"args", "port"}) | {"model": own}


def find_engine(serve: ServeConfig) -> tuple[str, Path]:
    """Which engine is meant, and where its program lies.

    Raises:
        ConfigError: If there is none.
    """
    if serve.executable is None:
        wanted = ENGINES if serve.engine == "auto" else (serve.engine,)
        found = next(((name, Path(path)) for name in wanted if (path := shutil.which(name))), None)
        if found is None:
            raise ConfigError(
                f"llm.serve: no {' or '.join(wanted)} on the PATH; install it in an environment of its own and name its"
                " program in llm.serve.executable, or start a server yourself and name it in llm.base_url"
            )
        return found
    path = shutil.which(serve.executable)
    if path is None:
        raise ConfigError(f"llm.serve.executable: {serve.executable} is no program that can be run")
    named = next((name for name in ENGINES if Path(path).name.startswith(name)), serve.engine)
    engine = named if serve.engine == "auto" else serve.engine
    if engine == "auto":
        raise ConfigError(f"llm.serve.engine: missing; {path} does not tell by its name whether it is vllm or sglang")
    return engine, Path(path)


def require_model(serve: ServeConfig) -> None:
    """Refuse a folder that is not there; a name on a hub is looked up by the server.

    Raises:
        ConfigError: If it is not.
    """
    looks_like_one = serve.model.startswith((".", "/", "~")) or serve.model.count("/") > 1
    if looks_like_one and not Path(serve.model).is_dir():
        raise ConfigError(f"llm.serve.model: there is no folder {serve.model}")


def engine_version(serve: ServeConfig) -> str:
    """What the engine's program says of its version; nothing is served.

    Raises:
        ConfigError: If there is no such program, or it says nothing.
    """
    engine, path = find_engine(serve)
    if _is_python(path):
        words = ["-c", f"import importlib.metadata as m; print(m.version({engine!r}))"]
    else:
        words = ["--version"] if engine == "vllm" else ["version"]
    try:
        told = subprocess.run(
            [path, *words], capture_output=True, text=True, timeout=VERSION_SECONDS, check=False,
            env=server_environment(engine, path, os.environ, ""), start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{path}: does not tell its version ({error})") from None
    lines = [line.strip() for line in told.stdout.splitlines() if line.strip()]
    if told.returncode or not lines:
        why = (told.stderr.strip().splitlines() or [f"exit code {told.returncode}"])[-1]
        raise ConfigError(f"{path}: does not tell its version ({why[:300]})")
    return f"{engine} {lines[-1 if engine == 'vllm' else 0].split()[-1]} at {path}"


def server_command(
    serve: ServeConfig, served_name: str, revision: str | None, host: str, port: int, key_file: str
) -> list[str]:
    """The command line that serves a model; the key is never on it, as others can read it there.

    Args:
        serve: What is served, and by what.
        served_name: Name that requests ask for.
        revision: Commit or tag; ``None`` or empty for none.
        host: Address to listen on.
        port: Port.
        key_file: YAML file with the key, for the engine that takes it from nowhere else.

    Raises:
        ConfigError: If there is no such program.

    Source:
        Options as documented by vLLM (``vllm serve``) and SGLang (``sglang serve``, ``sglang.launch_server``).
    """
    engine, path = find_engine(serve)
    options = ["--served-model-name", served_name, "--host", host, "--port", str(port)]
    options += ["--revision", revision] if revision else []
    if (
        serve.gpus is not None
        and serve.gpus > 1
        and not any(_SPREAD.fullmatch(a.partition("=")[0]) for a in serve.args)
    ):
        options += ["--tensor-parallel-size", str(serve.gpus)]
    if engine == "vllm":
        start = ["-m", "vllm.entrypoints.openai.api_server", "--model"] if _is_python(path) else ["serve"]
        quiet = ["--disable-uvicorn-access-log"]
    else:
        start = ["-m", "sglang.launch_server", "--model-path"] if _is_python(path) else ["serve", "--model-path"]
        quiet = ["--log-level-http", "warning", "--config", key_file]
    return [str(path), *start, serve.model, *options, *quiet, *serve.args]


def server_environment(engine: str, path: Path, ours: Mapping[str, str], key: str) -> dict[str, str]:
    """The environment of a server: the driver's, without our Python's variables and without secrets but the hub's.

    Example:
        >>> ours = {"PATH": "/usr/bin", "HF_TOKEN": "h", "AWS_SECRET_ACCESS_KEY": "s", "PYTHONPATH": "src"}
        >>> server_environment("vllm", Path("/opt/vllm/bin/vllm"), ours, "k")
        {'PATH': '/opt/vllm/bin:/usr/bin', 'HF_TOKEN': 'h', 'VLLM_API_KEY': 'k'}
    """
    kept = {
        name: value
        for name, value in ours.items()
        if (_OF_THE_HUB.fullmatch(name) or not _SECRET.search(name)) and not _OF_OUR_PYTHON.match(name)
    }
    our_programs = str(Path(sys.prefix) / "bin")
    rest = [place for place in ours.get("PATH", os.defpath).split(os.pathsep) if place != our_programs]
    kept["PATH"] = os.pathsep.join([str(path.parent), *rest])
    return kept | ({"VLLM_API_KEY": key} if engine == "vllm" and key else {})


def _is_python(path: Path) -> bool:
    return path.name.startswith("python")
