"""Patterns for the part of a sentence from its verb on, each with the relation it states about the sentence's subject.

In: nothing; tables only. The decision to question: a pattern is listed only when a reader accepted most of what it found in a
sample; wide ones ("is a part of", "is important") were tried and left out.
"""

import re

ACTIVE_VERBS = (
    "causes?|caused|consists?|comprises?|contains?|includes?|means|refers?|stands? for|helps?|allows?|enables?|serves?|functions?|acts?|protects?|regulates?|"
    "controls?|occurs?|develops?|results?|arises?|forms?|affects?|lives?|inhabits?|eats?|feeds?|began|begins?|started|ended|opened|closed|died|won|wrote|invented|"
    "discovered|founded|created|directed|produced|established|built|designed|composed|introduced|developed|led|produces?|provides?|takes? place|took place|"
    "describes?|differs?|requires?|uses?|removes?|stores?|transports?|carries|carry|involves?|gets|sets|adds|sends|creates?|converts?|specifies|happens?|begin|"
    "stopped|joined|moved|became|married|studied|attended|graduated|retired|received|played|scored|recorded|released|published"
)

_TIME = r"(?:(?:early|late|mid)[- ])?(?:the )?(?:(?:early|late|mid)[- ])?"
_MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
DATE = re.compile(
    rf"\b(?:in|on|by|around|about|since|at|until|during|from|between) (?:the )?{_TIME}(?:{_MONTH}\b|\d{{1,2}} {_MONTH}|1\d{{3}}\b|20\d\d\b|\d{{3,4}} (?:BC|AD|BCE|CE)\b|"
    r"\d{1,2}(?:st|nd|rd|th) century|(?:spring|summer|autumn|fall|winter) of \d{4})"
)
PLACE = re.compile(rf"\b(?:in|at|near|on) (?:the )?(?:(?:city|town|village|state|province|county|island|north|south|east|west|northern|southern|eastern|western) )*(?:of )?(?!{_MONTH})[A-Z][a-zé]")
AGENT = re.compile(r"\bby (?:the )?(?:[\w-]+ ){0,5}?[A-Z][\w.’'-]+")

