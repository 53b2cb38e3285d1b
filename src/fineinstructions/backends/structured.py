r"""Holding a reply to a JSON schema: the fields by which servers are told to, and what they can be made of.

In: a way and a schema. Out: fields for the request body. The ways, best known first: ``schema`` is ``response_format``
with ``json_schema`` (OpenAI, vLLM, SGLang, llama-server), ``structured_outputs`` and ``guided_json`` are vLLM's own
fields (since and before 0.12), ``grammar`` is llama.cpp's field with a grammar in GBNF, which also its Python server
knows; ``object`` asks for any JSON object. What comes back is parsed and checked whatever was asked for.
"""

import json
from collections.abc import Mapping
from typing import Any, get_args

from fineinstructions.backends.llm_config import Structured

WAYS: tuple[Structured, ...] = get_args(Structured)
"""In the order in which they are tried out; the last asks for nothing."""

_TYPES = {
    "string": "string",
    "integer": '"-"? [0-9]+',
    "number": '"-"? [0-9]+ ("." [0-9]+)?',
    "boolean": '("true" | "false")',
    "null": '"null"',
}
_STRING_RULE = r'string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]))* "\""'  # noqa: E501
_SPACE_RULE = r"space ::= [ \n\t]*"


def structured_fields(way: Structured, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """Fields of a request body that ask for a reply of a schema.

    Args:
        way: How it is asked for.
        schema: JSON schema; ``None`` asks for nothing.

    Example:
        >>> structured_fields("object", {"type": "object"})
        {'response_format': {'type': 'json_object'}}
    """
    if schema is None or way == "none":
        return {}
    if way == "object":
        return {"response_format": {"type": "json_object"}}
    if way == "structured_outputs":
        return {"structured_outputs": {"json": schema}}
    if way == "guided_json":
        return {"guided_json": schema}
    if way == "grammar":
        return {"grammar": gbnf(schema)}
    named = {"name": "reply", "strict": True, "schema": schema}
    return {"response_format": {"type": "json_schema", "json_schema": named}}


def gbnf(schema: Mapping[str, Any]) -> str:
    r"""A schema as a grammar of llama.cpp: objects with all of their properties in order, arrays, enums, plain types.

    Raises:
        ValueError: If the schema says something else.

    Example:
        >>> print(gbnf({"type": "object", "properties": {"score": {"enum": [4, 5]}}}).splitlines()[0])
        root ::= "{" space "\"score\"" space ":" space ("4" | "5") space "}"
    """
    return "\n".join([f"root ::= {_expression(schema)}", _STRING_RULE, _SPACE_RULE])


def _expression(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return f"({' | '.join(_literal(json.dumps(value)) for value in schema['enum'])})"
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return f"({' | '.join(_expression({**schema, 'type': kind}) for kind in kinds)})"
    if kinds in _TYPES:
        return _TYPES[kinds]
    if kinds == "array" and "items" in schema:
        item = _expression(schema["items"])
        return f'"[" space ({item} (space "," space {item})*)? space "]"'
    if kinds == "object" and "properties" in schema:
        members = [
            f'{_literal(json.dumps(name))} space ":" space {_expression(value)}'
            for name, value in schema["properties"].items()
        ]
        listed = ' space "," space '.join(members)
        return f'"{{" space {listed} space "}}"'
    raise ValueError(f"no grammar for a schema of {kinds!r}")


def _literal(text: str) -> str:
    return json.dumps(text)
