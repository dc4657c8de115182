"""The objects that a caption names: words of a caption -> the 80 classes of COCO.

Which words count as which class, and which two are read as one, is CHAIR's own definition (Rohrbach et al. 2018,
arXiv:1809.02156; LisaAnne/Hallucination@6e4d33c, data/synonyms.txt and utils/chair.py). The table here names the words
that can match anything there once they are made singular; their misspellings count too. `read_synonyms` reads the
original file in its place.

Two readings. `official` does what the script does: "bus", "tennis racket", "motor bike", "cheesecake" and "stove top
oven" are never found, since they are lost on the way. `fixed` finds them, and does not take the "baby" or "adult" of
any animal for a person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from . import singular, tokens
from .reading import read_text

__all__ = ["COCO_CLASSES", "MODES", "Mention", "Reading", "Vocabulary", "read_caption", "read_synonyms"]

#: How captions are read.
MODES = ("official", "fixed")

_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")

#: Class: the other words that count as it.
_WORDS = """
person: adult baby baker bicyclist biker boy bride buyer caller camper chef child cop coworker cowboy doctor drinker
    driver female foreigner gentleman girl grandchild groom guy hunter kid lady male man mother father offender officer
    passenger patient pitcher player policeman politician rider serviceman shopper sister skateboarder skater skier
    snowboarder soldier solider student teenager thief traveler trespasser villager walker woman worker
bicycle: bike minibike trike unicycle
car: automobile cab coupe hatchback jeep limo minivan sedan suv taxi taxicab van
motorcycle: moped motor_cycle motorbike scooter
airplane: air_plane airbus aircraft biplane jet jetliner monoplane plane seaplane
bus: minibus trolley
train: caboose locomotive tramway
truck: firetruck hauler lorry pickup
boat: barge battleship canoe catamaran dinghy ferry ferryboat freighter houseboat kayak lifeboat liner motorboat
    paddleboat pontoon powerboat riverboat rowboat sailboard sailboat schooner ship skiff speedboat steamboat steamship
    trawler tugboat vessel watercraft yacht
traffic_light: stop_light stoplight street_light streetlight traffic_signal
fire_hydrant: hydrant
stop_sign:
parking_meter:
bench: pew
bird: blackbird bluebird bluejay buzzard chickadee cockatiel cockatoo condor cormorant cowbird crow duck egret falcon
    finch flamingo fowl goose gosling gull heron hummingbird kingfisher loon lorikeet macaw magpie mallard oriole osprey
    ostrich owl parakeet parrot peacock peafowl pelican pheasant pigeon puffin quail raven robin rooster sandpiper
    seabird seagull shorebird songbird sparrow swan turkey vulture warbler waterbird waterfowl willet woodpecker
cat: feline kitten tabby
dog: beagle brindle bulldog canine chihuahua cocker collie corgi dachshund doberman doggie doggy greyhound hound husky
    labrador mutt pitbull poodle pug pup puppy retriever rottweiler schnauzer sheepdog spaniel terrier weimaraner
    whippet
horse: bronc bronco clydesdale colt equine foal mare mustang palomino pony racehorse stallion
sheep: ewe goat lamb ram
cow: bison buffalo bull calf cattle heifer holstein ox zebu
elephant:
bear: panda
zebra:
giraffe:
backpack: knapsack
umbrella:
handbag: briefcase purse wallet
tie: bow bow_tie
suitcase: luggage suit_case
frisbee:
skis: ski
snowboard:
sports_ball: ball
kite:
baseball_bat:
baseball_glove:
skateboard:
surfboard: longboard shortboard skimboard wakeboard
tennis_racket: racket
bottle:
wine_glass:
cup:
fork:
knife: knive pocketknife
spoon:
bowl: container
banana:
apple:
sandwich: burger cheeseburger hamburger sub
orange:
broccoli:
carrot:
hot_dog:
pizza:
donut: bagel doughnut
cake: coffeecake cupcake pancake shortcake
chair: seat stool
couch: chesterfield futon loveseat recliner settee sofa
potted_plant: houseplant
bed:
dining_table: desk table
toilet: commode lavatory potty urinal
tv: monitor television televison
laptop: computer laptop_computer lenovo macbook netbook notebook
mouse:
remote:
keyboard:
cell_phone: cellphone mobile_phone phon phone smartphone telephone
microwave:
oven: stove stovetop
toaster:
sink:
refrigerator: freezer fridge
book:
clock:
vase:
scissors:
teddy_bear: teddybear
hair_drier: hairdryer
toothbrush:
"""
#: What `fixed` finds besides.
_FIXED_WORDS = {
    "motor bike": "motorcycle",
    "cheesecake": "cake",
    "stove top oven": "oven",
    "hair dryer": "hair drier",
    "tennis racquet": "tennis racket",
    "iphone": "cell phone",
}
#: Two words that are one, as long as the class has both; and what some others are read as.
_DOUBLE = """
motor_bike motor_cycle air_plane traffic_light street_light traffic_signal stop_light fire_hydrant stop_sign
parking_meter suit_case sports_ball baseball_bat baseball_glove tennis_racket wine_glass hot_dog cell_phone mobile_phone
teddy_bear hair_drier potted_plant laptop_computer home_plate train_track
"""


def _table() -> dict[str, str]:
    classes: dict[str, str] = {}
    for line in _WORDS.replace("\n    ", " ").strip().splitlines():
        name, _, others = line.partition(":")
        for word in (name, *others.split()):
            classes[word.replace("_", " ")] = name.replace("_", " ")
    return classes


_CLASS_OF = _table()

#: The 80 classes, in the order of COCO.
COCO_CLASSES = tuple(dict.fromkeys(_CLASS_OF.values()))


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """What words mean.

    Attributes:
        classes: word, or words with a blank between -> class.
        joined: words with a blank between -> what they are read as.
    """

    classes: Mapping[str, str]
    joined: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Mention:
    """An object that a caption names.

    Attributes:
        word: as the caption has it, singular.
        name: its class.
        index: of its first word among the words of the caption, before two are joined.
    """

    word: str
    name: str
    index: int


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A caption, read.

    Attributes:
        words: singular, some of them joined.
        mentions: the objects, in order.
    """

    words: tuple[str, ...]
    mentions: tuple[Mention, ...]