_ADV = r"(?:(?:also|often|usually|normally|typically|mainly|primarily|generally|commonly|most commonly|sometimes|widely|mostly|now|still|frequently|currently|best|well|originally|most|\w+ly) )*"
_AUX = rf"{_ADV}(?:is|are|was|were|can be|may be|has been|have been) {_ADV}"
_RAW_PREDICATES = (
    ("noun:function", rf"{_AUX}(?:used|employed|utilized|designed|intended|needed|required|required) (?:to|for)\b"),
    ("noun:function", rf"{_AUX}responsible for\b"),
    ("noun:function", rf"{_ADV}(?:helps?|allows?|enables?|serves? (?:to|as)|functions? (?:to|as)|acts? (?:to|as)|protects?|regulates?|controls?|removes?|stores?|transports?|carries) "),
    ("noun:cause", rf"{_AUX}(?:caused by|the result of|due to|triggered by|brought on by|attributed to)"),
    ("noun:cause", rf"{_ADV}(?:results? from|arises? from|occurs? (?:when|if|because|as a result)|develops? (?:when|if|because|from)|happens? (?:when|if|because)|forms? when|begins? when)"),
    ("noun:effect", rf"{_ADV}(?:causes?|can cause|may cause|can lead to|leads? to|results? in|can result in|affects?) "),
    ("noun:part", rf"{_AUX}(?:composed of|made up of|comprised of|formed by|formed from)"),
    ("made", rf"{_AUX}(?:composed of|made of|made from|made out of|made with)"),
    ("noun:part", rf"{_ADV}(?:consists? of|comprises?|consisted of|contains?|has (?:two|three|four|five|six) (?:main |major )?(?:parts|components|layers|sections|regions|elements))"),
    ("noun:type", rf"{_AUX}(?:divided|classified|categorized|grouped|subdivided|organized) (?:into|as|by)"),
    ("noun:type", rf"(?:has|have|includes?|comes? in) (?:two|three|four|five|six|several) (?:main |major |different |basic |distinct )?(?:types|kinds|forms|categories|subtypes)"),
    ("noun:step", r"(?:has|have|consists? of|occurs? in|involves?|includes?) (?:two|three|four|five|six|seven|eight|several) (?:main |major |different |basic |distinct )?(?:stages|phases|steps)"),
    ("known:for", rf"{_AUX}(?:known|famous|noted|renowned|remembered|notable|celebrated) (?:for|as)"),
    ("called", rf"{_AUX}(?:known as|called|referred to as|termed|nicknamed)"),
    ("pass:name:after", rf"{_AUX}named (?:after|for|in honou?r of|because)"),
    ("where:locate", rf"{_AUX}(?:located|situated|found|headquartered|based) (?:\w+ ){{0,4}}?(?:in|on|at|near|between|within|along|by|inside|beneath|throughout)\b"),
    ("where:liv", rf"{_ADV}(?:lives? in|inhabits?|is native to|are native to|are found in|is found in)"),
    ("where:take", rf"{_AUX}(?:held|played|staged|contested) (?:in|at|on)\b.*[A-Z]"),
    ("where:take", r"(?:took|takes|take) place (?:in|at|on|inside|within)"),
    ("where:occur", r"(?:occurs?|takes? place|happens?) (?:in|at|on|inside|within)(?! (?:about|approximately|an estimated|\d|one|fewer|more|every|addition|order|response))"),
    ("when:take", r"(?:took|takes|take) place .*(?:1\d{3}|20\d\d)|(?:was|were) (?:held|played|contested|staged|fought) .*(?:1\d{3}|20\d\d)"),
    ("noun:symptom", rf"{_AUX}characteri[sz]ed by"),
    ("noun:characteristic", rf"{_AUX}characteri[sz]ed by"),
    ("noun:diagnosis", rf"{_AUX}diagnosed (?:by|with|when|based|using|through|on)"),
    ("noun:treatment", rf"{_AUX}(?:treated|cured|managed) (?:with|by|using|through)"),
    ("noun:prevention", rf"{_AUX}(?:prevented|avoided) (?:by|with|if)"),
    ("noun:inheritance", rf"{_AUX}inherited (?:in|as|from)"),
    ("noun:frequency", r"(?:affects|occurs in|is estimated to (?:affect|occur)|has been (?:found|reported) in) (?:about|approximately|an estimated|\d|1|one|fewer|more than|between|up to|every)"),
    ("how:spread", rf"{_AUX}(?:transmitted|spread|passed) (?:by|through|from|via)"),
    ("noun:importance", rf"{_AUX}(?:important|essential|vital|critical|necessary|crucial|significant) (?:because|for|to|in)\b"),
    ("noun:difference", r"differs? from"),
    ("stand", r"stands? for"),
    ("definition", rf"{_AUX}(?:defined|described) as (?:an?|the|any)\b"),
    ("definition", r"(?:refers? to|means|describes) "),
)  # fmt: skip
PREDICATES = tuple((key, re.compile(pattern)) for key, pattern in _RAW_PREDICATES)
"""Relation key and pattern, tried all, anchored at the verb."""

NOUN_OF = re.compile(
    r"(?:The|A|An|One|Some)?\s?(?:(?:main|major|most common|common|primary|chief|principal|general|overall|basic|key|typical|usual|possible|early|different|various|"
    r"ultimate|central|exact|important) )*(?P<noun>[A-Za-z]+?) (?:of|for) (?P<x>[^,;:()]{3,60})\Z"
)
NOT_NOUN_RELATION = frozenset(
    "number rest majority use addition lack case time part one most some all many lot amount series group set pair member piece level degree area site body "
    "result kind sort couple half percent percentage variety combination total period day year end side top middle front face line way point "
    "all each any much more word idea term member example first second third last collection presence absence center centre rate name list day "
    "son daughter child father mother brother sister wife husband man woman people person city country state act sense lot matter question "
    "range loss production addition formation development growth movement introduction creation publication beginning start university college "
    "bank department minister house court school battle king queen duke university church "
    "state request option evidence need support demand basis responsible search look account "
    "process type form version style genus species class family".split()
)

