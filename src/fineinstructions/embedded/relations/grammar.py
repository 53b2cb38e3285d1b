"""Small English grammar: verb stems, number, clean noun phrases, and the kind of thing a phrase names.

In: words. Out: what a relation needs to know about them. The decision to question: everything here prefers to say "not clean"
when in doubt, because a wrong filler costs a pair and a missed one costs nothing.
"""

import re
from dataclasses import dataclass, replace
from functools import lru_cache

_IRREGULAR = {
    base: tuple(forms.split())
    for base, forms in {
        "be": "is are was were been being", "bear": "born bore borne", "begin": "began begun", "become": "became", "break": "broke broken",
        "bring": "brought", "build": "built", "buy": "bought", "choose": "chose chosen", "come": "came", "cut": "cut", "do": "did done",
        "draw": "drew drawn", "drive": "drove driven", "die": "died dying dies", "eat": "ate eaten", "fall": "fell fallen", "feed": "fed",
        "fight": "fought", "find": "found", "fly": "flew flown", "found": "founded founding", "get": "got gotten", "give": "gave given",
        "go": "went gone goes", "grow": "grew grown", "have": "has had having", "hold": "held", "keep": "kept", "know": "knew known",
        "lay": "laid", "lead": "led", "leave": "left", "lie": "lay lain lying", "lose": "lost", "make": "made", "mean": "meant", "meet": "met",
        "pay": "paid", "put": "put", "read": "read", "ride": "rode ridden", "rise": "rose risen", "run": "ran run", "say": "said", "see": "saw seen",
        "sell": "sold", "send": "sent", "set": "set", "shoot": "shot", "show": "showed shown", "sing": "sang sung", "sit": "sat", "speak": "spoke spoken",
        "spend": "spent", "spread": "spread", "stand": "stood", "steal": "stole stolen", "strike": "struck", "take": "took taken", "teach": "taught",
        "tell": "told", "think": "thought", "throw": "threw thrown", "wear": "wore worn", "win": "won", "write": "wrote written", "bind": "bound",
    }.items()
}  # fmt: skip
_BASE = {form: base for base, forms in _IRREGULAR.items() for form in forms} | {base: base for base in _IRREGULAR}
PARTICIPLES = frozenset(
    "born begun broken brought built bought chosen cut done drawn driven eaten fed fought found flown given grown held kept known laid led left lost made "
    "meant met paid put read ridden run said seen sold sent set shot shown sung spoken spent spread stolen struck taken taught told thought thrown worn "
    "won written bound".split()
)

PERSON_NOUNS = frozenset(
    "actor actress architect artist athlete author biologist boxer broadcaster businessman businesswoman cartoonist chemist clergyman coach composer "
    "comedian cricketer criminal cyclist dancer designer director diplomat economist emperor engineer explorer filmmaker footballer general golfer "
    "governor guitarist historian inventor journalist judge king lawyer lecturer linebacker mathematician midfielder model musician novelist nurse officer "
    "painter philosopher photographer physician physicist pianist pitcher player playwright poet politician president priest producer professor prophet "
    "psychologist publisher queen racer rapper rider runner sailor scholar scientist sculptor senator singer skater skier soldier songwriter sprinter "
    "striker surgeon swimmer teacher theologian wrestler writer goalkeeper defender forward quarterback skier driver presenter host personality killer "
    "jumper thrower hurdler rower fencer judoka umpire referee activist missionary entrepreneur executive leader minister emigrant woman man graduate member native resident citizen soprano tenor bishop".split()
)
PLACE_NOUNS = frozenset(
    "airport area bay borough building castle cathedral church city commune community constituency continent country county district division "
    "village town hamlet island islands lake locality mountain municipality neighborhood neighbourhood park parish peninsula port prefecture province "
    "region reserve reservoir river settlement square stadium state station street suburb territory township valley ward arena capital glacier canal "
    "bridge monument museum hill forest desert sea archipelago".split()
)
WORK_NOUNS = frozenset(
    "album anime band book cartoon comic documentary drama ep episode film franchise game magazine manga movie musical newspaper novel opera play "
    "poem program programme serial series show single sitcom song soundtrack story telenovela trilogy videogame".split()
)
ORGANISATION_NOUNS = frozenset(
    "academy agency airline alliance association band brand broadcaster bureau club college commission committee company conference conglomerate "
    "corporation department group institute league manufacturer network ngo operator organisation organization parliament party publisher retailer "
    "school senate society squad subsidiary team union university court council".split()
)
EVENT_NOUNS = frozenset(
    "battle campaign championship championships competition contest convoy cup derby edition election event festival final games marathon match "
    "olympics pageant race regatta season series tour tournament war prix rally".split()
)
DISEASE_NOUNS = frozenset(
    "condition disorder disease syndrome infection cancer tumor tumors illness abnormality defect deficiency malformation anomaly injury virus cancers "
    "inflammation disturbance dystrophy disorders diseases conditions neuropathy dysplasia anemia carcinoma lymphoma leukemia".split()
)
ANIMAL_NOUNS = frozenset(
    "species genus animal bird fish mammal insect plant tree reptile amphibian arthropod crustacean mollusk spider beetle bat whale dog cat horse breed "
    "shrub herb flower parasite worm fungus bacterium alga organism".split()
)
_KINDS = {
    "person": PERSON_NOUNS,
    "disease": DISEASE_NOUNS,
    "place": PLACE_NOUNS,
    "work": WORK_NOUNS,
    "event": EVENT_NOUNS,
    "organisation": ORGANISATION_NOUNS,
    "animal": ANIMAL_NOUNS,
}

