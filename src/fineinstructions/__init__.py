"""Turn real user queries and a pre-training corpus into grounded instruction-answer pairs.

The Python API mirrors the command line::

    import fineinstructions

    run = fineinstructions.run("recipe.yaml", out="runs/first")
    for pair in run.pairs():
        print(pair.text)

Every operator can be called by itself too, for example `fineinstructions.pairs.excerpts.expand`.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["RunConfig", "build_templates", "explain", "export", "forecast", "run", "try_document", "verify"]

_HOME = {
    "RunConfig": "fineinstructions.pipeline",
    "build_templates": "fineinstructions.pipeline",
    "explain": "fineinstructions.pipeline",
    "run": "fineinstructions.pipeline",
    "verify": "fineinstructions.pipeline",
    "export": "fineinstructions.corpora",
    "forecast": "fineinstructions.forecast",
    "try_document": "fineinstructions.trial",
}

if TYPE_CHECKING:
    from fineinstructions.corpora import export
    from fineinstructions.forecast import forecast
    from fineinstructions.pipeline import RunConfig, build_templates, explain, run, verify
    from fineinstructions.trial import try_document


def __getattr__(name: str) -> Any:
    """Import the API on first use, so that ``import fineinstructions`` stays fast."""
    if name not in _HOME:
        raise AttributeError(f"module 'fineinstructions' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
