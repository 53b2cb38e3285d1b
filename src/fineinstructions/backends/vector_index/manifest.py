"""``manifest.json`` of an index folder: what made it, what is in it, how good it is, and a digest of every file.

In: an index folder. Out: the checked manifest. Written last, so a folder without one is an index that was not finished.
The decision to question: recall is measured when the index is built and kept here, so nobody has to believe a default.
"""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from fineinstructions.config import Config
from fineinstructions.errors import ConfigError, DataError
from fineinstructions.runs.durable import sha256_file, write_text

MANIFEST_FILE = "manifest.json"
ONLINE_FILE = "online-000.faiss"
"""Short codes of the vectors of the build (see `online`)."""
FORMAT = 2


class FileNote(Config):
    """Size and content of one file."""

    bytes: int
    digest: str
    """SHA-256, hexadecimal."""


class Recall(Config):
    """How much of what an exact search finds, this index finds; measured with indexed vectors as queries."""

    num_queries: int
    at_10: float
    """Share of the exact ten nearest (the query's own row aside) that came back."""
    min_cosine: float
    """Threshold of the next figure."""
    above: float | None
    """Share of the rows at or above the threshold (the 50 nearest of each query) that came back; ``None`` if no query
    has any."""
    num_above: int
    """Rows that the figure rests on."""


class ScoreRule(Config):
    """How a cosine is decided where no float vectors are kept, and how far off the codes are."""

    margin: float
    """A row is a candidate from ``min_cosine - margin`` on."""
    error_sd: float
    """Standard deviation of code score minus cosine, on a sample."""
    error_max: float
    """Largest deviation in that sample."""


class Manifest(Config):
    """Contents of ``manifest.json``."""

    format: int = FORMAT
    kind: Literal["exact", "ivf"]
    metric: Literal["inner_product"] = "inner_product"
    encoder_id: str
    rows_digest: str = ""
    """Digest of the table whose rows the vectors stand for."""
    dimension: int
    count: int
    """Vectors, removed ones included."""
    files: dict[str, FileNote]
    min_cosine: float | None = None
    """Calibrated threshold of the encoder; ``None`` where it is not known."""
    num_additions: int = 0
    """How often vectors were added behind those of the build."""
    num_removed: int = 0
    nlist: int = 0
    nprobe: int = 0
    head_dims: int = 0
    """Leading coordinates whose products are taken for every row of a probed list; the others bound the rest."""
    keeps_vectors: bool = True
    """Whether float vectors lie in the folder; else codes decide, by `scores`."""
    online: bool = False
    """Whether there are short codes for searches of few queries."""
    segments: tuple[tuple[str, ...], ...] = ()
    """Part files of every segment: of the build, then of every addition."""
    scores: ScoreRule | None = None
    recall: Recall | None = None

    def what_is_found(self) -> dict[str, Any]:
        """All that decides what a list-major or exact search finds; short codes and what was measured do not."""
        known = self.model_dump(exclude={"min_cosine", "recall", "online"})
        known["files"].pop(ONLINE_FILE, None)
        return known

    def require(self, folder: Path, encoder_id: str | None, dimension: int | None) -> None:
        """Refuse a foreign encoder.

        Raises:
            ConfigError: If another encoder, or one of another width, made the index; ``None`` takes any.
        """
        if encoder_id is not None and self.encoder_id != encoder_id:
            raise ConfigError(
                f"{folder}: the index was built with encoder {self.encoder_id!r}, this run uses {encoder_id!r}; "
                "build it again or name that encoder"
            )
        if dimension is not None and self.dimension != dimension:
            raise ConfigError(
                f"{folder}: the index holds vectors of width {self.dimension}, the encoder makes {dimension}; "
                "build it again"
            )

    def check_files(self, folder: Path, *, digests: bool) -> None:
        """Compare the files with what is noted here.

        Args:
            folder: The index folder.
            digests: Whether contents are compared too, which reads everything once.

        Raises:
            DataError: If one is missing, cut short or changed.
        """
        for name, note in self.files.items():
            path = folder / name
            if (
                not path.is_file()
                or path.stat().st_size != note.bytes
                or (digests and sha256_file(path) != note.digest)
            ):
                raise DataError(f"{path}: missing, cut short or changed since it was written; build the index again")


def note(path: Path) -> FileNote:
    """Size and digest of a file."""
    return FileNote(bytes=path.stat().st_size, digest=sha256_file(path))


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest in one step; with it, the folder is an index."""
    text = json.dumps(manifest.model_dump(), indent=2, sort_keys=True, ensure_ascii=False)
    write_text(folder / MANIFEST_FILE, text + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index folder.

    Raises:
        ConfigError: If there is no index, or one of another format.
        DataError: If the manifest is broken.
    """
    path = folder / MANIFEST_FILE
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{folder}: there is no index here; build one first") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        found = json.loads(raw)
        if isinstance(found, dict) and found.get("format") not in (FORMAT, None):
            raise ConfigError(
                f"{path}: written in format {found['format']}, this version reads {FORMAT}; build the index again"
            )
        return Manifest.model_validate_json(raw)
    except (ValidationError, ValueError) as error:
        number = error.error_count() if isinstance(error, ValidationError) else 1
        raise DataError(f"{path}: not a valid manifest ({number} errors); build the index again") from None
