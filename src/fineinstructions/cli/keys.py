"""The keys of a recipe as a reader needs them: a page of tables, and a JSON schema for editors.

`RunConfig` in, Markdown and JSON out. Types, defaults and meanings come from the config classes beside the operators.
"""

import ast
import inspect
import itertools
import json
import textwrap
import types
import typing
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ByteSize
from pydantic.fields import FieldInfo

GENERATED = "<!-- Written by `make docs`; change the code, not this page. -->"


def config_page() -> str:
    """Every key of a recipe with its type, default and meaning, as Markdown."""
    from fineinstructions.recipe import RunConfig

    lines = ["# Recipe keys", "", GENERATED, "", *paragraphs(RunConfig.__doc__)]
    lines += ["", *_key_table("", RunConfig)]
    for name, field in RunConfig.model_fields.items():
        lines += _section_lines(name, field, meanings(RunConfig)[name])
    lines += _export_lines(set(RunConfig.model_fields))
    lines += _more_pages()
    return "\n".join(lines) + "\n"


def _more_pages() -> Iterator[str]:
    """Keys of the other recipes."""
    from fineinstructions.evaluation_recipe import EvaluationConfig
    from fineinstructions.experiment_recipe import ExperimentConfig
    from fineinstructions.training.contrastive import TrainEmbedderConfig
    from fineinstructions.training.recipe import PretrainConfig
    from fineinstructions.training.sft import TrainGenericizerConfig, TrainInstantiatorConfig

    for config in (TrainGenericizerConfig, TrainInstantiatorConfig, TrainEmbedderConfig):
        student = config.__name__.removeprefix("Train").removesuffix("Config").lower()
        called = f"For `fineinstructions train {student} RECIPE`, or `--set`. {config.__doc__}"
        yield from _page_of(config, f"Keys of train {student}", called)
    yield from _page_of(PretrainConfig, "Keys of a pre-training", "For `fineinstructions pretrain RECIPE`, or `--set`.")
    intro = "For `fineinstructions eval --config FILE`, or `--set`; `model` and `judge` have the keys of `llm` above."
    yield from _page_of(EvaluationConfig, "Keys of an evaluation", intro, {"model", "judge"})
    intro = "For `fineinstructions experiment RECIPE`, or `--set`; `score --config FILE` has the keys of `scores`."
    yield from _page_of(ExperimentConfig, "Keys of an experiment", intro)


def _export_lines(of_recipes: set[str]) -> Iterator[str]:
    """Keys of an export that recipes of runs do not have."""
    from fineinstructions.corpus.export import ExportConfig

    intro = "For `fineinstructions export RUN --config FILE`, or `--set`; sections of a recipe mean the same here."
    yield from _page_of(ExportConfig, "Keys of an export", intro, of_recipes)


def _page_of(
    config: type[BaseModel], title: str, intro: str, elsewhere: Collection[str] = frozenset()
) -> Iterator[str]:
    """Keys of one kind of recipe, but for sections that are described elsewhere."""
    yield from ("", f"# {title}", "", intro, "", *_key_table("", config))
    for name, field in config.model_fields.items():
        if name not in elsewhere:
            yield from _section_lines(name, field, meanings(config)[name])


def _section_lines(key: str, field: FieldInfo, meaning: str) -> Iterator[str]:
    """One section of the recipe, and the sections inside it."""
    section = _section(field.annotation)
    if section is None:
        return
    key += {list: "[]", dict: ".NAME"}.get(typing.get_origin(field.annotation) or str, "")
    yield from ("", f"## {key}", "", *paragraphs(meaning or section.__doc__), "")
    yield from _key_table(f"{key}.", section)
    for name, inner in section.model_fields.items():
        yield from _section_lines(f"{key}.{name}", inner, meanings(section)[name])


def _key_table(prefix: str, section: type[BaseModel]) -> Iterator[str]:
    """The plain keys of a section."""
    fields = [(name, field) for name, field in section.model_fields.items() if _section(field.annotation) is None]
    if fields:
        yield from ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
    for name, field in fields:
        default = "required" if field.is_required() else f"`{_default(field)}`"
        kind = cell(_type_name(field.annotation))
        yield f"| `{prefix}{name}` | {kind} | {cell(default)} | {cell(meanings(section)[name])} |"


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(value, ensure_ascii=False, default=str)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The config class of a section, or of the entries of a list; ``None`` for a plain key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    is_wrapper = typing.get_origin(annotation) in (types.UnionType, typing.Union, list, dict)
    arguments = typing.get_args(annotation) if is_wrapper else ()
    return next((found for found in map(_section, arguments) if found is not None), None)


def _type_name(annotation: Any) -> str:
    """A type as a reader of YAML would name it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type_name(argument) for argument in arguments)
    if origin in (list, tuple, set, frozenset):
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type_name(arguments[0])} to {_type_name(arguments[1])}"
    plain = {
        type(None): "null",
        str: "text",
        int: "whole number",
        float: "number",
        ByteSize: "size",
        bool: "true or false",
        Path: "path",
    }
    if annotation is Any:
        return "anything"
    return plain.get(annotation, getattr(annotation, "__name__", str(annotation)))


def schema_page() -> str:
    """The recipe's JSON schema, for editors."""
    from fineinstructions.recipe import RunConfig

    schema = RunConfig.model_json_schema()
    sections = {section.__name__: section for section in _sections(RunConfig)}
    for name, plain in [(RunConfig.__name__, schema), *schema["$defs"].items()]:
        told = meanings(sections[name]) if name in sections else {}
        for key, facts in plain.get("properties", {}).items():
            described = facts | ({"description": told[key]} if told.get(key) else {})
            plain["properties"][key] = dict(sorted(described.items()))
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _sections(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A config class and all inside it."""
    yield section
    for field in section.model_fields.values():
        inner = _section(field.annotation)
        if inner is not None:
            yield from _sections(inner)


@cache
def meanings(section: type[BaseModel]) -> dict[str, str]:
    """What the keys of a config class mean: the text below each in the source, its own or that of its bases."""
    found = dict.fromkeys(section.model_fields, "")
    for owner in reversed(section.__mro__):
        if not issubclass(owner, BaseModel) or owner is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0]
        assert isinstance(body, ast.ClassDef)
        for key, text in itertools.pairwise(body.body):
            if not (isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name) and isinstance(text, ast.Expr)):
                continue
            if isinstance(text.value, ast.Constant) and isinstance(text.value.value, str):
                found[key.target.id] = inspect.cleandoc(text.value.value)
    return found


def paragraphs(text: str | None) -> list[str]:
    """A docstring's paragraphs, each on one line, with an empty line between them."""
    paragraphs = [" ".join(p.split()) for p in (text or "").replace("\b", "").split("\n\n") if p.strip()]
    return [line for p in paragraphs for line in (p, "")][:-1]


def cell(text: str) -> str:
    """Text that fits one cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
