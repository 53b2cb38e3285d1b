"""YAML to frozen pydantic models: load, override, compare, digest.

Knows no stage. Every stage's config class stands beside its operator and derives from `Config`; `pipeline.RunConfig`
lists them in flow order.
"""

import difflib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from fineinstructions.errors import ConfigError

EMPTY_REVISION = (
    "empty; name an exact commit or tag, or let 'fineinstructions doctor RECIPE --resolve' ask the hub and fill it in"
)
"""What is said of a ``revision: ""``: the mark of a recipe that must not run before somebody has chosen one."""
MAX_RECIPE_CHARS = 1_000_000
"""Longest recipe."""
_MAX_NODES = 100_000
_MAX_DEPTH = 50
"""Most values in a recipe, aliases written out, and most inside each other."""


class Config(BaseModel):
    """Root of all configuration classes: frozen, and an unknown key is an error.

    What a key means stands below it in the source, where only the generated pages look (`cli.keys`): every process of a
    run would parse the sources of all these classes at its start.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


C = TypeVar("C", bound=Config)


def load(path: str | Path, config_type: type[C], overrides: Sequence[str] = ()) -> C:
    """Read a YAML recipe into a config.

    Args:
        path: YAML file.
        config_type: Class of the whole recipe.
        overrides: ``a.b=value`` strings; the value is read as YAML.

    Returns:
        The checked config.

    Raises:
        ConfigError: If the file cannot be read, is no mapping, has an unknown key or a wrong value.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_RECIPE_CHARS + 1)
    except FileNotFoundError:
        where = "" if path.is_absolute() else f" in {Path.cwd()}"
        raise ConfigError(f"{path}: no such recipe{where}; give the path of a YAML file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    try:
        raw = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping such as 'queries: {{path: ...}}', found {type(raw).__name__}")
    return from_mapping(raw, config_type, overrides, where=str(path))


def parse_yaml(text: str) -> Any:
    """The plain value of a YAML text that somebody else may have written.

    Args:
        text: At most `MAX_RECIPE_CHARS` characters.

    Raises:
        ValueError: If it is no YAML, or would not stay small: anchors that multiply, values inside values without end.
    """
    if len(text) > MAX_RECIPE_CHARS:
        raise ValueError(f"longer than {MAX_RECIPE_CHARS:,} characters")
    try:
        value = yaml.safe_load(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError) as error:
        # PyYAML lets through what the types of Python say to numbers, dates and tags that only look like ones.
        raise ValueError(" ".join(str(error).split())[:300] or type(error).__name__) from None
    _check_small(value)
    return value


def _check_small(value: Any) -> None:
    """Refuse what an alias has made large or endless, and text that cannot be written."""
    waiting, seen = [(value, 0)], 0
    while waiting:
        node, depth = waiting.pop()
        seen += 1
        if seen > _MAX_NODES or depth > _MAX_DEPTH:
            raise ValueError(f"more than {_MAX_NODES:,} values, or more than {_MAX_DEPTH} inside each other")
        if isinstance(node, dict):
            waiting += [(part, depth + 1) for item in node.items() for part in item]
        elif isinstance(node, list | tuple | set):
            waiting += [(part, depth + 1) for part in node]
        elif isinstance(node, str):
            try:
                node.encode()
            except UnicodeEncodeError:
                raise ValueError("a text is not valid Unicode (a lone surrogate)") from None


def from_mapping(raw: dict[str, Any], config_type: type[C], overrides: Sequence[str] = (), where: str = "recipe") -> C:
    """Check a mapping against a config class, after applying ``a.b=value`` overrides.

    Raises:
        ConfigError: One line that names the key, what is wrong with it, and the nearest known key.
    """
    raw = cast(dict[str, Any], _copy(raw))
    for override in overrides:
        _apply(raw, override)
    try:
        return config_type.model_validate(raw)
    except ValidationError as error:
        lines = {_location(e): _explain(e, config_type) for e in reversed(error.errors())}
        raise ConfigError(f"{where}: {'; '.join(reversed(lines.values()))}") from None


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _apply(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {override!r}: write it as a.b=value")
    try:
        parsed = parse_yaml(value)
    except ValueError:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML") from None
    *parents, last = key.strip().split(".")
    node = raw
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a section")
        node = child
    node[last] = parsed


def _location(error: Any) -> tuple[str, ...]:
    """Keys that lead to the error, without the names pydantic gives to the alternatives of a union."""
    return tuple(str(part) for part in error["loc"] if part not in ("str", "list[str]"))


def _explain(error: Any, config_type: type[Config]) -> str:
    location = _location(error)
    name = ".".join(location)
    if error["type"] == "model_type":
        return f"{name}: expected a section such as '{location[-1]}: {{key: value}}', found {error['input']!r}"
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{name or 'recipe'}: {message[0].lower()}{message[1:]}"
    known = _known_keys(config_type, location[:-1])
    near = difflib.get_close_matches(location[-1], known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(known))}"
    return f"unknown key {name!r}; {hint}"


def _known_keys(config_type: type[Config], parents: Sequence[str]) -> list[str]:
    """Keys that the section at `parents` accepts."""
    current: Any = config_type
    for parent in parents:
        field = getattr(current, "model_fields", {}).get(parent)
        inner = [a for a in _classes(field.annotation) if hasattr(a, "model_fields")] if field else []
        if inner:
            current = inner[0]
    return list(getattr(current, "model_fields", {}))


def _classes(annotation: Any) -> Iterator[Any]:
    yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _classes(argument)


def filled_in(text: str, values: Mapping[tuple[str, ...], str]) -> tuple[str, set[tuple[str, ...]]]:
    r"""A recipe's text with values in the place of empty strings; every other character stays as it is.

    Args:
        text: YAML with a mapping at the top.
        values: From the path of a key to the value that it gets.

    Returns:
        The new text, and the keys that stood there with an empty string.

    Example:
        >>> filled_in('a: {b: "", c: 1}  # why\n', {("a", "b"): "x", ("a", "c"): "y"})
        ('a: {b: "x", c: 1}  # why\n', {('a', 'b')})
    """
    found: dict[int, tuple[str, ...]] = {}

    def walk(node: yaml.Node | None, path: tuple[str, ...]) -> None:
        nonlocal found
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                walk(value, (*path, str(key.value)))
        elif node is not None and path in values and node.tag == "tag:yaml.org,2002:str" and node.value == "":
            end = node.end_mark.index  # of the quotes; before them there may be an anchor
            found |= {end - 2: path} if text[end - 2 : end] in ("''", '""') else {}

    walk(yaml.compose(text, yaml.SafeLoader), ())
    for start, path in sorted(found.items(), reverse=True):
        text = f"{text[:start]}{json.dumps(values[path], ensure_ascii=False)}{text[start + 2 :]}"
    return text, set(found.values())


def to_plain(config: Config) -> dict[str, Any]:
    """A config as plain YAML-able values, defaults included."""
    return config.model_dump(mode="json")


def known_settings(config: Config, kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """A config as plain values, but for settings that came later than something that was made.

    What was made before a setting existed was made with its default. So a setting that the kept settings do not have
    is left out where it has its default, at any depth, and digests and comparisons with what was made stay the same.

    Args:
        config: The settings of today.
        kept: Those that lie with what was made; ``None`` where nothing has been made, and all settings count.

    Example:
        >>> class Training(Config):
        ...     steps: int = 10
        ...     mask: bool = False
        >>> known_settings(Training(), {"steps": 10}), known_settings(Training(mask=True), {"steps": 10})
        ({'steps': 10}, {'steps': 10, 'mask': True})
    """
    plain = to_plain(config)
    return plain if kept is None else _known(plain, config.model_dump(mode="json", exclude_defaults=True), kept)


def _known(plain: Mapping[str, Any], chosen: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """What `kept` has or somebody has chosen, at any depth."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        before, chose = kept.get(key), chosen.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            found[key] = _known(value, chose or {}, before)
        elif isinstance(value, list) and isinstance(before, list) and isinstance(chose, list):
            found[key] = [
                _known(one, mine, old) if isinstance(one, dict) and isinstance(old, dict) else one
                for one, mine, old in zip_longest(value, chose, before[: len(value)])
            ]
        elif key in kept or key in chosen:
            found[key] = value
    return found


def to_yaml(config: Config | dict[str, Any]) -> str:
    """A resolved config as YAML text."""
    plain = to_plain(config) if isinstance(config, Config) else config
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def digest(*values: Any) -> str:
    """SHA-256 (first 16 hexadecimal digits) of configs and plain values, independent of key order."""
    plain = [to_plain(v) if isinstance(v, Config) else v for v in values]
    return hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def digest_of_list(pieces: Iterable[Sequence[str]]) -> str:
    """What `digest` gives for one list of digests that comes in pieces; being hexadecimal, they need no escapes.

    Example:
        >>> digest_of_list([["0a", "1b"], [], ["2c"]]) == digest(["0a", "1b", "2c"])
        True
    """
    hashed = hashlib.sha256(b"[[")
    border = '"'
    for piece in pieces:
        if piece:
            hashed.update(f"""{border}{'", "'.join(piece)}""".encode())
            border = '", "'
    hashed.update(b"]]" if border == '"' else b'"]]')
    return hashed.hexdigest()[:16]


def digest_of_some(digests: Sequence[str]) -> str:
    """What `digest_of_list` gives for a list of a few digests, sooner: for whoever asks a million times.

    Example:
        >>> [digest_of_some(some) == digest_of_list([some]) for some in ([], ["0a"], ["0a", "1b"])]
        [True, True, True]
    """
    text = '"' + '", "'.join(digests) + '"' if digests else ""
    return hashlib.sha256(f"[[{text}]]".encode()).hexdigest()[:16]


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Leaves in which two plain configs differ.

    Returns:
        Tuples (dotted name, old value, new value) in key order; ``None`` stands for a missing key.

    Example:
        >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
        [('a.b', 1, 3)]
    """
    found: list[tuple[str, Any, Any]] = []
    for key in list(old) + [k for k in new if k not in old]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append((f"{prefix}{key}", before, after))
    return found
