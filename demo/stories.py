"""The stories of the demo corpus: one plot of ordered stages, told in many variants, and its checker."""

import re
from random import Random

from demo.words import draw_name, draw_word

SLOTS = {
    "place": ("village", "valley", "town", "harbour", "city", "castle"),
    "thing": ("silver key", "golden ring", "red kite", "blue marble", "wooden flute", "little bell"),
    "friend": ("clever crow", "gentle dog", "grey cat", "brown hare", "patient turtle", "cheerful monkey"),
    "barrier": ("river", "swamp", "bridge", "canyon"),
    "stranger": ("merchant", "shepherd", "miller", "tailor"),
}

# Every stage is one sentence of the plot; a slot is chosen where it is first named and copied from then on.
STAGES = (
    (
        "Once upon a time there was {a_hero} who lived in a quiet {place}.",
        "Once upon a time {a_hero} lived in a quiet {place}.",
        "Long ago there lived {a_hero} in a quiet {place}.",
    ),
    (
        "Every morning {hero} walked through the {place} and greeted the neighbours.",
        "Everybody in the {place} knew {hero} and liked to talk for a while.",
        "Life in the {place} was simple, and {hero} had plenty of time to play.",
    ),
    (
        "The dearest thing that {hero} owned was a {thing}.",
        "More than anything else, {hero} loved a {thing}.",
        "In a small box {hero} kept a {thing}.",
    ),
    (
        "It had been a gift from a wise grandmother.",
        "A wise grandmother had given it away on a winter evening.",
        "It was a present from a wise grandmother, and it was very old.",
    ),
    (
        "One day a strong wind blew through the {place}.",
        "One night a great storm came over the {place}.",
        "One afternoon dark clouds gathered above the {place}.",
    ),
    (
        "When the sky was clear again, the {thing} was gone.",
        "After the bad weather the {thing} could not be found.",
        "When everything was quiet again, nobody could find the {thing}.",
    ),
    (
        "{Hero} looked under the bed and behind the door, but found nothing.",
        "{Hero} searched the house, the yard and the roof without any luck.",
        "{Hero} turned every stone and opened every cupboard in vain.",
    ),
    (
        "{Hero} felt very sad and sat down beside the well.",
        "At last {hero} sat down on the steps and began to cry.",
        "Tired and unhappy, {hero} rested beside the road.",
    ),
    (
        "Then a {friend} came along and asked what was wrong.",
        "Just then a {friend} stopped and asked why the day was so sad.",
        "Before long a {friend} came closer and offered to help.",
    ),
    (
        "{Hero} told the {friend} about the loss.",
        "{Hero} explained the whole matter to the {friend}.",
        "With a deep sigh, {hero} told the {friend} what had happened.",
    ),
    (
        'The {friend} said, "Do not give up, we will look for it together."',
        'The {friend} said, "The wind went north, so let us go north."',
        'The {friend} said, "What is lost can be found by those who try."',
    ),
    (
        "So they packed some bread and water and set off.",
        "So they took a warm coat and a little food and left at once.",
        "So they closed the door and started on the long road.",
    ),
    (
        "After an hour they came to a dangerous {barrier}.",
        "By noon they stood in front of a dangerous {barrier}.",
        "The road ended at a dangerous {barrier}.",
    ),
    (
        "The {barrier} looked hard to cross, but the {friend} knew a safe way.",
        "The {friend} went first, and step by step they left the {barrier} behind.",
        "They held on to each other and crossed the {barrier} with great care.",
    ),
    (
        "On the other side they met a {stranger} with a broken cart.",
        "Not far from there they saw a {stranger} with a heavy sack.",
        "Under an oak they found a {stranger} who had lost the way.",
    ),
    (
        "The {stranger} was hungry and had not eaten since the day before.",
        "The {stranger} was cold and afraid of the coming night.",
        "The {stranger} had called for help all day, but nobody had come.",
    ),
    (
        "Without waiting, {hero} shared the last food with the {stranger}.",
        "Although it was late, {hero} stayed and helped the {stranger}.",
        "{Hero} was kind and did everything to help the {stranger}.",
    ),
    (
        "The {stranger} thanked them and pointed to a tall tree on the hill.",
        "Full of thanks, the {stranger} showed them a tall tree on the hill.",
        "In return the {stranger} told them to look at the tall tree on the hill.",
    ),
    (
        "High in the branches something was shining in the evening light.",
        "Between the leaves something bright was moving in the wind.",
        "At the very top something small was glowing like a star.",
    ),
    (
        "It was the {thing}, safe and whole.",
        "It was the {thing}, and it was not even scratched.",
        "It was the {thing}, just as beautiful as before.",
    ),
    (
        "The {friend} climbed up slowly and brought it down.",
        "The {friend} shook the tree until it fell into the soft grass.",
        "The {friend} reached for it and carried it carefully to the ground.",
    ),
    (
        "{Hero} was so happy that the whole hill heard the laughter.",
        "{Hero} danced around the tree and laughed with joy.",
        "{Hero} smiled and could hardly believe such good luck.",
    ),
    (
        "Together they walked home under the stars.",
        "Together they went back while the moon rose.",
        "Together they returned by the light of the moon.",
    ),
    (
        "The people of the {place} cooked a warm soup and sang until midnight.",
        "In the {place} all the lamps were lit, and there was music for hours.",
        "The whole {place} came out to welcome them with cake and songs.",
    ),
    (
        "From that day on, {hero} and the {friend} were the best of friends.",
        "Since then {hero} and the {friend} have been friends for life.",
        "After this adventure {hero} and the {friend} never parted again.",
    ),
    (
        "And {hero} never forgot that a kind heart finds what it has lost.",
        "And {hero} learned that helping others is the shortest way to luck.",
        "And if you visit them today, {hero} will gladly tell you the rest.",
    ),
)
SHORT_TURN = (
    "Together they searched until they found it in a tall tree on the hill.",
    "Together they went north and found it between two stones.",
    "Together they asked everybody, and a {stranger} gave it back.",
)
LONG_PLOT = STAGES
SHORT_PLOT = (STAGES[0], STAGES[2], STAGES[4], STAGES[5], STAGES[8], SHORT_TURN, STAGES[25])

