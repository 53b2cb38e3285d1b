r"""The paper's training format of a pair, in one place for everything that writes, trains on or scores it.

Two texts in, one text out. Nothing is escaped: an instruction that holds ``\n\nAnswer: `` itself gives a text that
cannot be taken apart again, so whoever needs the parts keeps them beside the text.
"""

INSTRUCTION_LABEL = "Instruction: "
ANSWER_LABEL = "\n\nAnswer: "


def pair_text(instruction: str, answer: str) -> str:
    r"""Training text of a pair.

    Source:
        arXiv:2601.22146, section 4.2.

    Example:
        >>> pair_text("Why?", "So.")
        'Instruction: Why?\n\nAnswer: So.'
    """
    return f"{INSTRUCTION_LABEL}{instruction}{ANSWER_LABEL}{answer}"
