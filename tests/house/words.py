"""Words of a private vocabulary, and where they still stand: `python -m tests.house.words [PATH ...]` lists them.

The table of `Rule`s repeats the left column of the plan's table of names. A word that English needs too is looked for
only in identifiers, or only in the phrases in which it has the private meaning.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SUFFIXES = (".py", ".md", ".h", ".cpp", ".toml", ".yml", ".yaml", ".sh")
# Decisions and the change log say what was decided when; the corpus of the demo model is made of everyday English;
# the rules themselves, their test and the page that names the words must name them.
EXEMPT = (
    "docs/decisions/",
    "storage/database/migrations/versions/",
    "CHANGELOG.md",
    "demo/",
    "workers/model/demo/",
    "tests/demo/",
    "tests/house/",
    "tests/test_house.py",
    "LICENSE",
    "constraints.txt",
)
CODE = ("api/", "storage/", "workers/", "bench/", "tests/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One private word.

    words:   the word and its forms; each is looked for in prose, and as a part of an identifier
    names:   forms that are looked for as a part of Python identifiers only
    phrases: regular expressions of prose
    allowed: regular expressions of the places where the word means what everybody means by it
    within:  the folders where the rule holds; everywhere unless given
    """

    use: str
    words: str = ""
    names: str = ""
    phrases: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    within: tuple[str, ...] = ("",)


class Finding(NamedTuple):
    """A private word in a line of a file."""

    path: str
    line: int
    word: str
    use: str


_ROOMS_OF_REQUESTS = "authentication caches capacity cli http interface jobs routes server streaming webhooks"
_DETERMINERS = "a|an|each|every|one|same|another|this"

RULES = (
    Rule(use="queue statistics, snapshot", words="crowd crowds tally tallies tallied"),
    Rule(
        use="snapshot, check, pass",
        names="look looks looked",
        phrases=(rf"\b(?:{_DETERMINERS}|the|first|last|next|current|two) looks?\b(?! (?:up|like|at)\b)",),
        allowed=(r"\w*look(?:s|ed)?_(?:up|like)\w*", r"\w*lookahead\w*"),
    ),
    Rule(use="throughput", words="pace paces"),
    Rule(
        use="capacity",
        words="power",
        allowed=(r"powers? of (?:two|ten)", r"power_of_(?:two|2)", r"power cut", r"of power"),
    ),
    Rule(use="queue status", words="standing standings"),
    Rule(
        use="position", names="place places", allowed=(r"\b(?:in_place|place_?holder)\w*",), within=("api/", "storage/")
    ),
    Rule(
        use="queue",
        phrases=(r"\b(?:in|engine's|lane's|whole|front of the|end of the) line\b(?! with)",),
        allowed=(r"\bin line(?: for line in |\[)",),
        within=CODE,
    ),
    Rule(use="position watchers", words="waiter waiters", allowed=(r"\b_waiter\b",)),  # asyncio's word: a future
    Rule(use="admission limits", names="bounds", within=("api/",)),
    Rule(
        use="retry slot", phrases=(r"\b(?:whose|its|their|his|a later|the next) turn\b",), within=("api/", "storage/")
    ),
    Rule(use="compensating delete", words="take_back takes_back taken_back"),
    Rule(
        use="idempotent replay",
        names="earlier",
        phrases=(r"\bearlier (?:call|try|job)\b",),
        allowed=(r"\bearlier_value\b",),
    ),
    Rule(
        use="request",
        phrases=(rf"\b(?:{_DETERMINERS}|whose|such|that) calls?\b",),
        # In the wire protocols it is the call of a tool.
        within=(*(f"api/{room}/" for room in _ROOMS_OF_REQUESTS.split()), "storage/", "docs/", "README.md"),
    ),
    Rule(use="attempt", names="tries", phrases=(rf"\b(?:{_DETERMINERS}|the|first|second|last|next) tr(?:y|ies)\b",)),
    Rule(use="attach", phrases=(r"\bjoin(?:s|ed)? (?:the|an|a|that|its) (?:job|other|first|earlier)\b",)),
    Rule(use="API-key cache", words="keyring keyrings"),
    Rule(use="model manifest", words="card cards", allowed=(r"wild ?cards?", r"(?:graphics|credit) cards?")),
    Rule(use="log repair", words="mend mends mended mender mending"),
    Rule(use="mark dead", words="bury buries buried"),
    Rule(
        use="exponential-race (Gumbel-max) sampling",
        words="race races raced racing",
        allowed=(r"[Ee]xponential[- _]races?\w*", r"(?:data|a) races?\b", r"races?[- ]conditions?", r"races? between"),
    ),
    Rule(
        use="sample",
        words="draw draws drawn drew",
        allowed=(r"\b\w*\.draw\b", r"\bdraw\(", r"(?:\bdraw: )?\bst\.DrawFn", r"\bdraw_(?:cases|unseen_wordings)\b"),
        within=CODE,
    ),
    Rule(use="validate", words="proven distrust distrusts distrusted", within=CODE),
    Rule(use="needs zeroing", words="unclean"),
    Rule(
        use="poison-job isolation",
        words="suspect suspects suspected acquit acquits acquitted acquittal quarantine",
        allowed=(r"suspected poison jobs?",),
    ),
    Rule(use="poison-job isolation", words="trial trials", allowed=(r"trial[ _]render\w*",)),
    Rule(
        use="aging",
        words="starve starves starved starving starvation",
        # The old name of a setting, which keeps working.
        allowed=(r"TOKENPOST_STARVE_AFTER_S", r'"starve_after_s"'),
    ),
    Rule(use="ownership lost", words="stolen"),
    Rule(
        use="ports, event loop",
        words="road roads hub hubs",
        # Hugging Face's, and the class of kombu's event loop.
        allowed=(r"\b(?:HF_HUB|hf_hub)\w*", r"huggingface_hub", r"\bthe Hub\b", r'"hub"', r"\bHub$", r": Hub\b"),
    ),
    Rule(
        use="pipeline",
        names="walk walks walked",
        phrases=(r"\b(?:a|the|its|their) walk\b",),
        allowed=(r"\.walk(?:_revisions)?\b",),
    ),
    Rule(use="formatter", words="teller tellers"),
    Rule(use="token bytes", words="spelling spellings", names="spelled spell"),
    Rule(use="reported", words="told"),
    Rule(use="subscribed", words="heard", names="hear hears"),
    Rule(use="priority queue", words="lane lanes"),
    Rule(use="(chunked) prefill", names="behind", phrases=(r"\bcatch(?:es|ing)? up\b",), within=("workers/",)),
    Rule(use="entry point, exception boundary", words="door doors"),
    Rule(use="packed weight tile", words="panel panels"),
    Rule(use="work chunk", words="portion portions"),
    Rule(use="thread pool", words="team teams", allowed=(r'"team"',)),  # a caller's metadata
)


