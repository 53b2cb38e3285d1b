"""Small silver data for trainings, in the schema of `distill`, made of patterns that a tiny model can learn."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from fineinstructions.pairs import instantiate as instantiating
from fineinstructions.records import to_table
from fineinstructions.silver.rows import EmbedderRow, GenericizerRow, InstantiatorRow, conversation
from fineinstructions.templates import genericize as genericizing

PLANTS = [f"{a}{b}" for a in ("oak", "ash", "elm", "fir", "fig", "yew") for b in ("", "leaf", "root", "bark")]
TEMPLATE = "Is <fi>a plant</fi> tall?"


def split_of(number: int) -> str:
    return "validation" if number % 6 == 5 else "train"


def write(folder: Path, table: str, rows: list[Any]) -> None:
    """One folder per split, as a run has them."""
    for split in ("train", "validation"):
        place = folder / f"{table}_{split}"
        place.mkdir(parents=True, exist_ok=True)
        found = [row for row in rows if row.split == split]
        pq.write_table(to_table(found, type(rows[0])), place / "part-00000.parquet")


def genericizer_rows(number: int = 24) -> list[GenericizerRow]:
    rows = []
    for n in range(number):
        query, description = f"Is {PLANTS[n % len(PLANTS)]} tall?", "A text on plants."
        reply = genericizing.published_reply(TEMPLATE, description)
        prompt, completion = conversation(genericizing.published_messages(query), reply)
        rows.append(
            GenericizerRow(
                row_id=f"g-{n:03}",
                split=split_of(n),
                prompt=prompt,
                completion=completion,
                reply=reply,
                query_id=f"q{n}",
                query=query,
                template=TEMPLATE,
                compatible_document_description=description,
                num_slots=1,
                source="made up",
                licence="CC0 1.0",
                teacher='{"model": "teacher"}',
            )
        )
    return rows


def instantiator_rows(round_number: int, number: int = 24) -> list[InstantiatorRow]:
    rows = []
    for n in range(number):
        plant, refusal = PLANTS[n % len(PLANTS)], n % 4 == 1
        document = "It rains." if refusal else f"The {plant} grows to forty metres."
        instruction, answer = f"Is {plant} tall?", f"The {plant} grows to forty metres."
        tagged = f"<excerpt>{answer}</excerpt>"
        reply = instantiating.PUBLISHED_REFUSAL if refusal else instantiating.published_reply(instruction, tagged)
        prompt, completion = conversation(instantiating.published_messages(TEMPLATE, document), reply)
        rows.append(
            InstantiatorRow(
                row_id=f"i-{round_number}-{n:03}",
                split=split_of(n),
                round=round_number,
                prompt=prompt,
                completion=completion,
                reply=reply,
                refusal=refusal,
                document_id=f"d{n}",
                window_start=0,
                window_end=len(document),
                template_id="t-1",
                template=TEMPLATE,
                query_ids=("q1",),
                instruction="" if refusal else instruction,
                answer="" if refusal else answer,
                excerpt_ratio=None if refusal else 1.0,
                judge_score=None if refusal else 5,
                length="",
                num_slots=1,
                topic="plants",
                reason="",
                source="made up",
                licence="CC0 1.0",
                template_licence="CC BY 4.0",
                teacher='{"model": "teacher"}',
            )
        )
    return rows


def embedder_rows(number: int = 48) -> list[EmbedderRow]:
    """Documents of two subjects one after the other; the description of one of them, or of a third."""
    rows = []
    for n in range(number):
        first, second = n // 3 % 10, 10 + n // 3 * 7 % 10
        wanted, label = ((first, 1.0), (second, 1.0), (30 + n // 3 % 10, 0.0))[n % 3]
        document = " ".join([f"word{first}"] * 20 + [f"word{second}"] * 20)
        chunk = 0 if wanted == first else 4
        rows.append(
            EmbedderRow(
                document=document,
                description=f"word{wanted} word{100 + wanted}",
                label=label,
                chunk=chunk,
                split=split_of(n // 3),
                row_id=f"e-{n:03}",
                document_id=f"d{n // 3}",
                template_id=f"t{wanted}",
                template="",
                retrieved_chunk=chunk,
                cosine=0.5,
                quote_start=0 if label else -1,
                quote_end=5 if label else -1,
                reason="",
                source="made up",
                licence="CC0 1.0",
                template_licence="CC BY 4.0",
                teacher='{"model": "judge"}',
            )
        )
    return rows