PRONOUNS = frozenset(
    "i you he she it we they this that these those there here such one ones some any many most much few several each every both all none others other "
    "another either neither who which what whose someone anyone everyone nobody something anything everything nothing his her its their our my your "
    "him them us me itself themselves former latter same first second third last next more less no not".split()
)
_VAGUE = frozenset(
    "people person patients patient condition disorder disease diseases symptoms symptom treatment result results example examples way ways thing things "
    "fact reason reasons purpose goal answer question study studies test tests case cases cause causes number problem problems type types form forms "
    "kind kinds process step steps use part parts section chapter figure table article list note name names effect effects difference differences "
    "idea person individuals individual children child women men parents doctor doctors researchers scientists author authors experts member members "
    "team game season match title song album film book story show company group city town school club event area region site change changes "
    "information data order end time day days year years month week life work world place system systems issue issues option options method methods "
    "approach value values signs sign other others situation event events man woman boy girl king queen prince princess father mother son daughter "
    "brother sister family house home room door hand head eye eyes face voice letter captain sir lady gentleman professor chair minister government "
    "state country nation army war president act law bill court commander commanders unit units staff soldier soldiers force forces mission operation "
    "operations paragraph appendix enemy following above below command commands sample code script scripts cmdlet cmdlets parameter property object "
    "element attribute file topic module function variable point points majority half rest total amount rate level levels age race population "
    "outlook diagnosis prevention cure risk factor factors term terms word words phrase meaning definition plan role need benefit benefits "
    "importance ability answer evidence relationship version students teacher teachers workers farmers settlers colonists americans most lot body "
    "product products structure organ organs cell cells animals plants organism organisms".split()
)
_BAD_INSIDE = re.compile(
    r"\b(?:that|which|who|whom|whose|when|where|while|because|if|is|are|was|were|be|been|has|have|had|will|would|can|could|may|might|must|should|"
    r"this|these|those|it|he|she|they|we|you|i|his|her|its|their|our|my|your|not|also|than|as|such|so|then|there|but|or|by|with|from|at|on|into|"
    r"after|before|during|since|through|about|between|according|how|why|what|only|more|most|some|any|both|every|each|other|another|all|been|using)\b",
    re.IGNORECASE,
)
_BAD_START = re.compile(
    r"(?:in|on|at|by|for|from|with|when|if|as|although|though|because|since|while|during|after|before|under|over|to|and|but|or|so|yet|once|until|"
    r"unlike|like|despite|through|among|between|within|without|however|therefore|thus|also|then|now|today|often|sometimes|usually|generally|"
    r"typically|finally|instead|rather|meanwhile|furthermore|moreover|additionally|similarly|likewise|yes|no|well|oh|not|only|even|just|still|"
    r"perhaps|maybe|using|being|having|two|three|four|five|six|seven|eight|nine|ten|various|different|certain|numerous|further|currently|"
    r"following|according|note|see|figure|table|chapter|section|part|click|select|step|type|use|make|key|another|consequently|hence|here|there)\b",
    re.IGNORECASE,
)
_CLEAN = re.compile(r"[^\W_][\w’'.&/+\-–—]*(?: [\w’'&/+\-–—.]+){0,6}\Z")
_ARTICLE = re.compile(r"(the|an|a)\s+(?=\S)", re.IGNORECASE)
_SINGULAR_S = re.compile(r"(?:ss|us|is|sis|itis|ics|news|series|species|diabetes|rabies|measles|mumps|rickets|herpes|scabies|lens|’s|'s|ous)\Z", re.I)