_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def _as_part(word: str) -> str:
    """Finds a word in prose and as a part of snake_case, CamelCase and UPPER_CASE names."""
    title, upper = word[0].upper() + word[1:], word.upper()
    return (
        rf"(?:(?<![A-Za-z])(?:{word}|{title})(?![a-z])|(?<=[a-z0-9]){title}(?![a-z])|(?<![A-Za-z]){upper}(?![A-Za-z]))"
    )


def _pattern(words: str) -> re.Pattern[str] | None:
    return re.compile("|".join(_as_part(word) for word in words.split())) if words else None


_COMPILED = [
    (
        rule,
        _pattern(rule.words),
        _pattern(rule.names),
        re.compile("|".join(rule.phrases)) if rule.phrases else None,
        re.compile("|".join(rule.allowed)) if rule.allowed else None,
    )
    for rule in RULES
]


def files() -> list[str]:
    """The texts that git knows and the rules hold for."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = [name for name in listed.splitlines() if name.endswith(SUFFIXES) or "/" not in name]
    return [name for name in named if not name.startswith(EXEMPT) and (ROOT / name).is_file()]


def findings_in(path: str, text: str) -> Iterator[Finding]:
    """Every private word in a text."""
    lines_by_part = _lines_by_part(text)
    names_by_line = _names_by_line(text) if path.endswith(".py") else {}
    lines = ["", *text.splitlines()]
    for rule, words, names, phrases, allowed in _COMPILED:
        if not path.startswith(rule.within):
            continue
        for number in sorted(_lines_with(rule, lines_by_part) | _lines_of(phrases, text)):
            seen = allowed.sub(" ", lines[number]) if allowed else lines[number]
            for pattern in (words, phrases):
                if pattern is not None:
                    yield from (Finding(path, number, found[0].lower(), rule.use) for found in pattern.finditer(seen))
            found = names.search(names_by_line.get(number, "")) if names is not None else None
            if found is not None and not (allowed is not None and allowed.search(lines[number])):
                yield Finding(path, number, found[0].lower(), rule.use)
        stem = allowed.sub("", Path(path).stem) if allowed else Path(path).stem
        if words is not None and (found := words.search(stem)):
            yield Finding(path, 0, found[0].lower(), rule.use)


def _lines_by_part(text: str) -> dict[str, set[int]]:
    """The numbers of the lines that hold each word, names taken apart: a search of a text for all words at once."""
    lines: dict[str, set[int]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        for part in _PARTS.findall(line):
            lines.setdefault(part.lower(), set()).add(number)
    return lines


def _lines_with(rule: Rule, lines_by_part: dict[str, set[int]]) -> set[int]:
    parts = {word.split("_")[0] for word in f"{rule.words} {rule.names}".split()}
    return set().union(*(lines_by_part.get(part, set()) for part in parts))


def _lines_of(phrases: re.Pattern[str] | None, text: str) -> set[int]:
    if phrases is None:
        return set()
    return {text.count("\n", 0, found.start()) + 1 for found in phrases.finditer(text)}


def _names_by_line(text: str) -> dict[int, str]:
    """The identifiers of each line of a Python file; methods of other libraries (`.walk`, `.join`) left out."""
    names: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            names[token.start[0]] = f"{names.get(token.start[0], '')} {token.string}"
    return names


def findings(prefixes: tuple[str, ...] = ("",)) -> list[Finding]:
    """Every private word in the files that begin so."""
    return [
        finding
        for path in files()
        if path.startswith(prefixes)
        for finding in findings_in(path, (ROOT / path).read_text(errors="replace"))
    ]


if __name__ == "__main__":
    found = findings(tuple(sys.argv[1:]) or ("",))
    for finding in found:
        print(f"{finding.path}:{finding.line}: {finding.word} -> {finding.use}")  # noqa: T201 - its purpose
    print(f"{len(found)} private words")  # noqa: T201 - its purpose
