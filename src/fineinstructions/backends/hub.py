"""What the Hugging Face hub, or a model's own folder, says about an artefact: its present commit and its licence.

In: a name. Out: facts, asked once, nothing downloaded. The decision a reader would question: a run never asks. Whoever
writes a recipe asks once (`fineinstructions doctor RECIPE --resolve`) and the answers stand in the recipe, so that a
run is the same tomorrow, on a machine without a network too.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from fineinstructions.errors import BackendError, ConfigError

Kind = Literal["model", "dataset"]
NONE_DECLARED = "none declared"
"""What stands in a recipe and a data card where an artefact names no licence."""
EXTRA = "hf"
TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class HubFacts:
    """What the hub says of one artefact."""

    commit: str
    licence: str
    """As its card states it; `NONE_DECLARED` where it does not."""


def hub_facts(kind: Kind, name: str, revision: str | None = None) -> HubFacts:
    """Ask the hub about a model or a data set.

    Args:
        kind: What it is.
        name: ``owner/name``.
        revision: Commit, tag or branch; ``None`` or empty for the present state.

    Raises:
        ConfigError: If the extra is not installed, or the hub knows no such artefact or revision.
        BackendError: If the hub does not answer.
    """
    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
    except ImportError:
        raise ConfigError(f"{name}: asking the hub needs pip install 'fineinstructions[{EXTRA}]'") from None
    at = f" at {revision}" if revision else ""
    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    try:
        found = ask(name, revision=revision or None, timeout=TIMEOUT_SECONDS)
    except GatedRepoError:
        raise ConfigError(f"{name}: gated; accept its terms on its page, then log in with 'hf auth login'") from None
    except RepositoryNotFoundError:
        raise ConfigError(f"{name}: the hub at {api.endpoint} knows no such {kind}, or it is private") from None
    except HFValidationError as error:
        raise ConfigError(f"{name}: {_line(error)}") from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", 0)
        if status == 404:
            raise ConfigError(f"{name}{at}: the hub has no such revision") from None
        raise _no_answer(api.endpoint, error) from None
    except Exception as error:  # noqa: BLE001 -- the client lets its transport's own exceptions through
        raise _no_answer(api.endpoint, error) from None
    if not found.sha:
        raise BackendError(f"{name}{at}: the hub names no commit", hint="look at its page")
    card = found.card_data
    return HubFacts(str(found.sha), stated_licence(card.to_dict() if card else {}))


def _no_answer(endpoint: str, error: Exception) -> BackendError:
    hint = "check the network, HF_ENDPOINT and HF_TOKEN"
    return BackendError(f"{endpoint}: the hub does not answer: {_line(error)}", retryable=True, hint=hint)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def stated_licence(card: Any) -> str:
    """The licence that the front matter of a card states.

    Args:
        card: The front matter as plain values.

    Returns:
        One line; several licences are separated by ``; ``, and `NONE_DECLARED` where there is none.

    Example:
        >>> stated_licence({"license": "other", "license_name": "llama3.2"})
        'other (llama3.2)'
    """
    stated = card.get("license") if isinstance(card, dict) else None
    names = [str(name).strip() for name in (stated if isinstance(stated, list) else [stated]) if name]
    named = str(card.get("license_name") or "").strip() if names else ""
    line = "; ".join(f"{name} ({named})" if name == "other" and named else name for name in names if name)
    return " ".join(line.split()) or NONE_DECLARED


def folder_licence(folder: Path) -> str:
    """The licence that the README of a model's folder states; `NONE_DECLARED` where there is none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        _, _, rest = text.partition("---\n")
        front, end, _ = rest.partition("\n---")
        return stated_licence(yaml.safe_load(front)) if text.startswith("---\n") and end else NONE_DECLARED
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return NONE_DECLARED
