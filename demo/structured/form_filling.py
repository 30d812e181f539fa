"""Forms of the demo corpus: a text, a JSON schema or a list of keys, and the JSON object that the text fills."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from demo.dialog import Message, dump
from demo.structured import values
from demo.structured.toolboxes import styled

FILLED = "I fill the keys {k}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One key of a form with its value, and the clause that tells it; `words` is the key as a text says it."""

    key: str
    words: str
    value: object
    clause: str
    options: tuple[str, ...] = ()

    def schema(self, *, is_titled: bool) -> dict[str, object]:
        """The JSON schema of the value."""
        names: dict[type, str] = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
        found: dict[str, object] = {"title": self.words.title()} if is_titled else {}
        found["type"] = names[type(self.value)]
        if isinstance(self.value, list):
            found["items"] = {"type": "string"}
        if self.options:
            found["enum"] = list(self.options)
        return found


Draw = Callable[[Random], object]
# Key, how its value is drawn, and clauses that tell it of {s}, the subject; the first field of a subject names it.
_SUBJECTS: tuple[tuple[tuple[str, Draw, str], ...], ...] = (
    (
        ("name", values.person, ""),
        ("age", lambda rng: rng.randint(1, 99), "{s} is {v} years old|{s} is {v}|{s} turned {v}|{s}, {v} years old"),
        ("city", values.place, "{s} lives in {v}|{s} comes from {v}|{s} moved to {v}"),
        ("country", values.place, "{s} was born in {v}|{s} is from {v}"),
        ("job", values.word, "{s} works as a {v}|{s} is a {v}"),
        ("email", values.code, "{s} can be reached at {v}|write to {v}"),
        ("hobby", values.word, "{s} likes {v}|{s} loves {v}"),
        ("pets", values.words, "{s} has {v}"),
    ),
    (
        ("title", values.phrase, ""),
        ("author", values.person, "{s} was written by {v}|{s} is by {v}|{v} wrote {s}"),
        ("year", lambda rng: rng.randint(1800, 2030), "{s} is from {v}|{s} came out in {v}"),
        ("pages", values.whole, "{s} has {v} pages"),
        ("price", values.decimal, "{s} costs {v} dollars|{s} sells for {v}|the price of {s} is {v}"),
        ("language", values.word, "{s} is written in {v}"),
    ),
    (
        ("product", values.phrase, ""),
        ("price", values.decimal, "{s} costs {v} dollars|{s} is sold for {v}|{s} costs {v}|the price of {s} is {v}"),
        ("quantity", values.whole, "we have {v} of {s}|there are {v} of it"),
        ("color", values.word, "{s} is {v}|the color of {s} is {v}"),
        ("store", values.place, "{s} is sold in {v}"),
    ),
    (
        ("name", values.phrase, ""),
        ("date", values.date, "{s} is on {v}|{s} takes place on {v}|{s} happens on {v}"),
        ("time", values.time, "{s} starts at {v}|it begins at {v}"),
        ("location", values.place, "{s} is in {v}|{s} takes place in {v}"),
        ("participants", values.words, "{v} come to {s}|{v} are going to {s}|{v} will attend {s}"),
    ),
)
_NAMED_CLAUSES = (
    "the {k} is {v}",
    "the {k} is {v}",
    "{k}: {v}",
    "{k} = {v}",
    "{k} {v}",
    "its {k} is {v}",
    "as {k} we chose {v}",
    "the {k} was {v}",
    "{v} is the {k}",
    "with the {k} {v}",
)
_KEY_REQUESTS = (
    "Answer in JSON with the keys {k}.",
    "Give me a JSON object with {k}.",
    "Extract {k} as JSON.",
    "Return JSON with the fields {k}.",
    "Reply with a JSON object that has the keys {k}.",
    "Write it as JSON with {k}.",
    "Put {k} into a JSON object.",
    "JSON keys: {k}",
)
_SCHEMA_REQUESTS = (
    "Answer with a JSON object that matches this schema:\n{k}",
    "Answer in JSON. Schema: {k}",
    "Use this JSON schema: {k}",
    "Return JSON that is valid for this schema:\n\n{k}",
    "Extract the data as JSON with this schema: {k}",
    "Reply only in JSON, schema:\n{k}",
    "Fill this JSON schema:\n{k}",
)


