"""What lies in the folder or hub repository of a model: its content digest; an encoder's parts and its threshold.

In: a path or hub name with its revision. Out: facts, without loading a model. The decision to question: code that comes
with a model is never run. A pooling class of the model's own is replaced by `pooling`, whose formula it has; any other
class that is not of the sentence-transformers library is an error.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fineinstructions.config import EMPTY_REVISION
from fineinstructions.errors import ConfigError
from fineinstructions.runs.durable import write_text

AUTHORS_ENCODER = "fineinstructions/instruction_template_retrieval_embedding"
AUTHORS_MIN_COSINE = 0.865
"""Threshold of the authors' encoder. Paper, section 3.2: chosen by hand."""
CALIBRATION_FILE = "fineinstructions.json"
"""File in a model's folder with the threshold that was calibrated for it: ``{"min_cosine": 0.71}``; other keys of the
same object say how it was found."""

ABOUT_FILES = ("training.json", "evaluation.json")
"""Files in the folder of a student that tell how it was made; they decide no reply and no vector."""
_DIGESTED = frozenset({".json", ".txt", ".model", ".safetensors", ".bin", ".vocab", ".jinja"})
_NO_WEIGHTS = frozenset({"Normalize", "Dropout"})
"""Modules that nothing has to be done for: vectors are scaled to unit length here anyway."""
_WITH_WEIGHTS = frozenset({"Dense", "LayerNorm"})
_BRANCHES = frozenset({"main", "master"})


@dataclass(frozen=True, slots=True)
class Layout:
    """Parts of an encoder."""

    transformer: str
    """Folder of the transformer inside the model; empty for the model's own."""
    after_pooling: tuple[tuple[str, str], ...]
    """Class name and folder of every module with weights that stands behind the pooling."""
    max_tokens: int | None
    """Longest text, special tokens included, that the model's own settings allow."""


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk, or on the hub where it has a revision."""

    name: str
    revision: str | None = None
    section: str = "encoder"
    """Section of the recipe that names it, for messages."""

    @classmethod
    def of(cls, name: str, revision: str | None, section: str = "encoder") -> "ModelFolder":
        """The folder of that name if there is one, else the model of that name on the hub.

        Raises:
            ConfigError: If the revision is missing, is a branch, or is given for a folder.
        """
        if Path(name).is_dir():
            if revision:
                raise ConfigError(f"{section}.revision: {name} is a folder, which has none; its files are digested")
            return cls(name, section=section)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise ConfigError(f"{section}.model: there is no folder {name}")
        if revision == "":
            raise ConfigError(f"{section}.revision: {EMPTY_REVISION}")
        if revision is None or revision in _BRANCHES:
            raise ConfigError(
                f"{section}.revision: {'missing' if revision is None else f'{revision!r} moves'}; {name} is no folder, "
                "and a model on the hub needs an exact commit or tag"
            )
        return cls(name, revision, section)

    @property
    def source(self) -> dict[str, Any]:
        """Where the loaders of transformers find it."""
        return {"revision": self.revision} if self.revision else {"local_files_only": True}

    @cached_property
    def identity(self) -> str:
        """Name and revision, or for a folder the digest of its files; the folder's place does not matter."""
        if self.revision:
            return f"{self.name}@{self.revision}"
        total = hashlib.blake2b(digest_size=8)
        for path in sorted(self._digested()):
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "blake2b").hexdigest()
            total.update(f"{path.relative_to(self.name).as_posix()} {digest}\n".encode())
        return f"folder@{total.hexdigest()}"

    def _digested(self) -> Iterator[Path]:
        for path in Path(self.name).rglob("*"):
            if path.suffix in _DIGESTED and path.name not in (CALIBRATION_FILE, *ABOUT_FILES) and path.is_file():
                yield path

    @cached_property
    def min_cosine(self) -> float | None:
        """Calibrated threshold; ``None`` if there is none.

        Raises:
            ConfigError: If the calibration file is damaged.
        """
        if self.revision:
            return AUTHORS_MIN_COSINE if self.name == AUTHORS_ENCODER else None
        found = self.read(CALIBRATION_FILE)
        if found is None:
            return None
        value = found.get("min_cosine") if isinstance(found, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not -1.0 <= value <= 1.0:
            path = Path(self.name) / CALIBRATION_FILE
            raise ConfigError(f"{path}: needs a number 'min_cosine' between -1 and 1; calibrate the encoder again")
        return float(value)

    def store_min_cosine(self, min_cosine: float) -> Path:
        """Note a calibrated threshold in a local model's folder; whatever else its calibration file says stays.

        Args:
            min_cosine: The threshold.

        Returns:
            The file.

        Raises:
            ConfigError: If what is there cannot be read.
        """
        path = Path(self.name) / CALIBRATION_FILE
        known = self.read(CALIBRATION_FILE)
        if known is not None and not isinstance(known, dict):
            raise ConfigError(f"{path}: no JSON object; mend or remove it")
        noted = (known or {}) | {"min_cosine": min_cosine}
        write_text(path, json.dumps(noted, ensure_ascii=False, indent=1) + "\n")
        vars(self).pop("min_cosine", None)
        return path

    @cached_property
    def layout(self) -> Layout:
        """The parts to load.

        Raises:
            ConfigError: If the model is no text encoder, or needs code of its own for more than pooling.
        """
        modules = self.read("modules.json")
        modules = [{"type": "Transformer"}] if modules is None else modules
        try:
            (first, place), *rest = [(str(m["type"]), str(m.get("path") or "")) for m in modules]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ConfigError(f"{self.name}: modules.json lists no modules; save the model again") from None
        if _class_name(first) != "Transformer":
            raise ConfigError(f"{self.section}.model: {self.name} begins with {first}, which is no transformer encoder")
        after_pooling = []
        for kind, folder in rest:
            name, is_stock = _class_name(kind), kind.startswith("sentence_transformers.")
            if name in _NO_WEIGHTS or name == "Pooling" or ("Pooling" in name and not is_stock):
                continue
            if name not in _WITH_WEIGHTS or not is_stock:
                raise ConfigError(
                    f"{self.section}.model: {self.name} has a module {kind}, which cannot be applied to coverage "
                    "chunks, and code that comes with a model is never run"
                )
            after_pooling.append((name, folder))
        settings = self.read(f"{place}/sentence_bert_config.json" if place else "sentence_bert_config.json")
        limit = settings.get("max_seq_length") if isinstance(settings, dict) else None
        return Layout(place, tuple(after_pooling), limit if isinstance(limit, int) else None)

    def read(self, file: str) -> Any:
        """A JSON file of the model; ``None`` if there is none.

        Raises:
            ConfigError: If it cannot be read, or the hub has no such model or cannot be reached.
        """
        path = self._downloaded(file) if self.revision else Path(self.name) / file
        if path is None or not path.is_file():
            return None
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({str(error).splitlines()[0]}); mend or remove it") from None

    def _downloaded(self, file: str) -> Path | None:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.name, file, revision=self.revision))
        except LocalEntryNotFoundError:
            raise ConfigError(
                f"{self.section}.model: {self.name} is no folder, and the hub cannot be reached; "
                "give the folder of a model"
            ) from None
        except EntryNotFoundError:
            return None
        except (OSError, ValueError) as error:
            line = str(error).strip().splitlines()[0]
            raise ConfigError(f"{self.section}.model: {self.name} at {self.revision}: {line}") from None


def _class_name(kind: str) -> str:
    return kind.rpartition(".")[2]