@lru_cache(maxsize=65536)
def verb_stem(word: str) -> str:
    """One key for all forms of a verb.

    Example:
        >>> verb_stem("founded"), verb_stem("written"), verb_stem("caused"), verb_stem("cause"), verb_stem("located")
        ('found', 'write', 'caus', 'caus', 'locat')
    """
    word = word.lower()
    if word in ("founded", "founds", "founding"):
        return "found"
    if word in _BASE:
        return "discover" if word == "found" else _BASE[word]
    for ending, put in (("ies", "y"), ("ied", "y"), ("ying", "y"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + put
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


@lru_cache(maxsize=65536)
def noun_stem(word: str) -> str:
    """Singular of a noun, lower case.

    Example:
        >>> [noun_stem(w) for w in ("Symptoms", "causes", "history", "countries", "analysis", "diagnoses")]
        ['symptom', 'cause', 'history', 'country', 'analysis', 'diagnosis']
    """
    word = word.lower()
    if word in ("diagnoses", "prognoses"):
        return word[:-2] + "is"
    if len(word) <= 3 or not word.endswith("s") or _SINGULAR_S.search(word):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-2] if word.endswith(("ches", "shes", "sses", "xes")) else word[:-1]


def is_participle(word: str) -> bool:
    """Whether a word has the form of a past participle."""
    return word.lower() in PARTICIPLES or (len(word) > 3 and word.endswith("ed"))


@dataclass(frozen=True, slots=True)
class Phrase:
    """A noun phrase that can fill a slot."""

    text: str
    """The phrase without its article, in the spelling it has inside a sentence."""
    article: str = ""
    """``the``, ``a`` (for a and an) or empty."""
    plural: bool = False
    kind: str = ""
    """``person``, ``place``, ``work``, ``organisation``, ``event``, ``disease``, ``dish``, ``command``, ``task`` or empty when unknown."""

    @property
    def key(self) -> str:
        """What decides whether two phrases name the same thing."""
        return " ".join(noun_stem(word) for word in self.text.casefold().split())

    def with_article(self, article: str | None = None, capital: bool = False) -> str:
        """The phrase as it stands in a sentence."""
        article = self.article if article is None else article
        words = f"{indefinite(self.text) if article == 'a' else article} {self.text}" if article else self.text
        return words[:1].upper() + words[1:] if capital else words

    def of_kind(self, kind: str) -> "Phrase":
        """The same phrase with its kind set, unless it has one."""
        return self if self.kind or not kind else replace(self, kind=kind)


def indefinite(word: str) -> str:
    """``a`` or ``an``, by the sound the word begins with as far as its spelling tells."""
    first = word[:1].lower()
    if re.match(r"(?:uni|use|usu|eu|one\b|u[bt]i|U[A-Z])", word) or first not in "aeiou":
        return "an" if re.match(r"(?:hour|honest|heir|[FHLMNRSX][A-Z0-9\b])", word) else "a"
    return "an"


def is_plural(words: str) -> bool:
    """Whether a noun phrase is plural by its form; the noun before "of" decides."""
    head = re.split(r" (?:of|in|for|to|on|with) ", words)[0].split()[-1:] or [""]
    word = head[0].strip("()").lower()
    irregular = ("people", "children", "men", "women", "bacteria", "mice", "feet", "teeth", "fungi", "data", "police", "larvae", "alleles")
    return word in irregular or " and " in words or (word.endswith("s") and len(word) > 3 and not _SINGULAR_S.search(word))


def noun_phrase(raw: str, plural: bool | None = None, at_start: bool = False) -> Phrase | None:
    """A clean noun phrase, or nothing when it is vague, anaphoric or no noun phrase at all.

    Args:
        raw: Words as they stand in the text.
        plural: Number, where the verb tells it.
        at_start: Whether the words open a sentence, so that their capital may mean nothing.

    Returns:
        The phrase, or ``None``.

    Example:
        >>> noun_phrase("The cell cycle", at_start=True)
        Phrase(text='cell cycle', article='the', plural=False, kind='')
        >>> noun_phrase("This condition") is None, noun_phrase("people") is None
        (True, True)
    """
    words = " ".join(raw.replace("*", "").replace("`", "").split()).strip(" ,;:\"“”")
    article = ""
    if found := _ARTICLE.match(words):
        article = "the" if found.group(1).lower() == "the" else "a"
        words = words[found.end() :]
    elif at_start:
        words = _lower_first(words)
    if not words or len(words) > 60 or not _CLEAN.match(words) or words[-1] in ".-–—'’":
        return None
    tokens = words.lower().split()
    if article and len(tokens) == 1 and article == "the" and words[:1].isupper() and words[1:].islower():
        return None
    if not article and len(tokens) > 1 and (tokens[0].endswith("ed") and words.islower() or tokens[0].endswith("ing") and tokens[1] in ("a", "an", "the")):
        return None
    if tokens[0] in PRONOUNS or _BAD_START.match(words) or _BAD_INSIDE.search(words) or tokens[-1] in ("of", "in", "for", "to", "and", "the", "a", "an"):
        return None
    if len(tokens) == 1 and (noun_stem(tokens[0]) in _VAGUE or tokens[0] in _VAGUE or len(tokens[0]) < 3 or tokens[0].isdigit()):
        return None
    if _is_vague(tokens, article) or re.search(r"\b(?:19|20)\d\d\b", words) and tokens[0].isdigit() and len(tokens) == 1:
        return None
    return Phrase(words, article, is_plural(words) if plural is None else plural)


def _is_vague(tokens: list[str], article: str) -> bool:
    """Whether a phrase needs the text before it: "the new rule", "the last step", "a second type"."""
    head = noun_stem(tokens[tokens.index("of") - 1] if "of" in tokens[1:] else tokens[-1])
    if head.endswith("ly") or tokens[0].endswith("ly") and tokens[0] not in ("family", "assembly", "lily", "italy", "fly", "early"):
        return True
    if "of" in tokens[1:]:
        return head in _VAGUE and tokens[-1] in _VAGUE
    if article == "the" and len(tokens) <= 3 and head in _VAGUE and all(token.islower() for token in tokens):
        adjective = tokens[0]
        return adjective in ("new", "old", "main", "major", "only", "best", "key", "entire", "whole", "original", "final", "following", "current",
                             "different", "remaining", "resulting", "same", "overall", "young", "whole", "initial", "largest", "primary")  # fmt: skip
    return tokens[0] in ("new", "main", "major", "final", "remaining", "resulting", "initial", "additional", "common", "important", "possible",
                         "good", "young", "old", "older", "larger", "smaller", "great", "little", "poor", "affected", "recent", "early")  # fmt: skip


def _lower_first(words: str) -> str:
    """Take back the capital a sentence gives its first word, unless the word looks like a name."""
    first, _, rest = words.partition(" ")
    if not first[:1].isupper() or any(c.isupper() or c.isdigit() for c in first[1:]) or len(first) == 1:
        return words
    if rest[:1].isupper() or first.endswith(("’s", "'s")):
        return words
    return first[:1].lower() + first[1:] + (f" {rest}" if rest else "")


def kind_of_complement(complement: str) -> str:
    """Kind of thing that "is a ..." names: the first noun of a known kind before a relative clause or preposition.

    Example:
        >>> kind_of_complement("an Ethiopian footballer who plays"), kind_of_complement("a city in Kansas"), kind_of_complement("an idea")
        ('person', 'place', '')
    """
    head = re.split(r"\b(?:that|which|who|whose|where|in|of|for|from|by|with|on|at|to|and|used|located|based|,)\b|[,.;(]", complement, maxsplit=1)[0]
    words = head.lower().split()
    for word in reversed(words[-4:]):
        for kind, nouns in _KINDS.items():
            if word in nouns or noun_stem(word) in nouns:
                return kind
    return ""