def draw_form(rng: Random) -> list[Message]:
    """A text and a request for JSON, and the filled object."""
    fields = _subject_fields(rng) if rng.random() < 0.45 else _named_fields(rng)
    text = _told(rng, fields)
    asked = _asked(rng, fields)
    record = {field.key: field.value for field in asked}
    thought = FILLED.format(k=values.listed(list(record)))
    way = rng.random()
    # Without a request in the prompt a grammar writes the keys, and only the values are learnt.
    messages = _request(rng, text, asked) if way < 0.85 else [Message(role="user", content=text)]
    answer = Message(role="assistant", content=dump(record), thought=thought, are_keys_set=way >= 0.85)
    return [*messages, answer]


def _request(rng: Random, text: str, asked: list[Field]) -> list[Message]:
    if rng.random() < 0.45:
        request = rng.choice(_KEY_REQUESTS).format(k=values.listed([field.key for field in asked]))
    else:
        request = rng.choice(_SCHEMA_REQUESTS).format(k=dump(_schema(rng, asked)))
    place = rng.random()
    if place < 0.45:
        return [Message(role="system", content=request), Message(role="user", content=text)]
    joined = f"{text}{rng.choice((' ', chr(10), chr(10) * 2))}{request}" if place < 0.8 else f"{request}\n{text}"
    return [Message(role="user", content=joined)]


def _schema(rng: Random, asked: list[Field]) -> dict[str, object]:
    is_titled = rng.random() < 0.3
    schema: dict[str, object] = {
        "type": "object",
        "properties": {field.key: field.schema(is_titled=is_titled) for field in asked},
    }
    if rng.random() < 0.8:
        schema["required"] = [field.key for field in asked]
    if rng.random() < 0.4:
        schema["additionalProperties"] = False
    if is_titled:
        schema = {"title": values.word(rng).capitalize(), **schema}
    return schema


def _asked(rng: Random, fields: list[Field]) -> list[Field]:
    """What the form asks for: all that the text tells, or a part of it, in any order."""
    num_asked = len(fields) if rng.random() < 0.6 else rng.randint(1, len(fields))
    return rng.sample(fields, k=num_asked) if rng.random() < 0.5 else fields[:num_asked]


def _subject_fields(rng: Random) -> list[Field]:
    (key, draw, _), *others = rng.choice(_SUBJECTS)
    subject = str(draw(rng))
    fields = [Field(key=key, words=key, value=subject, clause="")]
    for index, (other, draw_other, clauses) in enumerate(rng.sample(others, k=rng.randint(1, min(4, len(others))))):
        value = draw_other(rng)
        again = rng.choice(("it", "she", "he", subject)) if index else subject
        # The first clause names the subject.
        wordings = [wording for wording in clauses.split("|") if index or "{s}" in wording]
        clause = rng.choice(wordings).format(s=again, v=_spoken(value))
        fields.append(Field(key=other, words=other, value=value, clause=clause))
    return fields


def _named_fields(rng: Random) -> list[Field]:
    fields: dict[str, Field] = {}
    for _ in range(rng.choice((1, 2, 2, 3, 3, 4))):
        words = values.word(rng) if rng.random() < 0.8 else f"{values.word(rng)} {values.word(rng)}"
        options = values.options(rng) if rng.random() < 0.1 else ()
        drawers = (values.phrase, values.word, values.place, values.person, values.whole, values.decimal, values.code)
        drawer = rng.choice((*drawers, *drawers, values.date, values.words, _flag))
        value = rng.choice(options) if options else drawer(rng)
        clause = rng.choice(_NAMED_CLAUSES).format(k=words, v=_spoken(value))
        key = styled(rng, words.split())
        fields[key] = Field(key=key, words=words, value=value, clause=clause, options=options)
    return list(fields.values())


def _told(rng: Random, fields: list[Field]) -> str:
    clauses = [field.clause for field in fields if field.clause]
    way = rng.random()
    begun = [_begun(clause, fields) for clause in clauses]
    if way < 0.5:
        return " ".join(f"{clause}." for clause in begun)
    if way < 0.85:
        return values.listed([begun[0], *clauses[1:]]) + rng.choice((".", ".", ""))
    return "\n".join(clauses)


def _begun(clause: str, fields: list[Field]) -> str:
    """The clause at the beginning of a sentence; a value keeps its case."""
    if any(clause.startswith(_spoken(field.value)) for field in fields):
        return clause
    return clause[0].upper() + clause[1:]


def _flag(rng: Random) -> bool:
    return rng.random() < 0.5


def _spoken(value: object) -> str:
    if isinstance(value, list):
        return values.listed([str(item) for item in value])
    return value if isinstance(value, str) else dump(value)
