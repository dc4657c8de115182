"""The words for COCO's 80 classes, as CHAIR defines them.

CHAIR's are the facts: which words count as which class, which two are read as one, and what some of them are read as
(Rohrbach et al. 2018, arXiv:1809.02156; LisaAnne/Hallucination@6e4d33c, data/synonyms.txt and utils/chair.py). They are
the metric, misspellings included, so none is put right here. Ours are the form, the order, that words are omitted
which no singular there can be like, and what `fixed` adds, which is separate. `read_synonyms` reads the original file
instead of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from .reading import read_text

__all__ = ["COCO_CLASSES", "MODES", "Vocabulary", "read_synonyms", "vocabulary"]

#: How captions are read: as the script does it, and without what gets lost there.
MODES = ("official", "fixed")

#: Class: the other words that count as it. An underscore stands for a blank.
_CLASSES = """
# people
person: adult baby baker bicyclist biker boy bride buyer caller camper chef child cop coworker cowboy doctor drinker
    driver female foreigner gentleman girl grandchild groom guy hunter kid lady male man mother father offender officer
    passenger patient pitcher player policeman politician rider serviceman shopper sister skateboarder skater skier
    snowboarder soldier solider student teenager thief traveler trespasser villager walker woman worker
# vehicles
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
# streets
traffic_light: stop_light stoplight street_light streetlight traffic_signal
fire_hydrant: hydrant
stop_sign:
parking_meter:
bench: pew
# animals
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
# what one carries and wears
backpack: knapsack
umbrella:
handbag: briefcase purse wallet
tie: bow bow_tie
suitcase: luggage suit_case
# sports
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
# dishes
bottle:
wine_glass:
cup:
fork:
knife: knive pocketknife
spoon:
bowl: container
# food
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
# furniture
chair: seat stool
couch: chesterfield futon loveseat recliner settee sofa
potted_plant: houseplant
bed:
dining_table: desk table
toilet: commode lavatory potty urinal
# electronics
tv: monitor television televison
laptop: computer laptop_computer lenovo macbook netbook notebook
mouse:
remote:
keyboard:
cell_phone: cellphone mobile_phone phon phone smartphone telephone
# appliances
microwave:
oven: stove stovetop
toaster:
sink:
refrigerator: freezer fridge
# things
book:
clock:
vase:
scissors:
teddy_bear: teddybear
hair_drier: hairdryer
toothbrush:
"""
#: Two words that are read as one, so that neither is found alone.
_PAIRS = """
motor_bike motor_cycle air_plane traffic_light street_light traffic_signal stop_light fire_hydrant stop_sign
parking_meter suit_case sports_ball baseball_bat baseball_glove tennis_racket wine_glass hot_dog cell_phone mobile_phone
teddy_bear hair_drier potted_plant laptop_computer home_plate train_track
"""
#: Words that are read as others. A glass has lost its last letter by then.
_READ_AS = """
bow_tie:tie toilet_seat:toilet wine_glas:wine_glass passenger_jet:jet passenger_train:train
"""
#: A "baby" or "adult" in front of one is not a person.
_ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe")
_AGED = (*_ANIMALS, "animal", "cub")
#: What `fixed` finds besides: words and their class.
_FIXED = """
motor_bike:motorcycle cheesecake:cake stove_top_oven:oven hair_dryer:hair_drier tennis_racquet:tennis_racket
iphone:cell_phone
"""


def _blanks(text: str) -> list[str]:
    """Words, with blanks for their underscores."""
    return [word.replace("_", " ") for word in text.split()]


def _pairs(text: str) -> dict[str, str]:
    """What stands before each colon -> what stands behind it."""
    before_and_behind = (word.partition(":") for word in _blanks(text))
    return {before: behind for before, _, behind in before_and_behind}


def _table() -> dict[str, str]:
    """Word -> class."""
    lines = [line for line in _CLASSES.replace("\n    ", " ").splitlines() if line and line[0] != "#"]
    named = [_blanks(line.replace(":", " ")) for line in lines]
    return {word: words[0] for words in named for word in words}


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
    joined = {pair: pair for pair in _blanks(_PAIRS)} | _pairs(_READ_AS)
    aged = list(_AGED)
    if mode == "fixed":
        more = _pairs(_FIXED)
        classes = {word.strip(): name for word, name in classes.items()} | more
        joined |= {words: words for words in more if " " in words}
        aged += [word for word, name in classes.items() if name in _ANIMALS and " " not in word]
    joined |= {f"{age} {animal}": animal for age in ("baby", "adult") for animal in aged}
    return Vocabulary(classes=classes, joined=joined)