_INTRODUCTION = re.compile(r"(?:a young ([a-z]+)|a child called ([A-Z][a-z]+))\b")


def draw_hero(rng: Random, held_out: bool) -> str:
    """A hero: a child by its name (`Anna`) or a creature by its kind (`fox`)."""
    return draw_name(rng, held_out) if rng.random() < 0.3 else draw_word(rng, held_out)


def with_article(noun: str) -> str:
    """The noun with the indefinite article its first letter calls for."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def tell(rng: Random, hero: str, *, is_short: bool = False) -> str:
    """A story about this hero, one sentence per stage of the plot."""
    slots = {name: rng.choice(values) for name, values in SLOTS.items()} | _hero_slots(hero)
    plot = SHORT_PLOT if is_short else LONG_PLOT
    return " ".join(rng.choice(stage).format_map(slots) for stage in plot)


def is_story(text: str, hero: str | None, *, is_short: bool = False) -> bool:
    """Whether the text is the whole plot, stage by stage, with every slot (and the asked hero) consistent."""
    introduction = _INTRODUCTION.search(text)
    if introduction is None:
        return False
    told_hero = introduction[1] or introduction[2]
    if hero is not None and hero != told_hero:
        return False
    known, rest = _hero_slots(told_hero), text + " "
    for stage in SHORT_PLOT if is_short else LONG_PLOT:
        match = _match_stage(rest, stage, known)
        if match is None:
            return False
        known |= match.groupdict()
        rest = rest[match.end() :]
    return rest == ""


def template_words() -> set[str]:
    """Every plain word the plot itself uses."""
    sentences = [re.sub(r"\{\w+\}", " ", line) for stage in (*STAGES, SHORT_TURN) for line in stage]
    values = [value for options in SLOTS.values() for value in options]
    return set(re.findall(r"[A-Za-z]+", " ".join(sentences + values)))


def _hero_slots(hero: str) -> dict[str, str]:
    if hero[0].isupper():
        return {"a_hero": f"a child called {hero}", "hero": hero, "Hero": hero}
    return {"a_hero": f"a young {hero}", "hero": f"the {hero}", "Hero": f"The {hero}"}


def _match_stage(text: str, stage: tuple[str, ...], known: dict[str, str]) -> re.Match[str] | None:
    slots = {name: rf"(?P<{name}>{'|'.join(values)})" for name, values in SLOTS.items()}
    slots |= {name: re.escape(value) for name, value in known.items()}
    for line in stage:
        parts = re.split(r"\{(\w+)\}", line)
        pattern = "".join(slots[part] if index % 2 else re.escape(part) for index, part in enumerate(parts))
        if match := re.match(pattern + " ", text):
            return match
    return None