def read_synonyms(path: Path) -> dict[str, str]:
    """Word -> class from a file in the form of the original: a class a line, with a comma and a blank between words.

    As there, two blanks leave one in the word, which then matches nothing, and of two lines with one word the last
    counts.

    Raises:
        ValueError: the file cannot be read, or a class of COCO is missing.
    """
    classes: dict[str, str] = {}
    for line in read_text(path).splitlines():
        if line.strip():
            words = line.strip().split(", ")
            classes.update(dict.fromkeys(words, words[0]))
    missing = [name for name in COCO_CLASSES if name not in classes]
    if missing:
        raise ValueError(
            f"{path} has no line for {len(missing)} classes of COCO, e.g. {missing[0]!r}; give the synonyms.txt of "
            "LisaAnne/Hallucination, or one of its form"
        )
    return classes


@lru_cache(maxsize=8)
def vocabulary(mode: str, synonyms: str = "") -> Vocabulary:
    """What words mean in a mode.

    Args:
        mode: one of `MODES`.
        synonyms: file in the form of the original; nothing for the table here.

    Raises:
        ValueError: an unknown mode, or as `read_synonyms`.
    """
    if mode not in MODES:
        raise ValueError(f"there is no mode {mode!r} of CHAIR; known: {', '.join(MODES)}")
    classes = read_synonyms(Path(synonyms)) if synonyms else dict(_CLASS_OF)
    joined = {pair.replace("_", " "): pair.replace("_", " ") for pair in _DOUBLE.split()}
    animals = [*_ANIMALS, "animal", "cub"]
    if mode == "fixed":
        classes = {word.strip(): name for word, name in classes.items()} | _FIXED_WORDS
        joined |= {words: words for words in _FIXED_WORDS if " " in words}
        animals += [word for word, name in classes.items() if name in _ANIMALS and " " not in word]
    joined |= {f"{age} {animal}": animal for age in ("baby", "adult") for animal in animals}
    joined |= {f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")}
    joined |= {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
    return Vocabulary(classes=classes, joined=joined)


def read_caption(caption: str, mode: str = "official", synonyms: str = "") -> Reading:
    """The objects that a caption names.

    Args:
        caption: in English.
        mode: one of `MODES`.
        synonyms: as in `vocabulary`.

    Example:
        >>> [mention.name for mention in read_caption("A puppy and two women on a bus.").mentions]
        ['dog', 'person']
        >>> [mention.name for mention in read_caption("A puppy and two women on a bus.", "fixed").mentions]
        ['dog', 'person', 'bus']
    """
    known = vocabulary(mode, synonyms)
    make_singular = singular.official_singular if mode == "official" else singular.fixed_singular
    plain = [make_singular(word) for word in tokens.words(caption.lower())]
    lengths = (2,) if mode == "official" else (3, 2)
    words, starts, start = [], [], 0
    while start < len(plain):
        starts.append(start)
        for length in lengths:
            phrase = " ".join(plain[start : start + length])
            if phrase in known.joined:
                words.append(known.joined[phrase])
                start += length
                break
        else:
            words.append(plain[start])
            start += 1
    kept = list(zip(words, starts, strict=True))
    if "toilet" in words and "seat" in words:  # the seat of the toilet is no chair
        left = [(word, place) for word, place in kept if word != "seat"]
        # The script drops the words and not their places, so that later ones have the place of a word before them.
        kept = left if mode == "fixed" else [(word, starts[n]) for n, (word, _) in enumerate(left)]
    mentions = tuple(
        Mention(word=word, name=known.classes[word], index=place) for word, place in kept if word in known.classes
    )
    return Reading(words=tuple(words), mentions=mentions)
