"""What the columns of ``RUN/pairs`` mean, in words for a data card."""

from collections.abc import Mapping
from types import MappingProxyType

PAIR_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "pair_id": "id of the pair, a hash of document and template",
        "document_id": "id of the document",
        "template_id": "id of the instruction template",
        "query_ids": "ids of the user queries behind the template",
        "chunk": "coverage chunk whose vector found the template, from 0; -1 for the whole document",
        "cosine": "cosine of that vector and the template's description",
        "instruction": "the filled template",
        "answer": "the answer",
        "slots": "name and value of every slot",
        "excerpts": "verbatim spans, half-open, in code points of the answer and of the document",
        "excerpt_ratio": "share of the answer's characters inside its excerpts",
        "coverage_ratio": "share of the answer's characters that long matches with the document cover, tags aside",
        "judge_score": "the judge's score, 1 to 5",
        "judge_expected_score": "mean of the scores by their probabilities; null where the judge gives none",
        "judge_feedback": "the judge's reasons",
        "models": "the models behind the pair, with revisions and prompt digests, as JSON",
        "licence": "licence of the document",
        "template_licence": "licences of the queries behind the template, separated by `; `",
        "source": "source of the document",
        "title": "title of the document",
        "url": "address of the document",
        "metadata": "the document's other columns, as JSON",
        "text": "`Instruction: ...`, an empty line, `Answer: ...`: the paper's training format",
        "generated_tokens": "tokens that the instantiator generated for the pair",
    }
)
