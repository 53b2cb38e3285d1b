"""Where quoted words stand in a document, past the slips of whoever copied them."""

import time

from fineinstructions.pairs.locate import SourceText

OPENING = "the water of the lake is cold"
CLOSING = "between two hills of granite"


def similar(text: str, opening: str, closing: str | None) -> list[str]:
    return [text[start:end] for start, end in SourceText(text).similar_spans(opening, closing, 0.8)]


def test_an_excerpt_ends_at_the_first_closing_words_after_its_opening() -> None:
    text = f"So {CLOSING}. See {OPENING} and lies {CLOSING}. Or {OPENING} and sinks {CLOSING}. But {OPENING}."
    assert similar(text, OPENING, CLOSING) == [f"{OPENING} and lies {CLOSING}", f"{OPENING} and sinks {CLOSING}"]
    assert similar(text, OPENING, "no such words are in this document") == []
    assert similar(f"x {OPENING} y {OPENING}", OPENING, None) == [OPENING, OPENING]


def test_words_with_a_slip_are_found_between_exact_ones() -> None:
    slip = OPENING.replace("lake", "bay lake")
    text = f"See {slip}, which lies {CLOSING.replace('granite', 'dark granite')}."
    assert similar(text, OPENING, CLOSING) == [text[4:-1]]


def test_words_that_stand_everywhere_take_linear_time() -> None:
    def seconds(number: int) -> float:
        text = f"{OPENING} lies {CLOSING}. " * number
        start = time.process_time()
        assert len(similar(text, OPENING, CLOSING)) == number
        return time.process_time() - start

    seconds(100)
    short, long = min(seconds(500) for _ in range(3)), min(seconds(8000) for _ in range(3))
    assert long < 16 * short * 3  # time that grows with the square would be 256 times as long
