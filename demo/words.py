"""Words of the demo corpus that templates do not own: names, nouns, invented words, and the held-out rule."""

import hashlib
from random import Random

HELD_OUT_ONE_IN = 12
MAX_WORD_LENGTH = 12


def split_words(words: str) -> list[str]:
    """The words of a text."""
    return words.split()


NAMES = split_words(
    "Ada Ben Chloe Dan Eva Finn Grace Hugo Iris Jack Kate Leo Mia Noah Olga Paul Quinn Rosa Sam Tara Uma Victor "
    "Wendy Xavier Yara Zoe Alice Bruno Clara Diego Elena Felix Gina Henry Ines Jonas Karin Lucas Maria Nina Oscar "
    "Petra Ravi Sofia Tom Vera Will Anna Boris Cara Emma Liam Olivia Ethan James John Robert Michael William David "
    "Richard Joseph Thomas Charles Sarah Karen Nancy Lisa Betty Sandra Ashley Emily Donna Laura Kevin Brian George "
    "Edward Ronald Timothy Jason Jeffrey Ryan Jacob Gary Nicholas Eric Jonathan Stephen Larry Justin Scott Brandon "
    "Samuel Gregory Frank Raymond Patrick Peter Hannah Julia Amira Yusuf Chen Wei Aiko Kenji Priya Arjun Fatima Omar"
)

NOUNS = split_words(
    "apple stone cloud garden window copper lantern bridge candle pepper rabbit travel rocket bottle hammer pencil "
    "mirror castle dragon guitar jacket kitten ladder monkey pillow queen ribbon shadow ticket umbrella wagon zebra "
    "coffee desert engine finger banana orange cherry melon potato tomato carrot onion butter cheese bread sugar "
    "honey salt table chair carpet curtain drawer cupboard blanket basket bucket barrel wheel tractor bicycle train "
    "plane ship canoe anchor harbor beach sand shell coral whale shark dolphin turtle lizard snake spider beetle "
    "butterfly sparrow eagle falcon pigeon chicken goose duck horse donkey camel sheep goat tiger lion panther wolf "
    "bear fox deer mouse squirrel hedgehog badger otter beaver elephant giraffe hippo rhino kangaroo koala panda "
    "penguin parrot owl raven robot pirate wizard knight princess baker painter doctor teacher farmer sailor pilot "
    "soldier singer dancer writer student king giant dwarf ghost witch fairy computer keyboard monitor printer "
    "phone camera radio battery cable switch lamp clock watch ring necklace bracelet crown sword shield arrow bow "
    "helmet armor boot shoe sock shirt trouser dress skirt hat scarf glove coat button zipper needle thread paper "
    "letter envelope stamp book page poem novel picture statue music piano violin trumpet drum flute bell planet "
    "comet meteor galaxy moon sun rainbow thunder lightning storm breeze blizzard glacier volcano canyon waterfall "
    "hello world python token queue worker server network strawberry chocolate elephantine mountaineer"
)

_ONSETS = split_words(
    "b c d f g h j k l m n p r s t v w z br ch cl cr dr fl fr gl gr pl pr qu sc sh sk sl sm sn sp st th tr x y"
)
_VOWELS = split_words("a a e e i i o o u u ai ea ee oo ou ie")
_CODAS = ["", "", "", "", "n", "r", "l", "s", "t", "m", "nd", "ck", "p", "x", "g", "ll", "rt"]


def is_held_out(*key: object) -> bool:
    """Whether what this key names belongs to the held-out split and must never be trained on."""
    text = "|".join(str(part) for part in key)
    digest = hashlib.blake2b(text.encode(), digest_size=4).digest()
    return int.from_bytes(digest) % HELD_OUT_ONE_IN == 0


def draw_word(rng: Random, held_out: bool) -> str:
    """A lower-case word of 3 to 12 letters: invented, a noun, or now and then plain letters."""
    while True:
        word = _any_word(rng)
        if is_held_out("word", word) == held_out:
            return word


def draw_name(rng: Random, held_out: bool) -> str:
    """A capitalised first name, half of them invented."""
    while True:
        name = rng.choice(NAMES) if rng.random() < 0.5 else _invented(rng).capitalize()
        if is_held_out("word", name.lower()) == held_out:
            return name


def draw_cased_word(rng: Random, held_out: bool) -> str:
    """A word as people type it: mostly lower case, sometimes capitalised or all capitals."""
    word = draw_word(rng, held_out)
    style = rng.random()
    if style < 0.75:
        return word
    return word.capitalize() if style < 0.88 else word.upper()


def _any_word(rng: Random) -> str:
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(NOUNS)
    if kind < 0.9:
        return _invented(rng)
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9)))


def _invented(rng: Random) -> str:
    while True:
        syllables = rng.choice((1, 2, 2, 2, 3, 3, 4))
        parts = [rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(_CODAS) for _ in range(syllables)]
        word = "".join(parts)
        if 3 <= len(word) <= MAX_WORD_LENGTH:
            return word