DEFINITION = re.compile(r"(?:an?|the|any|one of the|one of several) (?:[\w’'-]+[ ,]+){0,7}[\w’'-]+", re.IGNORECASE)
PLURAL_DEFINITION = re.compile(r"(?:[\w’'-]+,? ){0,5}[a-z]+s (?:that|which|who|whose|of|used|found|made|with|formed|in which|located|composed|consisting|containing|caused|designed|characterized)\b")
WEAK_COMPLEMENT = re.compile(
    r"(?:an?|the|one of the) (?:(?:\w+ly|more|most|less|very|quite|good|great|major|important|common|critical|key|crucial|significant|useful|serious|big|main|only|first|last|"
    r"second|third|best|worst|new|large|small|few|high|low|strong|better|similar|different|same|simple|real|true|direct|necessary|essential|popular|"
    r"frequent|natural|rare|other|\w+est) )*(?:result|results|consequence|reason|reasons|cause|causes|way|ways|matter|example|examples|part|lack|problem|concern|number|"
    r"lot|variety|sign|signs|source|factor|factors|function|product|one|ones|case|time|day|year|difference|need|place|idea|thing|step|choice|option|indication|subject|"
    r"target|threat|challenge|success|failure|role|component|element|aspect|result|loss|decrease|increase|point|topic|issue|focus|goal|purpose|method|amount|"
    r"exception|series|act|site|question|answer|majority|same|means|basis|kind|sort|bit|priority|responsibility|tool|feature|symptom|risk|benefit|advantage)\b|"
    r"(?:the|an?) (?:first|only|most|last|second|third|best|\w+est|same|highest|main|primary|sole|latter|former|following|next|key) |"
    r"(?:used|made|called|known|found|able|likely|more|less|very|also|based|located|required|often|usually|caused|born|in|on|at|to|not)\b"
)
_COUNTRIES = (
    "United States|USA|U\.S\.|United Kingdom|England|Scotland|Wales|Ireland|Northern Ireland|France|Germany|Spain|Portugal|Italy|Greece|Austria|Switzerland|Belgium|"
    "Netherlands|Denmark|Norway|Sweden|Finland|Iceland|Poland|Czech Republic|Slovakia|Slovenia|Hungary|Romania|Bulgaria|Serbia|Croatia|Bosnia and Herzegovina|Montenegro|"
    "Albania|Macedonia|Ukraine|Russia|Belarus|Estonia|Latvia|Lithuania|Turkey|Israel|Egypt|Iran|Iraq|Syria|Lebanon|Jordan|Saudi Arabia|India|Pakistan|Bangladesh|Nepal|"
    "Sri Lanka|China|Japan|South Korea|North Korea|Taiwan|Vietnam|Thailand|Malaysia|Singapore|Indonesia|Philippines|Australia|New Zealand|Canada|Mexico|Cuba|Jamaica|"
    "Brazil|Argentina|Chile|Peru|Colombia|Venezuela|Bolivia|Ecuador|Uruguay|Paraguay|Morocco|Algeria|Tunisia|Libya|Sudan|Ethiopia|Kenya|Tanzania|Uganda|Nigeria|Ghana|"
    "South Africa|Zimbabwe|Zambia|Mali|Senegal|Cameroon"
)
REGIONS = (
    ("country", re.compile(rf"\b(?:in|of|from|,) (?:the |north\w* |south\w* |east\w* |west\w* |central )*(?:{_COUNTRIES})\b", re.IGNORECASE)),
    ("continent", re.compile(r"\b(?:Africa|Asia|Europe|North America|South America|Antarctica|Oceania)\b")),
    ("city", re.compile(r"\bin (?:the city of )?[A-Z][a-z]+(?: [A-Z][a-z]+)?, (?:[A-Z][a-z]+)")),
    ("region", re.compile(r"\b(?:region|province|district|department) of [A-Z]|[A-Z][a-z]+ (?:region|Region|Province)")),
    ("state", re.compile(r"\bstate of [A-Z]|\bin [A-Z][a-z]+(?: County)?, (?:[A-Z][a-z]+), (?:United States|U\.S)")),
)
IS_A_OF = re.compile(r"(?:the|an?) (?:(?:main|chief|principal|official|current|present|largest|primary) )?(?P<n>[a-z]+) (?:of|for) (?P<y>(?:the )?[A-Z][\w’'.-]*(?: (?:of |the )?[A-Z][\w’'.-]*){0,4})(?=[,.;)]| and | in | from | that | which | where |\Z)")
OBJECT_OF = re.compile(
    r"(?:also |first |later |often |usually |commonly )?(?P<verb>causes?|caused|won|wrote|invented|discovered|founded|created|directed|produced|established|built|designed|composed|introduced|developed|led) "
    r"(?P<object>[^,.;:()]{3,60}?)(?=[,.;:()]| in | on | at | by | to | that | which | with | from | for | as | when | after | during |\Z)"
)
