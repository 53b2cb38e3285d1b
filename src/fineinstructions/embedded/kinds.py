"""Slot kinds: what sort of thing belongs into a slot ("a person", "a disease"), read off the frame and the filler.

A frame's own words tell most ("symptoms of _" wants a disease, "who sang _" a song). Where they do not, the filler's
head noun or its corpus counts do ("syndrome", a word seen after "Mr.", a word seen after "in"). `DEFAULT_KIND` says that
neither told.
"""

import re

from fineinstructions.embedded.words import FUNCTION_WORDS, PREPOSITIONS, WordTable, stem

DEFAULT_KIND = "a topic"

_HEADS = {
    "a disease": "disease syndrome cancer disorder infection fever diabetes leukemia anemia arthritis asthma flu virus "
    "tumor tumour pneumonia hepatitis dystrophy deficiency sclerosis allergy pain stroke carcinoma lymphoma depression "
    "autism epilepsy dementia schizophrenia malaria tuberculosis measles rash ulcer cyst herpes hiv aids plague cholera",
    "a medicine or treatment": "drug vaccine surgery therapy antibiotic insulin aspirin ibuprofen tylenol medication pill "
    "medicine treatment vitamin steroid transplant chemotherapy",
    "a body part": "brain heart liver kidney lung stomach bone muscle skin eye ear nerve tongue tooth knee foot hand "
    "gland artery vein skull neck pancreas spleen bladder intestine uterus ovary spine spleen",
    "a place": "city town village county state country island river lake mountain ocean sea beach street road park capital "
    "province region district desert valley bay peninsula continent canal forest territory kingdom empire republic "
    "bridge castle palace building tower airport stadium museum cathedral church temple hotel station dam",
    "an organisation": "company corporation university college school party band team club union bank agency committee "
    "association society league army navy hospital government court church church parliament congress council department "
    "foundation institute board firm brand airline",
    "an event": "war battle revolution election crisis massacre treaty olympics championship tournament cup bowl festival "
    "riot rebellion earthquake hurricane flood fire depression race conference expedition crusade siege attack invasion "
    "uprising movement awards coup trial wedding eclipse game series",
    "a law or document": "act law amendment constitution bill declaration compromise doctrine policy agreement charter "
    "proclamation rule code",
    "a work": "movie film show song book album novel poem play series episode story opera painting soundtrack sitcom anime "
    "lyrics musical symphony magazine newspaper",
    "an animal or plant": "dog cat horse bird fish snake tiger lion elephant bear wolf fox frog turtle shark whale insect "
    "spider bee ant butterfly rabbit mouse rat cow pig sheep goat chicken duck eagle penguin dinosaur animal tree plant "
    "flower rose grass fern moss algae bacteria fungus mushroom monkey deer owl dolphin crab worm beetle mammal reptile",
    "a food or dish": "cake bread soup salad sauce cheese pie rice pasta pizza sandwich chocolate ice-cream beer wine tea "
    "coffee juice cookie cookies sugar salt butter milk egg eggs meat beef pork steak potato tomato fruit vegetable honey oil",
    "a substance": "acid oxide water oxygen hydrogen carbon nitrogen sodium chloride metal gas iron copper gold silver "
    "helium sulfate carbonate hydroxide ethanol alcohol plastic steel aluminum lead uranium calcium potassium element",
    "a device or machine": "engine computer phone machine car truck camera battery motor printer radio television tv laptop "
    "ipod iphone xbox playstation ps3 pump alternator transmission telescope microscope clock keyboard microphone",
    "a software tool": "software windows linux android app command cmdlet function package excel browser server database "
    "latex python java javascript plugin script api qgis arcgis mathematica wordpress",
    "a process": "photosynthesis respiration evolution mitosis meiosis erosion fermentation digestion process cycle "
    "reaction diffusion osmosis fission fusion combustion condensation evaporation",
    "an idea or field": "theory law principle philosophy religion science biology physics chemistry economics psychology "
    "mathematics democracy capitalism communism socialism feudalism buddhism christianity islam hinduism "
    "judaism nationalism imperialism federalism",
    "a language": "language latin greek spanish french german english arabic chinese hindi sanskrit",
    "a job": "teacher doctor nurse engineer lawyer manager officer technician therapist scientist pilot firefighter driver "
    "assistant dentist surgeon accountant designer worker",
}  # fmt: skip
_KIND_OF_HEAD = {stem(word): kind for kind, words in _HEADS.items() for word in words.split()}
_DISEASE_ENDINGS = ("itis", "emia", "osis", "pathy", "algia", "oma", "trophy", "phobia", "plegia")
_NOT_DISEASE = frozenset(
    "photosynthesi mitosi meiosi osmosi hypnosi metamorphosi diploma coma aroma oklahoma roma".split()
)
_YEAR = re.compile(r"^(?:1[0-9]{3}|20[0-9]{2})s?$")
_NUMBER = re.compile(r"^[\d.,]+$")
_MONTHS = frozenset("january february march april june july august september october november december".split())
_COMMAND = re.compile(r"^[a-z]+(?:-[a-z]+)+$")
_COMMAND_VERBS = frozenset("get set new add remove out start stop invoke import export test write read select".split())

