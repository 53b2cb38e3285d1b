"""What Lingua's loader does with a folder, written from how it behaves: which files, whose lines, which epoch.

- A source's files match ``*.chunk.*.jsonl``, in no order. More files than ranks: the rest is dropped. Fewer: the ranks
  must be a multiple, and those of one file read its lines in turn.
- A rank reads its lines for ever; every time it starts again its counter goes up.
- BOS, text and EOS of all rows are put together and cut into rows of a fixed length plus one, overlapping by one.
- Batches are drawn from a buffer that is filled before the first one and again after each.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fineinstructions.backends.tokenizer import ByteTokenizer

Line = tuple[str, int]
"""Id of a row, and how often its rank had read its file before."""


def lines_of_rank(folder: Path, rank: int, ranks: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Rows that a rank reads, without end, each with the number of the epoch."""
    files = list(folder.glob("*.chunk.*.jsonl"))[:ranks]
    if not files or ranks % len(files):
        raise ValueError(f"{ranks} ranks cannot share {len(files)} files")
    turns = ranks // len(files)
    file, place = files[rank // turns], rank % turns
    epoch = 0
    while True:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                if number % turns == place:
                    yield json.loads(line), epoch
        epoch += 1


def one_epoch(folder: Path, ranks: int) -> list[list[str]]:
    """Ids of the rows that every rank reads before it starts again."""
    found = []
    for rank in range(ranks):
        ids = []
        for row, epoch in lines_of_rank(folder, rank, ranks):
            if epoch:
                break
            ids.append(row["id"])
        found.append(ids)
    return found


def largest_epoch(recipe: Path, steps: int | None = None) -> int:
    """The largest epoch that any rank has begun after the steps of a recipe, with everything that it has read ahead."""
    plain = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    data, ranks = plain["data"], plain["distributed"]["dp_replicate"]
    (source,) = data["sources"]
    batches = (plain["steps"] if steps is None else steps) * plain["grad_acc_steps"] + data["prefetch_size"]
    wanted = batches * data["batch_size"]
    found = 0
    for rank in range(ranks):
        epoch, left, packed = 0, 0, 0
        rows = lines_of_rank(Path(data["root_dir"]) / source, rank, ranks)
        while packed < wanted:
            while left < data["seq_len"] + data["n_views"] - 1:
                row, epoch = next(rows)
                left += int(ByteTokenizer().row_tokens([row["text"]])[0])
            left -= data["seq_len"]
            packed += 1
        found = max(found, epoch)
    return found


def counted_parameters(recipe: Path) -> int:
    """Parameters of the model that a recipe describes, tensor by tensor."""
    model = yaml.safe_load(recipe.read_text(encoding="utf-8"))["model"]
    dim, step = model["dim"], model["multiple_of"]
    inner = int(2 * (4 * dim) / 3)
    inner = step * ((inner + step - 1) // step)
    shapes = [(model["vocab_size"], dim)] * (1 if model["weight_tying"] else 2) + [(dim,)]
    for _ in range(model["n_layers"]):
        shapes += [(dim, dim)] * 4 + [(inner, dim)] * 2 + [(dim, inner)] + [(dim,)] * 2
    return int(sum(np.prod(shape) for shape in shapes))
