"""The small table of facts the demo model knows, and how they are asked and told."""

from random import Random

# Capitals are drawn twice as often: there are most of them.
KINDS = ("capital", "capital", "colour", "opposite", "amount")
CAPITALS = {
    "France": "Paris",
    "Japan": "Tokyo",
    "Italy": "Rome",
    "Egypt": "Cairo",
    "Peru": "Lima",
    "Kenya": "Nairobi",
    "Norway": "Oslo",
    "Spain": "Madrid",
    "Canada": "Ottawa",
    "China": "Beijing",
    "Germany": "Berlin",
    "Austria": "Vienna",
    "Greece": "Athens",
    "Portugal": "Lisbon",
    "Poland": "Warsaw",
    "Sweden": "Stockholm",
    "Cuba": "Havana",
    "England": "London",
}
COLOURS = {
    "grass": "green",
    "snow": "white",
    "coal": "black",
    "the sky": "blue",
    "blood": "red",
    "a lemon": "yellow",
    "chocolate": "brown",
    "milk": "white",
}
OPPOSITES = {
    "hot": "cold",
    "big": "small",
    "day": "night",
    "up": "down",
    "left": "right",
    "fast": "slow",
    "old": "new",
    "happy": "sad",
    "open": "closed",
    "full": "empty",
    "early": "late",
    "rich": "poor",
}
AMOUNTS = {
    ("days", "a week"): "seven",
    ("months", "a year"): "twelve",
    ("hours", "a day"): "twenty-four",
    ("minutes", "an hour"): "sixty",
    ("seconds", "a minute"): "sixty",
    ("seasons", "a year"): "four",
    ("letters", "the alphabet"): "twenty-six",
    ("sides", "a triangle"): "three",
    ("legs", "a pair"): "two",
}
QUESTIONS = {
    "capital": (
        "what is the capital of {x}?",
        "which city is the capital of {x}?",
        "name the capital of {x}.",
        "tell me the capital of {x}.",
        "do you know the capital of {x}?",
        "capital of {x}?",
        "what city is the capital of {x}?",
    ),
    "colour": (
        "what colour is {x}?",
        "what color is {x}?",
        "which colour is {x}?",
        "tell me the colour of {x}.",
        "what is the colour of {x}?",
        "what is the color of {x}?",
    ),
    "opposite": (
        "what is the opposite of {x}?",
        "tell me the opposite of {x}.",
        "name the opposite of {x}.",
        "which word is the opposite of {x}?",
        "opposite of {x}?",
        "do you know the opposite of {x}?",
    ),
    "amount": (
        "how many {x} are in {y}?",
        "how many {x} are there in {y}?",
        "how many {x} does {y} have?",
        "tell me how many {x} are in {y}.",
        "do you know how many {x} are in {y}?",
    ),
}


def draw(rng: Random, kind: str) -> tuple[str, str]:
    """A question about a fact of this kind, and its answer."""
    question = rng.choice(QUESTIONS[kind])
    match kind:
        case "capital":
            x, value = rng.choice(list(CAPITALS.items()))
            return question.format(x=x), f"The capital of {x} is {value}."
        case "colour":
            x, value = rng.choice(list(COLOURS.items()))
            return question.format(x=x), f"The colour of {x} is {value}."
        case "opposite":
            x, value = rng.choice(list(OPPOSITES.items()))
            return question.format(x=x), f"The opposite of {x} is {value}."
        case _:
            (x, y), value = rng.choice(list(AMOUNTS.items()))
            return question.format(x=x, y=y), f"There are {value} {x} in {y}."