# (frame pattern, kinds of its slots in order); the first that fits decides. "" leaves a slot to its filler.
_HINTS: tuple[tuple[str, tuple[str, ...]], ...] = tuple(
    (pattern, tuple(kinds.split("|")))
    for pattern, kinds in (
        (r"symptoms?|signs of _|diagnos|prognosis|outlook|contagious|treatments? (?:for|of) _|treat _|cured?\b|\bprevent _", "a disease"),
        (r"side effects", "a medicine or treatment"),
        (r"^who (?:plays|played|is|was) _ (?:in|on)(?: \w+)* _", "a character|a film or show"),
        (r"^who (?:plays|played|voices|voiced|sings|dies) .*in (?:movie |film |show )?_$|(?:cast|episodes?|seasons?) (?:of|in|are in|are there of) _", "a film or show"),
        (r"^who (?:plays|played) _$", "a character"),
        (r"movie _|film _|filmed", "a film or show"),
        (r"song _|^who (?:sings|sang|originally sang) _|singer of _$", "a song"),
        (r"book _|novel _|^who wrote _|author of _|^who is writer", "a book"),
        (r"who painted _|painting", "a painting"),
        (r"(?:word|term|phrase|name) _|_ (?:mean|stand for|called)|meaning of (?:word |name )?_|definition of|^define _|synonym|antonym|opposite of|pronounce", "a term"),
        (r"_ stand for|abbreviation|full form|acronym", "an abbreviation"),
        (r"capital (?:city )?of _|population|time zone|zip code|area code|climate|weather in|currency|official language|national|governor|mayor|^where (?:is|are|was|were) _ (?:located|situated)$|(?:located|situated) in _|how far is|tourist|capital in", "a place"),
        (r"(?:president|prime minister|king|queen|vice president|leader) (?:of|in) _", "a country or organisation"),
        (r"(?:ceo|owner|chairman|headquarters?|founder|founders) (?:of|for) _|owns _|founded|headquartered", "an organisation"),
        (r"_ (?:born|die|died|marry|buried|married|dead|alive)|(?:wife|husband|parents|mother|son|daughter|children|biography|nickname|real name|birthday) (?:of|for) _|how old is _|net worth|_ 's (?:wife|husband|father|mother|birthday|birth|real|children|parents)|who did _ (?:marry|play)|did _ (?:marry|die|discover|invent|write|paint|win)|^who is _ married|_ 's (?:death|life)|_ famous|_ accomplish|_ educated|_ go to school|when did _ live|^who killed _|^who (?:was|is) _$", "a person"),
        (r"_ (?:last )?(?:win|won|beat|qualify) ?_?", "a team or person|an event"),
        (r"^who (?:has won|wins|has scored)", "an event"),
        (r"^who (?:won|hosted|fought in|fought) _|_ (?:take place|happen|held|fought)|battle|(?:causes?|outcome|result|effects|consequences) of war|winner of|^who won", "an event"),
        (r"invented|inventor of", "an invention"),
        (r"discovered|discoverer", "a discovery"),
        (r"ingredients|recipe|^how (?:do you |to |do i )?(?:cook|bake|prepare) _|calories|cook _", "a food or dish"),
        (r"^how (?:do you |to |do i |can i |can you )(?:make) _", "something to make"),
        (r"molar mass|chemical formula|formula (?:for|of)|melting point|boiling point|density of|atomic|made of|made from|chemical", "a substance"),
        (r"habitat|predators?|scientific name|life ?span|_ eat\b|_ reproduce|gestation", "an animal or plant"),
        (r"^what does cmdlet _|command _|cmdlet", "a command"),
        (r"difference between _ and _|differences between _ and _|compare _ and _|_ differ|_ different from _|_ related to _|similarities between|relationship between", "a topic|another topic"),
        (r"_ and _$", "|another of the same kind"),
        (r"(?:law|amendment|act|constitution) _|ratified|signed|passed", "a law or document"),
        (r"_ (?:come out|released|air|premiere|released on)|release date", "a film, song or product"),
        (r"how (?:do you |to |do i |can i )(?:change|replace|remove|install|fix|repair|reset|adjust|clean) _", "an item"),
        (r"^how (?:do|does) _ work|parts of|components of|function of|functions of|purpose of|used for|use of|uses of|uses for", "a thing"),
        (r"become _$|earn\b|salary|_ make (?:a )?(?:year|hour)|paid", "a job"),
        (r"speak(?:s)? _|spoken in _", "a language"),
        (r"history of|origin of|types of|kinds of|examples? of|importance of|advantages|disadvantages|benefits|characteristics|properties|effects? of", ""),
        (r"^what causes|cause of|causes of|caused", "a condition or event"),
        (r"^where (?:is|are) _$|^how big is|^how large is", "a place"),
    )
)  # fmt: skip
_COMPILED_HINTS = tuple((re.compile(pattern), kinds) for pattern, kinds in _HINTS)
_AFTER_SLOT_PLACE = re.compile(r"\b(?:in|near|from|to|at) _$")


