"""The singular of an English noun: as the library that CHAIR uses has it, mistakes included, and without them.

Source of the rules: `singularize` of clips/pattern (BSD), pattern/text/en/inflect.py, after B. Ferrer's Inflector. They
are applied to every word of a caption, whatever it is, so that "bus" becomes "bu", "glass" "glas", "his" "hi", "ties"
"ty" and "four" "fmy". Compounds ("mothers-in-law") and genitives are as there.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = ["fixed_singular", "official_singular"]

#: Words that stay as they are; so does every word that is the end of one of them ("as" of "christmas").
_UNCHANGED_WORDS = """
bison bream breeches britches carp chassis christmas clippers cod contretemps corps debris diabetes djinn eland elk
flounder gallows georgia graffiti headquarters herpes high-jinks homework innings jackanapes mackerel measles mews
mumps news pincers pliers proceedings rabies salmon scissors series shears species swine swiss trout tuna whiting
wildebeest advice bread butter cheese electricity equipment fruit furniture garbage gravel happiness information
ketchup knowledge love luggage mathematics mayonnaise meat mustard news progress research rice sand software
understanding water
"""
_UNCHANGED = tuple(_UNCHANGED_WORDS.split())
#: Ends whose plural is -ies; "^pie" and "^tie" are in the original list, where they can match nothing.
_IE_WORDS = """
alergie auntie beanie birdie bogie bombie collie cookie cutie doggie eyrie freebie goonie groupie hankie hippie
hoagie hottie indie junkie laddie laramie lingerie meanie newbie nightie oldie pixie quickie reverie rookie softie
sortie stoolie sweetie techie toughie valkyrie veggie weenie yuppie zombie
"""
_IN_IE = tuple(f"{word}s" for word in _IE_WORDS.split())
#: Ends and what takes their place.
_IRREGULAR_PAIRS = """
atlantes:atlas atlases:atlas axes:axe beeves:beef brethren:brother children:child corpora:corpus corpuses:corpus
ephemerides:ephemeris feet:foot ganglia:ganglion geese:goose genera:genus genii:genie graffiti:graffito helves:helve
kine:cow leaves:leaf loaves:loaf men:man mongooses:mongoose monies:money moves:move mythoi:mythos numena:numen
occipita:occiput octopodes:octopus opera:opus opuses:opus our:my oxen:ox penes:penis penises:penis people:person
sexes:sex soliloquies:soliloquy teeth:tooth testes:testis trilbys:trilby turves:turf zoa:zoon
"""
_IRREGULAR = dict(pair.split(":") for pair in _IRREGULAR_PAIRS.split())
#: Ends and what takes their place, the first that fits.
_RULES = tuple(
    (re.compile(pattern), put)
    for pattern, put in (
        (r"(.)ae$", r"\1a"),
        (r"(.)itis$", r"\1itis"),
        (r"(.)eaux$", r"\1eau"),
        (r"(quiz)zes$", r"\1"),
        (r"(matr)ices$", r"\1ix"),
        (r"(ap|vert|ind)ices$", r"\1ex"),
        (r"^(ox)en", r"\1"),
        (r"(alias|status)es$", r"\1"),
        (r"([octpvir|])i$", r"\1us"),
        (r"(cris|ax|test)es$", r"\1is"),
        (r"(shoe)s$", r"\1"),
        (r"(o|bus)es$", r"\1"),
        (r"([ml|])ice$", r"\1ouse"),
        (r"(x|ch|ss|sh)es$", r"\1"),
        (r"movies$", "movie"),
        (r"(.)ombies$", r"\1ombie"),
        (r"series$", "series"),
        (r"([^aeiouy]|qu)ies$", r"\1y"),
        (r"([aeo]l|[^d]ea|ar)ves$", r"\1f"),
        (r"erves$", "erve"),
        (r"([nlw]i)ves$", r"\1fe"),
        (r"([lr])ves$", r"\1f"),
        (r"([aeo])ves$", r"\1ve"),
        (r"(sive|tive|hive)s$", r"\1"),
        (r"([^f])ves$", r"\1fe"),
        (r"^analyses$", "analysis"),
        (r"(analy)ses$", r"\1asis"),
        (r"(ba|diagno|parenthe|progno|synop|the)ses$", r"\1sis"),
        (r"(.)opses$", r"\1opsis"),
        (r"(.)yses$", r"\1ysis"),
        (r"(h|d|r|o|n|b|cl|p)oses$", r"\1ose"),
        (r"((?:fruct|gluc|galact|lact|ket|malt|rib|sacchar|cellul)ose)$", r"\1"),
        (r"(.)oses$", r"\1osis"),
        (r"([ti])a$", r"\1um"),
        (r"news$", "news"),
        (r"s$", ""),
    )
)
_PREPOSITION_WORDS = """
about above across after among around at athwart before behind below beneath beside besides between betwixt beyond
but by during except for from in into near of off on onto out over since till to under until unto upon with
"""
_PREPOSITIONS = frozenset(_PREPOSITION_WORDS.split())


@lru_cache(maxsize=100_000)
def official_singular(word: str) -> str:
    """The singular as pattern gives it, for a word in lower case.

    Example:
        >>> [official_singular(word) for word in ("women", "buses", "bus", "knives", "his")]
        ['woman', 'bus', 'bu', 'knife', 'hi']
    """
    first, *rest = word.split("-")
    if rest and rest[0] in _PREPOSITIONS:
        return "-".join([official_singular(first), *rest])
    if word.endswith("'"):
        bare = word.rstrip("'")
        return official_singular(bare) + "'s" * (len(word) - len(bare))
    if any(unchanged.endswith(word) for unchanged in _UNCHANGED) or word.endswith(_IN_IE):
        return word
    for end, put in _IRREGULAR.items():
        if word.endswith(end):
            return word[: -len(end)] + put
    for pattern, put in _RULES:
        if pattern.search(word):
            return pattern.sub(put, word)
    return word


#: Words in -s that are no plurals, beside those in -ss, -us and -is.
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
    if word in _SINGULAR_S or word.endswith(("ss", "us", "is", "our", "'", "'s")):
        return word
    if re.search(r"(?:[ti]a|[^x]i)$", word):  # pasta, broccoli
        return word
    return official_singular(word)
