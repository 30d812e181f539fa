"""Values that users give to tools and forms: places, people, texts, dates, numbers, choices; all to be copied."""

from random import Random

from demo import facts, texts
from demo.words import NAMES, NOUNS, draw_name, draw_word

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "today", "tomorrow", "tonight")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "October", "December")
_PLACES = (*facts.CAPITALS, *facts.CAPITALS.values(), "New York", "San Francisco", "Los Angeles", "Boston", "Zurich")
_ENDINGS = ("ville", "ton", "burg", "ham", "field", "ford", "stad", "a", "o", "ia", "berg", "")
_COLOURS = tuple(dict.fromkeys(facts.COLOURS.values()))
_EXTENSIONS = ("txt", "pdf", "csv", "md", "png", "json", "py")


def word(rng: Random) -> str:
    """One word in lower case, of any origin."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(texts.COMMON_WORDS)
    return draw_word(rng, False) if kind < 0.8 else rng.choice(texts.CLOSED_WORDS).lower()


def place(rng: Random) -> str:
    """A city, country or region: known, or of invented letters."""
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(_PLACES)
    invented = (draw_word(rng, False)[:6] + rng.choice(_ENDINGS)).capitalize()
    if kind < 0.8:
        return invented
    if kind < 0.9:
        return f"{rng.choice(('New', 'San', 'Port', 'Old', 'North', 'Saint', 'Lake'))} {invented}"
    return f"{invented}, {rng.choice((place(rng), ''.join(rng.choices('ABCDEFGHIKLMNOPRSTUVXYZ', k=2))))}"


def person(rng: Random) -> str:
    """A first name, often with a last name."""
    name = draw_name(rng, False) if rng.random() < 0.7 else rng.choice(NAMES)
    return name if rng.random() < 0.6 else f"{name} {draw_word(rng, False).capitalize()}"


def phrase(rng: Random) -> str:
    """One to four words, without a mark at the end."""
    words = [rng.choice((word, word, texts.draw_string))(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4)))]
    return " ".join(words)


def sentence(rng: Random) -> str:
    """A short text without quotes."""
    while True:
        text = texts.draw_text(rng) if rng.random() < 0.5 else texts.draw_sentence(rng)
        if len(text) <= 50 and not set(text) & set("\"'\\\n`"):
            return text if rng.random() < 0.3 else text.rstrip(".?!,;:- ") or text


def date(rng: Random) -> str:
    """A day as people write it."""
    kind = rng.random()
    if kind < 0.4:
        return rng.choice(_DAYS)
    if kind < 0.7:
        return f"20{rng.randint(10, 39)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"
    return f"{rng.choice(_MONTHS)} {rng.randint(1, 30)}"


def time(rng: Random) -> str:
    """An hour as people write it."""
    if rng.random() < 0.6:
        return f"{rng.randint(0, 23)}:{rng.choice((0, 15, 30, 45, rng.randint(0, 59))):02}"
    return f"{rng.randint(1, 12)}{rng.choice((' am', ' pm', 'am', 'pm'))}"


def code(rng: Random) -> str:
    """An id, an address, a path: letters, digits and marks without blanks."""
    name, other = word(rng), word(rng)
    letters = "".join(rng.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=rng.randint(1, 4)))
    forms = (
        f"{letters}-{rng.randint(1, 99999)}",
        f"{letters}{rng.randint(1, 9999)}",
        letters,
        f"{name}@{other}.com",
        f"https://{name}.com/{other}",
        f"{name}.{rng.choice(_EXTENSIONS)}",
        f"/{name}/{other}.{rng.choice(_EXTENSIONS)}",
        f"{name}_{other}",
        f"#{rng.randint(1, 9999)}",
        texts.draw_string(rng),
    )
    return rng.choice(forms)


def whole(rng: Random) -> int:
    """A whole number, mostly small."""
    return rng.choice((rng.randint(0, 12), rng.randint(0, 99), rng.randint(0, 999), rng.randint(0, 99999)))


def decimal(rng: Random) -> float | int:
    """A number with one or two digits behind the point, or without."""
    return rng.choice((round(rng.uniform(0, 100), 1), round(rng.uniform(0, 999), 2), whole(rng)))


def options(rng: Random) -> tuple[str, ...]:
    """The values that a choice allows: two to four words."""
    known = (
        ("celsius", "fahrenheit"),
        ("low", "medium", "high"),
        ("small", "medium", "large"),
        ("open", "closed"),
        ("metric", "imperial"),
        ("asc", "desc"),
        ("one-way", "return"),
        tuple(rng.sample(_COLOURS, k=3)),
    )
    if rng.random() < 0.3:
        return rng.choice(known)
    drawn = tuple(dict.fromkeys(rng.choice((word(rng), rng.choice(NOUNS))) for _ in range(rng.randint(2, 4))))
    return drawn if len(drawn) > 1 else known[0]


def words(rng: Random) -> list[str]:
    """A list of one to four different words or names."""
    drawn = [rng.choice((word, word, person))(rng) for _ in range(rng.randint(1, 4))]
    return list(dict.fromkeys(drawn))


def listed(items: list[str]) -> str:
    """The items as a sentence lists them."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