def hinted_kinds(frame: str, num_slots: int) -> tuple[str, ...]:
    """Kinds that a frame's own words ask for; an empty string where they leave it open.

    Example:
        >>> hinted_kinds("what are symptoms of _", 1)
        ('a disease',)
    """
    for pattern, kinds in _COMPILED_HINTS:
        if pattern.search(frame):
            return (kinds + ("",) * num_slots)[:num_slots]
    return ("",) * num_slots


def filler_kind(filler: str, table: WordTable) -> str:
    """Kind of thing that a filler names, or `DEFAULT_KIND`.

    Args:
        filler: The query's words in the slot, lower-case, without its article.
        table: Word counts.
    """
    words = filler.split()
    if len(words) == 1:
        word = words[0]
        if _YEAR.match(word):
            return "a year"
        if _NUMBER.match(word):
            return "a number"
        if _COMMAND.match(word) and word.split("-")[0] in _COMMAND_VERBS:
            return "a command"
        if word in _MONTHS:
            return "a month"
    head = _head(words)
    root = stem(head)
    if root.endswith(_DISEASE_ENDINGS) and root not in _NOT_DISEASE and len(root) > 5:
        return "a disease"
    kind = _KIND_OF_HEAD.get(root)
    return kind or _name_kind(words, table)


def _head(words: list[str]) -> str:
    """The last word before the first preposition."""
    for position, word in enumerate(words):
        if position and word in PREPOSITIONS:
            return words[position - 1]
    return words[-1]


def _name_kind(words: list[str], table: WordTable) -> str:
    names = [w for w in words if w not in FUNCTION_WORDS]
    if not names or any(table.name_share(w) < 0.6 for w in names):
        return DEFAULT_KIND
    person = sum(table.get(w).person for w in names) / len(names)
    place = sum(table.get(w).place for w in names) / len(names)
    if person > max(1.0, place) and len(words) >= 1:
        return "a person"
    if place > max(2.0, 1.5 * person):
        return "a place"
    return "a person" if len(names) == 2 and person > 0 else DEFAULT_KIND


def vote_kind(fillers: list[str], table: WordTable) -> str:
    """Kind that a group of fillers shares: the most frequent informative one, if it covers a third of the group."""
    counts: dict[str, int] = {}
    for filler in fillers:
        kind = filler_kind(filler, table)
        counts[kind] = counts.get(kind, 0) + 1
    counts.pop(DEFAULT_KIND, None)
    if not counts:
        return DEFAULT_KIND
    kind = min(counts, key=lambda k: (-counts[k], k))
    return kind if counts[kind] * 3 >= len(fillers) and counts[kind] >= 2 else DEFAULT_KIND
