"""The encoder's threshold is the cosine that parts right pages from wrong ones best."""

import pytest

from fineinstructions.embedded.descriptions import describe
from fineinstructions.embedded.encoder import EmbeddedEncoder
from fineinstructions.embedded.threshold import MIN_PAGES, calibrated
from fineinstructions.pooling import Pooling

TEMPLATES = {"symptoms": "What are the symptoms of {focus}?", "causes": "What causes {focus}?"}
TEXTS = {
    "symptoms": "Symptoms and signs are fever, pain, fatigue, nausea and a rash.",
    "causes": "The cause is a genetic mutation; it is caused by changes in a gene.",
}


def page(kind: str, number: int) -> str:
    return f"{TEXTS[kind]} Ward {number}."


def test_the_threshold_parts_right_from_wrong() -> None:
    encoder = EmbeddedEncoder()
    rows, pages = [], {}
    for number in range(MIN_PAGES):
        for kind, template in TEMPLATES.items():
            pages[f"{kind}{number}"] = page(kind, number)
            rows.append({"doc_id": f"{kind}{number}", "question_type": kind, "question_template": template})
    threshold, told = calibrated(encoder, rows, pages, 0.5)
    assert "F1 1.000" in told

    asked = encoder.encode_texts([describe("what are symptoms of _", ("a disease",))])[0]
    for kind in TEMPLATES:
        (pooled,) = encoder.encode_documents([page(kind, 3)], Pooling())
        assert ((pooled.vectors @ asked).max() >= threshold - 1e-4) == (kind == "symptoms")


@pytest.mark.parametrize("template", [None, "No slot?", TEMPLATES["causes"]])
def test_too_few_pages_leave_the_default(template: str | None) -> None:
    rows = [{"doc_id": "a", "question_type": "causes", "question_template": template}]
    threshold, told = calibrated(EmbeddedEncoder(), rows, {"a": page("causes", 1)}, 0.5)
    assert threshold == 0.5
    assert "fewer than" in told
