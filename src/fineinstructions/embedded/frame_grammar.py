"""Grammar and worth of frames: does a frame read like a complete question, and how believable is a reading.

In: frames and word counts. Out: yes or no, or a price. There is no parser: a handful of rules about what may stand
before and after a slot, with nouns, verbs and names told apart by corpus counts.
"""

import math
import re
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise, takewhile

from fineinstructions.embedded.frames import Reading, is_plural
from fineinstructions.embedded.kinds import is_class
from fineinstructions.embedded.words import (
    ADJECTIVES,
    AUXILIARIES,
    FUNCTION_WORDS,
    IRREGULAR_PASTS,
    PREPOSITIONS,
    PRONOUNS,
    WH_WORDS,
    WORD_CLASSES,
    WordTable,
)

_FRAME_PRONOUNS = frozenset({"you", "i", "there", "it"})
_APPOSITION = WORD_CLASSES["apposition"]
_NOT_IN_A_NAME = frozenset((*PREPOSITIONS, *AUXILIARIES, *PRONOUNS, "and", "'s"))
_RELATION_PREPOSITIONS = frozenset(("of", "between", "for", "in"))
_OPEN_DETERMINERS = WORD_CLASSES["open_determiners"]
_ONLY_PAST = IRREGULAR_PASTS - frozenset(("put", "let", "set", "read", "hit", "cut", "become", "come", "run"))
_DO = frozenset(("do", "does", "did", "don't", "doesn't", "didn't"))
_DO_OR_MODAL = frozenset(("do", "does", "did", "can", "could", "will", "would", "should", "may", "might", "must"))
_AFTER_SLOT_NOUNS = frozenset(("mean", "stand", "work", "syndrome"))
_BARE_QUESTIONS = frozenset(
    f"{wh} {be} _" for wh in ("what", "who", "where", "when") for be in ("is", "are", "was", "were")
) | {"what does _ do", "what do _ do", "what did _ do", "what is _ for", "what is _ about"}
_HALF_A_QUESTION = re.compile(
    r"_ and (?!_|(?:where|when|how|why|what|who)\b)[a-z]+$"
    r"|^(?:what|which|who|where|when)\b.* (?:over|on|in|of|by|for) \w+ upon\b"
    r"|^how (?:much|many)\b.* (?:earn|make|paid|get|pay) _$|\b(?:once|upon) _|^how far in\b"
    r"|\bbetween _(?! and\b)|^(?:\w+ )?(?:what|which) years? (?:is|was|were) _$"
    r"|^how (?:many times|often|long) (?:has|have|had) _$|^(in|on|at|to|from|of) .* \1$|\bmade off$"
    r"|(?<!is )(?<!are )\bthere _|\b(?:in|on|of|for|at|from|with) to\b|_ (?:who|which|that) (?:in|on|of)\b"
    r"|^who \w+ (?:\w+ )?_ and _$|^what (?:kind|type) (?!(?:of|is|are|was|were|do|does|did)\b)"
    r"|^how many (?:\w+ )?\w+s\b.* (?:is|was|has) there\b|\bof following\b"
    r"|\bdifferences? (?:of|in) _$|\bstand for _|^what (?:is|are) _ (?:spoken|found)\b|\bput _$|^how old did\b"
    r"|^how .*_ or _$|^where (?:is|are|was|were) _ made (?:from|of|with)$|^where did _ attend _$"
    r"|^(?:what|which) (?:city|town|state|country|county|continent|province|region|district) "
    r"(?:is|are|was|were) _(?: located)?$"
    r"|^who (?:has|have|had) _ (?:in|of|on)\b|\bwhat (?:is|are|was|were) _ used in\b"
    r"|^what (?:kind|kinds|type|types) of _ does\b.*\bin common$|\bdoes _ have in common$"
    r"|^(?:what|who) (?:is|are|was|were) _ on earth$"
)
"""Frames that keep half of a title, lack a verb or say a preposition twice, ask for an amount per slot, or leave to the
slot what the question is of: "plays _ and restless", "how many times has _", "in what country is _ in", "how much does
_ earn _", "what city is _", "who has _ in world"."""
_HOLIDAY = re.compile(r"\b[a-z]+(?: 's|s) day\b")
_TAKES_PLACE = re.compile(r"^(?:when|where) (?:do|does|did) ([a-z]+) of _ (?:take|happen|occur|start|begin|come|air)\b")
_NO_TEXT = re.compile(r"\b(?:pictures?|photos?|photographs?|images?|drawings?|videos?) of _$")
"""Frames that ask for what no text can show."""
_BEHIND_OF = frozenset(("now", "today", "ago"))
_BE = frozenset(("is", "was", "were", "are"))
_FULL_AUXILIARIES = frozenset(("do", "have"))
_NEEDS_MORE = frozenset(("is", "was", "are", "were", "has", "had", "and", "the"))
_COUNTING = WORD_CLASSES["counting"]
_SUPERLATIVES = frozenset(("best", "worst", "most", "least", "first", "last"))
_TOPIC_PREPOSITIONS = frozenset(("in", "on", "of", "for", "at", "from", "with", "to"))
MIN_GENERAL_FILLERS = 5
"""Fewest fillers of a frame that makes another, which has words in the place of its slot, one of its fillers."""
_ED_VERBS = WORD_CLASSES["ed_verbs"]


