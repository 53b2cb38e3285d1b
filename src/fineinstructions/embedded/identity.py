"""What identifies an embedded model: a digest of the code and data that decide what it says.

In: files. Out: a short digest, written into every record that the model makes and into what makes a phase stale. The
decision to question: the bytes of the code count, comments included, so a changed comment redoes work; a version kept
by hand would be forgotten.
"""

import hashlib
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
RELATIONS = (
    *(HERE / name for name in ("document_text.py", "word_classes.txt", "words.py")),
    *sorted(p for p in (HERE / "relations").iterdir() if p.is_file()),
)
"""Files that decide what is read in a document, and what a template asks of it."""


@cache
def code_digest(*paths: Path) -> str:
    """Digest of names and bytes of some files, in the order given.

    Raises:
        OSError: If one of them cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
