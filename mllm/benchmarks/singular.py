"""The singular of an English noun: as the library that CHAIR uses has it, mistakes included, and without them.

CHAIR (LisaAnne/Hallucination@6e4d33c) puts every word of a caption through `singularize` of pattern.en (clips/pattern,
BSD, after B. Ferrer's Inflector) before it looks for objects, be it a noun or not, plural or not. What comes out
decides what is found: "bus" becomes "bu" and is not a vehicle, "glass" becomes "glas", which CHAIR puts right in "wine
glass" alone, "tennis" becomes "tenni" and "ties" become "ty".

What comes out is that library's; the form is ours. There, lists and patterns are tried one after the other; here one
table maps an ending to its replacement, and the longest ending of a word that it has decides. Entries that could change
nothing are omitted. Both agree on 430 000 words of texts and programs and on 1.7 million made of letters and such
endings; they would not where a word begins with "oxen" and goes on, or has a "|".
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["fixed_singular", "official_singular"]

#: Ending: what takes its place. A hyphen in front wants letters before the ending; the others are whole words as well.
_CHANGED = (
    # An -s goes, whatever it means: "bus" is "bu", "his" is "hi", "glass" is "glas", "tennis" is "tenni". In -es it
    # takes the e along behind a hiss or an o.
    "s: xes:x ches:ch sses:ss shes:sh buses:bus aliases:alias statuses:status quizzes:quiz oes:o shoes:shoe",
    # -ies is -y behind a consonant, so that "ties" is "ty" and "pies" is "py".
    "-ies:y aies:aie eies:eie iies:iie oies:oie uies:uie yies:yie quies:quy movies:movie -ombies:ombie monies:money",
    # -ves is -fe, unless the letters before it show something else; "gloves" and "waves" only lose their s.
    "-ves:fe fves:fve lves:lf rves:rf erves:erve aves:ave eves:eve oves:ove sives:sive tives:tive hives:hive",
    "-eaves:eaf deaves:deave arves:arf alves:alf elves:elf olves:olf helves:helve beeves:beef loaves:loaf",
    # Greek -sis. "bases" of any kind are a "basis", most things in -oses an -osis.
    "bases:basis theses:thesis crises:crisis testes:testis diagnoses:diagnosis prognoses:prognosis -opses:opsis",
    "-yses:ysis analyses:analysis -analyses:analyasis -itis:itis -oses:osis",
    "hoses:hose doses:dose roses:rose ooses:oose noses:nose boses:bose closes:close poses:pose",
    # Latin, Greek, French and Hebrew. "pasta" is "pastum"; "broccoli" and "taxi" stay, since no -li or -xi is here.
    "ta:tum ia:ium -ae:a -eaux:eau oi:ous ci:cus ti:tus pi:pus vi:vus ii:ius ri:rus matrices:matrix apices:apex",
    "vertices:vertex indices:index atlases:atlas atlantes:atlas corpora:corpus corpuses:corpus opuses:opus opera:opus",
    "octopodes:octopus genera:genus genii:genie mythoi:mythos ganglia:ganglion graffiti:graffito numena:numen",
    "occipita:occiput ephemerides:ephemeris penes:penis penises:penis zoa:zoon",
    # A vowel changes, or -en is the plural. Whatever ends so is meant: "omen" is "oman", "four" is "fmy".
    "men:man children:child brethren:brother oxen:ox kine:cow people:person feet:foot teeth:tooth geese:goose",
    "mice:mouse lice:louse our:my axes:axe",
)
#: Endings that stay; the cookies, hippies and zombies of a caption are many for ever.
_KEPT = """
news series alergies aunties beanies birdies bogies bombies collies cookies cuties doggies eyries freebies goonies
groupies hankies hippies hoagies hotties indies junkies laddies laramies lingeries meanies newbies nighties oldies
pixies quickies reveries rookies softies sorties stoolies sweeties techies toughies valkyries veggies weenies yuppies
zombies
"""
#: Words that stay, and so does every word that is the end of one, as "as" is of "christmas" and "is" of "debris".
_SAFE = """
breeches britches chassis christmas clippers contretemps corps debris diabetes gallows georgia graffiti headquarters
herpes high-jinks innings jackanapes measles mews mumps news pincers pliers proceedings rabies scissors series shears
species swiss happiness mathematics progress
"""
#: Words that the first part of a compound is followed by: "mothers-in-law".
_LINKS = """
about above across after among around at athwart before behind below beneath beside besides between betwixt beyond but
by during except for from in into near of off on onto out over since till to under until unto upon with
"""

_PAIRS = dict(pair.split(":") for line in _CHANGED for pair in line.split())
_ENDINGS = {ending: put for ending, put in _PAIRS.items() if ending[0] != "-"} | {same: same for same in _KEPT.split()}
_ENDINGS_BEHIND_LETTERS = _ENDINGS | {ending[1:]: put for ending, put in _PAIRS.items() if ending[0] == "-"}
_LINK_WORDS = frozenset(_LINKS.split())
_LONGEST = max(map(len, _ENDINGS_BEHIND_LETTERS))
_STAYS = frozenset(word[start:] for word in _SAFE.split() for start in range(len(word)))


@lru_cache(maxsize=100_000)
def official_singular(word: str) -> str:
    """The singular as pattern.en gives it, for a word in lower case.

    Example:
        >>> [official_singular(word) for word in ("women", "buses", "bus", "knives", "his")]
        ['woman', 'bus', 'bu', 'knife', 'hi']
    """
    first, *rest = word.split("-")
    if rest and rest[0] in _LINK_WORDS:
        return "-".join([official_singular(first), *rest])
    if word.endswith("'"):
        bare = word.rstrip("'")
        return official_singular(bare) + "'s" * (len(word) - len(bare))
    if word in _STAYS:
        return word
    for start in range(max(0, len(word) - _LONGEST), len(word)):
        known = _ENDINGS_BEHIND_LETTERS if start else _ENDINGS
        if word[start:] in known:
            return word[:start] + known[word[start:]]
    return word


#: Words in -s that are not plurals, besides those in -ss, -us and -is.
_SINGULAR_S = frozenset(("as", "gas", "has", "his", "its", "was", "does", "always", "perhaps", "towards", "skis"))
_PLURALS = {"ties": "tie", "pies": "pie", "taxis": "taxi", "dies": "die", "lies": "lie", "bowties": "bowtie"}


@lru_cache(maxsize=100_000)
def fixed_singular(word: str) -> str:
    """The singular without the mistakes that CHAIR's objects meet: words that only look like plurals stay.

    Example:
        >>> [fixed_singular(word) for word in ("women", "buses", "bus", "glasses", "tennis", "four")]
        ['woman', 'bus', 'bus', 'glass', 'tennis', 'four']
    """
    if word in _PLURALS:
        return _PLURALS[word]
    if word in _SINGULAR_S or word.endswith(("ss", "us", "is", "our", "'", "'s", "ta", "ia", "i")):  # pasta, spaghetti
        return word
    return official_singular(word)