def content_words(frame: str) -> list[str]:
    """The words of a frame that carry its relation."""
    return [w for w in frame.split() if w != "_" and w not in FUNCTION_WORDS]


class FrameGrammar:
    """Checks and prices frames with the help of word counts.

    Args:
        table: Word counts.
    """

    def __init__(self, table: WordTable) -> None:
        self._table = table
        self.is_wellformed = lru_cache(maxsize=200_000)(self._is_wellformed)
        self._span_cost = lru_cache(maxsize=4096)(self._price_span)
        self.relation_value = lru_cache(maxsize=200_000)(self._relation_value)

    def _is_wellformed(self, frame: str) -> bool:
        """Whether a frame reads like a complete English question."""
        words = frame.split()
        content = content_words(frame)
        if not content:
            return frame in _BARE_QUESTIONS
        if any(
            w in PRONOUNS and w not in _FRAME_PRONOUNS and not self._means_slot(words, k) for k, w in enumerate(words)
        ):
            return False
        if any(w == "i" and words[k - 1] not in AUXILIARIES for k, w in enumerate(words)):
            return False
        if "_ _" in frame or frame.endswith((" and", " or", "'s")) or _HALF_A_QUESTION.search(frame):
            return False
        auxiliaries = [w for w in words if w in AUXILIARIES]
        if len(set(auxiliaries)) < len(auxiliaries):
            return False
        if not self._numbers_agree(words):
            return False
        if words[0] in {"how", "when", "where", "why"} and not auxiliaries:
            return False
        good = self._opens_well(words) and self._verbs_agree(words) and self._slots_stand_well(words)
        return good and not (_NO_TEXT.search(frame) or self._keeps_name(words) or self._trails(words))

    def _means_slot(self, words: list[str], place: int) -> bool:
        """Whether a pronoun stands for the slot before it: "how did _ get its name"."""
        return words[place] in {"its", "their"} and "_" in words[:place]

    def _keeps_name(self, words: list[str]) -> bool:
        """Whether a subject or a tail is a name of words that are general each, or half of one: "_ in star wars"."""
        frame = " ".join(words)
        event = _TAKES_PLACE.match(frame)
        if _HOLIDAY.search(frame) or (event and not is_class(event.group(1))):
            return True
        for start, word in enumerate(words):
            if not start or word not in self._table.name_starts:
                continue
            end = start + (3 if words[start + 1 : start + 2] in (["of"], ["'s"]) else 2)
            if words[start + 1 : start + 3] == ["of", "_"] and self._table.is_name(word, "of"):
                return True
            if end > len(words) or not self._table.is_name(*words[start:end]):
                continue
            before = words[start - 1]
            if before in AUXILIARIES or (before in _TOPIC_PREPOSITIONS and "_" not in words[end:]):
                return True
        return False

    def _trails(self, words: list[str]) -> bool:
        """Whether a last word hangs on a complement for no reason: "who is singer of _ ho"."""
        last, of_slot = words[-1], words[-3:-1] in (["of", "_"], ["for", "_"], ["in", "_"])
        if not of_slot or last in FUNCTION_WORDS or words[0] in PREPOSITIONS or words[1] not in _BE:
            return False
        table = self._table
        ending = table.is_past(last) or last.endswith(("ed", "ing")) or table.is_verb(last)
        return not (ending or table.is_mainly_noun(last) or last in ADJECTIVES or last in _BEHIND_OF)

    def _numbers_agree(self, words: list[str]) -> bool:
        """Whether "is" goes with "capital of", "are" with "capitals of", and "two" with a plural."""
        if len(words) < 5 or words[0] not in {"what", "which"} or words[1] not in _BE:
            return True
        place = next((k for k, word in enumerate(words) if word in _RELATION_PREPOSITIONS), 0)
        noun = words[place - 1] if place > 2 else "_"
        if noun == "_" or noun in FUNCTION_WORDS or noun.endswith("ed") or self._table.is_past(noun):
            return True
        if "and" in words[:place]:
            return True
        counted = not _COUNTING.isdisjoint(words[: place - 1])
        return is_plural(noun) == (words[1] in {"are", "were"}) and (is_plural(noun) or not counted)

    def _opens_well(self, words: list[str]) -> bool:
        """Every question has a verb: "who" an inflected one, "how do" one after its subject."""
        table = self._table
        first, second = words[0], words[1]
        if words[-1] in WH_WORDS or words[-1] in _NEEDS_MORE or words[:2] == ["who", "_"]:
            return False
        if first in {"what", "which", "who"} and AUXILIARIES.isdisjoint(words):
            opening = second not in FUNCTION_WORDS and self._is_main_verb(second)
            later = (w for w in words[2:] if w != "_" and w not in FUNCTION_WORDS)
            if not (opening or any(self._is_main_verb(w) for w in later)):
                return False
        bare = second not in FUNCTION_WORDS and table.is_mainly_verb(second) and not table.is_past(second)
        if first == "what" and bare and not second.endswith("s") and AUXILIARIES.isdisjoint(words):
            return False
        if first == "who":
            bare = table.is_verb(second) and not second.endswith(("s", "ed"))
            return not (bare or (table.is_finite(second) and not AUXILIARIES.isdisjoint(words[2:])))
        return not (
            first == "how" and second in _DO and words[2] not in FUNCTION_WORDS and table.is_mainly_verb(words[2])
        )

    def _is_main_verb(self, word: str) -> bool:
        """Whether the word can be the only verb of a question: "causes", "happened", "rhyme"."""
        table = self._table
        third = word.endswith("s") and table.is_verb(word[:-1])
        return third or (table.is_finite(word) and not table.is_mainly_noun(word))

    def _verbs_agree(self, words: list[str]) -> bool:
        """After "did" or "does" and its subject comes a bare verb; after "is" or "was" before a slot none does."""
        table = self._table
        for k, word in enumerate(words):
            before_slot = words[k + 1 : k + 2] == ["_"]
            if word in _DO:
                verbs = [w for w in words[k + 1 :] if w != "_" and (w not in FUNCTION_WORDS or w in _FULL_AUXILIARIES)]
                if before_slot:
                    verbs = verbs[:1]
                found = [v for v in verbs if table.is_verb(v) or v in _FULL_AUXILIARIES or v.endswith("ed")]
                if not found or found[0] in _ONLY_PAST or (found[0].endswith("ed") and found[0] not in _ED_VERBS):
                    return False
                subject = list(takewhile(lambda w: w != "_" and w not in FUNCTION_WORDS, words[k + 1 :]))
                if word == "do" and subject and table.is_mainly_noun(subject[-1]) and not is_plural(subject[-1]):
                    return False
            if word in _BE and before_slot and k + 2 < len(words):
                verb = words[k + 2]
                if table.is_mainly_verb(verb) and not verb.endswith(("ed", "en", "t", "n", "d", "ing")):
                    return False
        return True

    def _slots_stand_well(self, words: list[str]) -> bool:
        """A slot is a whole noun phrase: no kept adjective before it, no kept head noun after it."""
        table = self._table
        for k, word in enumerate(words):
            if word != "_":
                continue
            before = words[k - 1]
            after = words[k + 1] if k + 1 < len(words) else ""
            if before == "you" or (before == "to" and words[k - 2] == "way" and after):
                return False
            if after and after not in FUNCTION_WORDS and self._is_whole(words, k, after):
                return False
            if before in _APPOSITION and words[k - 2] in WH_WORDS:
                return False
            is_content = before not in FUNCTION_WORDS
            if is_content and words[k - 2] in _BE and table.is_verb(before) and not before.endswith(("ing", "ed")):
                return False
            compound = is_content and before not in _APPOSITION and not before.endswith("ing")
            if compound and words[k - 2] != "to" and words[k - 2] in PREPOSITIONS:
                return False
            if before in ADJECTIVES or before in WH_WORDS or before in _OPEN_DETERMINERS:
                return False
            if before.endswith("est") and before not in {"test", "invest", "rest", "interest"}:
                return False
            is_verb = k == 2 and self._is_main_verb(before)
            if before not in FUNCTION_WORDS | _APPOSITION and table.is_mainly_noun(before) and not is_verb:
                return False
            if after == "of" or (after in PRONOUNS and after != "you"):
                return False
            if after and after not in FUNCTION_WORDS | _AFTER_SLOT_NOUNS and self._is_head(after, words, k):
                return False
        return True

    def _is_whole(self, words: list[str], slot: int, after: str) -> bool:
        """Whether no other noun or verb may follow: a slot after "what is" or "who plays"."""
        participle = self._table.is_past(after) or (after.endswith("ed") and after not in _ED_VERBS)
        if words[0] not in {"what", "which", "who"} or slot != 2 or after in ADJECTIVES or participle:
            return False
        return words[1] in _BE or (words[0] == "who" and words[1] not in AUXILIARIES)

    def _is_head(self, word: str, words: list[str], slot: int) -> bool:
        """Whether a word after a slot would be the head of its phrase rather than the question's verb."""
        table = self._table
        if table.is_past(word) or (word.endswith("ed") and word not in _ED_VERBS):
            return False
        counts = table.get(word)
        others = any(w != word and w != "_" and w not in FUNCTION_WORDS and table.is_verb(w) for w in words)
        is_verb_here = not others and not _DO_OR_MODAL.isdisjoint(words[:slot])
        return table.is_mainly_noun(word) or (not is_verb_here and counts.noun > max(5.0, 0.3 * counts.verb))

    def _relation_value(self, frame: str) -> float:
        """Worth of the relation words that a frame keeps, at most four of them."""
        values = sorted((self._table.get(w).relation for w in content_words(frame)), reverse=True)
        return sum(values[:4]) - (1.5 if not values else 0.0) - 0.3 * max(0, len(values) - 3)

    def filler_cost(self, words: tuple[str, ...], spans: tuple[tuple[int, int], ...]) -> float:
        """How little the slots' words look like noun phrases (0 is perfect)."""
        return sum([self._span_cost(words, start, end) for start, end in spans])

    def _price_span(self, words: tuple[str, ...], start: int, end: int) -> float:
        table = self._table
        first, last = words[start], words[end - 1]
        inner = words[start:end]
        counts = table.get(last)
        cost = 1.5 * self._keeps_relation_noun(inner)
        if counts.verb > counts.noun and table.name_share(last) < 0.5:
            cost += 1.5
        if table.is_mainly_verb(first):
            cost += 2.0
        if table.is_past(first) or (words[start - 1] in AUXILIARIES and first.endswith("ly")):
            cost += 3.0
        if end - start > 1 and (table.is_past(last) or last.endswith("ly")):
            cost += 2.5
        if first in ADJECTIVES or first.endswith("est"):
            cost += 1.0
        if words[end : end + 1] and words[end] in PREPOSITIONS and any(self._is_superlative(w) for w in inner[:2]):
            cost += 3.0
        cost += 0.6 * ("to" in inner) + 3.0 * ("or" in inner)
        if "," in inner[1:2] and table.is_general(first):
            cost += 3.0
        cost += 0.6 * len([w for w in inner if w in _NOT_IN_A_NAME])
        return cost + 0.5 * max(0, len(inner) - 4)

    def _is_superlative(self, word: str) -> bool:
        """Whether a word needs to know its field: "the oldest bank" is of something that stands behind the slot."""
        return word in _SUPERLATIVES or (word.endswith("est") and f"{word[:-2]}r" in self._table.counts)

    def is_topical(self, frame: str, fillers: Mapping[str, int]) -> bool:
        """Whether words of a frame are one topic among many: "who plays _ on family guy", "how do glaciers affect _".

        Args:
            frame: A frame.
            fillers: Number of different fillers by frame; one with a slot in the place of these words has to be there.
        """
        words = frame.split()
        least = max(MIN_GENERAL_FILLERS, 3 * fillers.get(frame, 1))
        for cut, word in enumerate(words):
            tail = words[cut + 1 :]
            if (
                cut < 2
                or word not in _TOPIC_PREPOSITIONS
                or not any(w != "_" and w not in FUNCTION_WORDS for w in tail)
            ):
                continue
            if fillers.get(" ".join([*words[: cut + 1], "_"]), 0) >= least:
                return True
        start = next((k + 1 for k, w in enumerate(words) if w in _DO_OR_MODAL), len(words))
        start = start + 2 if words[start : start + 1] == ["you"] else start
        run = list(takewhile(lambda w: w != "_" and w not in FUNCTION_WORDS, words[start:]))
        wider = [" ".join([*words[:start], "_", *words[end:]]) for end in range(start + 1, start + len(run) + 1)]
        if words[-2:] == ["in", "_"] and words[start - 1 : start] != ["you"]:
            # "dental nurse" of "how much does dental nurse earn in _" is a topic of "how much does _ earn" too.
            wider += [shorter.removesuffix(" in _") for shorter in wider[1 : len(run) - 1]]
        return any(fillers.get(shorter, 0) >= least for shorter in wider)

    def _keeps_relation_noun(self, inner: tuple[str, ...]) -> bool:
        """Whether a slot swallowed "structure of ...": a general noun before a preposition."""
        if _RELATION_PREPOSITIONS.isdisjoint(inner):
            return False
        return any(
            after in _RELATION_PREPOSITIONS and word not in FUNCTION_WORDS and self._table.is_general(word)
            for word, after in pairwise(inner)
        )

    def worth(self, reading: Reading, num_fillers: int) -> float:
        """How believable a reading is, from the fillers its frame has and the relation it keeps.

        What its slots cost is still to be taken off (`filler_cost`), which is never below 0.
        """
        shared = 0.6 * min(math.log2(max(num_fillers, 1)), 5.0)
        return shared + self.relation_value(reading.frame) - 0.5 * (len(reading.spans) - 1)

    def score(self, reading: Reading, words: tuple[str, ...], num_fillers: int) -> float:
        """How believable a reading is, slots and all."""
        return self.worth(reading, num_fillers) - self.filler_cost(words, reading.spans)
