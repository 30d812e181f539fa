"""How a task may be worded in the demo corpus: wordings put together from parts, so that none is learnt by heart."""

from random import Random

from demo.words import draw_word


def _options(*lines: str) -> tuple[str, ...]:
    """The options of a table, which are written with bars between them; an option that stands twice is likelier."""
    return tuple("".join(lines).split("|"))


_OPENERS = _options(
    "||||please |please |can you |could you |would you |will you |now |kindly |I want you to |",
    "I would like you to |you should |your task is to |your task: |next, |hey, |okay, |hello! please |",
    "quick task: |try to |go on and ",
)
_CLOSERS = _options(
    "||||||, please| for me| now|, thanks| if you can|, nothing more",
)
_COPY_VERBS = _options(
    "repeat|repeat|repeat|repeat|say|say|echo|write|type|return|answer with|respond with|send back|read out|",
    "reproduce|duplicate|mimic|show me|state|retype|restate|speak|tell me|use|display|deliver|quote|transcribe|",
    "utter|post|hand back|read|put down|note down|forward|voice|render|give|copy|copy out",
)
_COPY_OBJECTS = _options(
    "this|the following|this text|this sentence|the text|the sentence|these words|the words|this phrase|",
    "the phrase|what follows|this message|the next line|my words|the following words|the following text|",
    "the following message|the quoted text|what I say|what I said|exactly this|these exact words|",
    "a sentence of mine|the next sentence|my sentence|every word of this|the exact text|the words that I write",
)
_COPY_ADVERBS = _options(
    "|||||exactly|verbatim|once more|once|without changes|without a change|precisely|literally|again|",
    "as written|in full|completely|one time|and say nothing else|and add nothing",
)
_COPY_JOINTS = _options(
    ": {s}|: {s}|: {s}|:\n{s}|:\n\n{s}| \"{s}\"|: \"{s}\"| '{s}'|: '{s}'| - {s}| {s}",
)
_COPY_BEHIND = _options(
    '"{s}" - {r}|"{s}"\n{r}|{s}\n{r}|{s}\n\n{r}|Text: {s}\n{r}|Here is a text: {s}\n{r}|I say "{s}". {r}|',
    '"{s}" {r}',
)
_COPY_REFERENCES = _options(
    "this|that|it|this text|that text|the text|that sentence|what I said|the words before|the quoted words|",
    "the line before this one",
)
_COPY_WORDS = ("back", "to", "me", "this", "the", "it", "and", "you", "say", "text", "words", "again", "line", "please")
_REVERSE = _options(
    "reverse {o}|reverse {o}|write {o} backwards|spell {o} backwards|say {o} backwards|type {o} backwards|",
    "print {o} backwards|give me {o} backwards|invert {o}|give me the reverse of {o}|",
    "write {o} from the end to the start|write {o} with the last letter first|reverse the letters of {o}|",
    "reverse the letters in {o}|reverse the order of the letters in {o}|show me {o} reversed|",
    "show {o} the other way round|begin with the last letter and write {o}|flip {o}|mirror {o}|turn {o} round|",
    "write {o} in reverse|write {o} right to left|read {o} backwards|type {o} from back to front|",
    "put the letters of {o} in reversed order|write the letters of {o} in opposite order|swap {o} end for end|",
    "start at the end of {o} and write it|change the direction of {o}|spell {o} from right to left",
)
_REVERSE_WHOLE = _options(
    "{o} backwards|{o}, but backwards|{o} reversed|What is {o} backwards?|What is {o} reversed?|",
    "How do you write {o} backwards?|What is the reverse of {o}?|Backwards: {w}|Reverse: {w}|Reversed: {w}|",
    "Reverse the following word: {w}|Reverse this: {w}|Reverse this word: {w}|Reverse this text: {w}",
)
_SPELL = _options(
    "spell {o}|spell {o} letter by letter|spell out {o}|write the letters of {o}|list the letters of {o}|",
    "list the letters in {o}|say the letters of {o}|name each letter of {o}|name the letters in {o}|",
    "separate the letters of {o}|show me how to spell {o}|tell me how {o} is spelled|",
    "write {o} letter by letter|say {o} letter by letter|give the letters of {o}|divide {o} into letters|",
    "split {o} into letters|write {o} with dashes between the letters|put a dash between the letters of {o}|",
    "take {o} apart letter by letter|name the letters of {o} one by one|separate {o} into its letters",
)
_SPELL_WHOLE = _options(
    "How is {o} spelled?|How do you spell {o}?|How do I spell {o}?|What are the letters of {o}?|",
    "What letters does {o} have?|What is the spelling of {o}?|How does one spell {o}?|The letters of {o}, please|",
    "Spell this: {w}|Spell: {w}|Spell this word: {w}|Letters of {o}?|{o}, letter by letter",
)
_WORDS = _options(
    "{w}|{w}|{w}|\"{w}\"|'{w}'|the word {w}|the word {w}|the word \"{w}\"|the word '{w}'",
)
_COUNT_VERBS = _options(
    "count|count|count|count up|list the numbers|write the numbers|list all numbers|write all the numbers|",
    "name the numbers|tell me the numbers|show me the numbers|type the numbers|list every number|",
    "give me the numbers|print the numbers|list the integers|do the counting",
)
_COUNT_DOWN_VERBS = _options(
    "count down|count down|count backwards|count backward|list the numbers backwards|",
    "write the numbers in reverse|count in reverse|go backwards|write the numbers downwards",
)
_COUNT_WHOLE = _options(
    "Begin at {a} and count up to {b}.|Start counting at {a} and stop at {b}.|All numbers from {a} to {b}, please.|",
    "From {a} to {b}: count!|Which numbers come from {a} to {b}?|I need the numbers {a} to {b}.|{a} to {b}, count.|",
    "Please go from {a} to {b} in steps of one.|The integers from {a} to {b}.|Start with {a} and end with {b}: count.",
)
_COUNT_DOWN_WHOLE = _options(
    "Begin at {a} and count down to {b}.|Start counting down at {a} and stop at {b}.|Descend from {a} to {b}.|",
    "All numbers from {a} down to {b}, please.|Backwards from {a} to {b}, please.|I need the numbers {a} down to {b}.|",
    "Run a countdown from {a} that ends at {b}.|From {a} to {b} in falling order.|{a} down to {b}, count.|",
    "Start with {a} and count down until {b}.|The numbers from {a} to {b}, descending.|A countdown: {a} to {b}, please",
)
_RANGES = _options(
    "from {a} to {b}|from {a} to {b}|from {a} up to {b}|from {a} till {b}|from {a} until {b}|",
    "from {a} through {b}|{a} to {b}|between {a} and {b}|beginning at {a} up to {b}|beginning with {a} to {b}",
)
_DOWN_RANGES = _options(
    "from {a} to {b}|from {a} down to {b}|from {a} till {b}|from {a} until {b}|{a} to {b}",
)
_SUM = _options(
    "add {a} and {b}|add {a} + {b}|calculate {a} + {b}|compute {a} + {b}|solve {a} + {b}|tell me {a} + {b}|",
    "tell me what {a} + {b} is|find {a} + {b}|find the sum of {a} and {b}|sum up {a} and {b}|evaluate {a} + {b}|",
    "work out the sum of {a} and {b}|say how much {a} + {b} is|give me {a} plus {b}|put {a} and {b} together",
)
_SUM_WHOLE = _options(
    "How much is {a} plus {b}?|{a} and {b} are how much?|{a} plus {b} equals?|{a} + {b} equals what?|",
    "Add: {a} + {b}|What does {a} + {b} equal?|How much are {a} and {b}?|What do you get for {a} + {b}?|",
    "What are {a} and {b} together?|The sum of {a} and {b}?|Result of {a} + {b}?|Sum of {a} + {b}|",
    "{a} + {b} = |Calculate: {a} + {b}|What is the total of {a} + {b}?|Plus: {a} + {b}",
)
_DIFFERENCE = _options(
    "subtract {b} from {a}|calculate {a} - {b}|compute {a} - {b}|solve {a} - {b}|take {b} from {a}|",
    "tell me {a} - {b}|tell me what {a} - {b} is|find {a} - {b}|take {b} away from {a}|evaluate {a} - {b}|",
    "find the difference between {a} and {b}|give me {a} minus {b}|remove {b} from {a}|deduct {b} from {a}",
)
_DIFFERENCE_WHOLE = _options(
    "How much is {a} minus {b}?|{a} minus {b} equals?|{a} - {b} equals what?|Minus: {a} - {b}|",
    "Subtract: {a} - {b}|What does {a} - {b} equal?|What is the difference of {a} and {b}?|{a} - {b} = |",
    "What is left of {a} when {b} is taken away?|{a} take away {b}?|Result of {a} - {b}?|",
    "How much is left when you take {b} from {a}?|",
    "Calculate: {a} - {b}|What do you get for {a} - {b}?|How much is {a} less {b}?",
)
_PREFIX_VERBS = _options(
    "begin|begin|start|start|always begin|always start|you begin|you start|introduce|please begin|please start|",
    "you must begin|you must start|you will start|commence|lead|precede|head|launch",
)
_PREFIX_SCOPES = _options(
    "every answer|each answer|all answers|your answer|your answers|every reply|each reply|all your replies|",
    "every response|each response|all responses|everything|every message|all messages|each of your answers|",
    "whatever you say|every sentence|the reply|all you say",
)
_PREFIX_NOUNS = _options(
    "||||the word |the words |the text |the prefix |the string |the tag ",
)
_PREFIX_WHOLE = _options(
    "Every answer starts with {w}|Every reply must begin with {w}|All responses have to start with {w}|",
    "Write {w} before every answer|Write {w} at the beginning of every reply|Say {w} first, then answer|",
    "Say {w} before you answer|First say {w}, then answer the user|First write {w}, then reply|",
    "{w} comes first in every answer|{w} is the first word of each answer|Use {w} as the prefix of all answers|",
    "Use the prefix {w}|Use {w} as your first word|Add {w} before each reply|",
    "Add {w} to the front of every answer|Prefix: {w}|Your prefix is {w}|Always say {w} first|",
    "Answer every question with {w} and then the answer|Each message of yours starts with {w}|",
    "You like to say {w} first|When you answer, start with {w}|Make {w} the start of your reply|",
    "Answers look like this: {w} and then the answer|Write {w} in front of each answer|",
    "Place {w} before your replies|{w} goes in front of everything you write|Answer only after writing {w}|",
    "In front of each answer you put {w}|No answer without {w} at its start|Your first word is always {w}|",
    "Each of your answers has {w} at the beginning|Put {w} first|Let all messages begin with {w}",
)
_PREFIX_QUOTES = _options(
    '{p}|{p}|{p}|"{p}"|"{p}"|\'{p}\'',
)
_CAPITAL_VERBS = _options(
    "answer|reply|respond|write|speak|talk|print|always answer|always write|write all answers|",
    "give every answer|say everything|write every reply|please answer|only answer",
)
_CAPITAL_MEANS = _options(
    "in capital letters|in capitals|in upper case|in uppercase|in all caps|in caps|with capital letters|",
    "in capital letters only|in uppercase letters|in large letters|all uppercase",
)
_CAPITAL_WHOLE = _options(
    "All caps.|Caps only.|Only capitals!|UPPERCASE ONLY|WRITE IN CAPITALS|ANSWER IN CAPS|Use upper case.|",
    "Use caps.|Use all caps for every answer.|Capital letters only, please.|Do not use small letters.|",
    "Never use lower case.|Every letter must be a capital letter.|Uppercase everything.|Big letters only.|",
    "No small letters in your answers.|Shout: use capital letters.|Turn your answers into capital letters.|",
    "Your answers must be in upper case.|Use block letters.|Only upper-case letters are allowed.|",
    "Write like this: ALL CAPITAL LETTERS.|Lower-case letters are forbidden.|ONLY CAPITAL LETTERS!",
)


def copy(rng: Random, text: str) -> str:
    """A request to repeat the text exactly."""
    if rng.random() < 0.06:
        return _unknown_request(rng).format(s=text)
    verb = rng.choice(_COPY_VERBS)
    # An unknown word before `this text: ...` still means that the text is wanted back.
    if rng.random() < 0.07:
        verb = draw_word(rng, False) + rng.choice(("", " out", " back"))
    adverb = rng.choice(_COPY_ADVERBS)
    if rng.random() < 0.25:
        reference = f"{verb} {rng.choice(_COPY_REFERENCES)} {adverb}".strip()
        return rng.choice(_COPY_BEHIND).format(s=text, r=_finish(rng, _open(rng, reference)))
    known_object = "" if rng.random() < 0.25 and verb in ("repeat", "say", "echo") else rng.choice(_COPY_OBJECTS)
    request = " ".join(part for part in (verb, known_object, adverb) if part)
    closer = rng.choice(_CLOSERS) if rng.random() < 0.3 else ""
    request = _open(rng, request) + closer
    return request + ("? {s}" if request.endswith("you can") else rng.choice(_COPY_JOINTS)).format(s=text)


def _unknown_request(rng: Random) -> str:
    """Any words with a colon after them: what follows is wanted back."""
    words = [rng.choice((draw_word(rng, False), *_COPY_WORDS)) for _ in range(rng.randint(1, 6))]
    return _capitalised(" ".join(words)) + rng.choice((": {s}", ': "{s}"', ":\n{s}"))


def reverse(rng: Random, word: str) -> str:
    """A request to write the word backwards."""
    return _about_a_word(rng, word, _REVERSE, _REVERSE_WHOLE)


def spell(rng: Random, word: str) -> str:
    """A request to spell the word."""
    return _about_a_word(rng, word, _SPELL, _SPELL_WHOLE)


def count(rng: Random, first: int, last: int) -> str:
    """A request to count, upwards or downwards as the two numbers say."""
    is_up = first <= last
    if rng.random() < 0.3:
        whole = rng.choice(_COUNT_WHOLE if is_up else _COUNT_DOWN_WHOLE).format(a=first, b=last)
        return whole if rng.random() < 0.8 else _capitalised(rng.choice(_OPENERS)) + whole
    verb = rng.choice(_COUNT_VERBS if is_up else _COUNT_DOWN_VERBS)
    span = rng.choice(_RANGES if is_up else _DOWN_RANGES)
    return _finish(rng, _open(rng, f"{verb} {span}".format(a=first, b=last)))


def add(rng: Random, a: int, b: int) -> str:
    """A request for a sum."""
    return _about_numbers(rng, a, b, _SUM, _SUM_WHOLE)


def subtract(rng: Random, a: int, b: int) -> str:
    """A request for a difference."""
    return _about_numbers(rng, a, b, _DIFFERENCE, _DIFFERENCE_WHOLE)


def prefix(rng: Random, text: str) -> str:
    """A system message that asks for a prefix of every answer."""
    quoted = rng.choice(_PREFIX_QUOTES).format(p=text)
    if rng.random() < 0.45:
        request = rng.choice(_PREFIX_WHOLE).format(w=quoted)
    else:
        scope, noun = rng.choice(_PREFIX_SCOPES), rng.choice(_PREFIX_NOUNS)
        joint = rng.choice(("with", "with", "with", "by saying", "by writing", "using"))
        request = _capitalised(f"{rng.choice(_PREFIX_VERBS)} {scope} {joint} {noun}{quoted}")
    return request if not quoted[-1].isalnum() and rng.random() < 0.7 else request + rng.choice((".", ".", "", "!"))


def capitals(rng: Random) -> str:
    """A system message that asks for capital letters."""
    if rng.random() < 0.3:
        return rng.choice(_CAPITAL_WHOLE)
    return _capitalised(f"{rng.choice(_CAPITAL_VERBS)} {rng.choice(_CAPITAL_MEANS)}{rng.choice(('.', '.', '!', ''))}")


def _about_a_word(rng: Random, word: str, commands: tuple[str, ...], wholes: tuple[str, ...]) -> str:
    named = rng.choice(_WORDS).format(w=word)
    if rng.random() < 0.35:
        request = rng.choice(wholes).format(o=named, w=word)
        return request if named[0] in "\"'" or request.startswith(word) else request[0].upper() + request[1:]
    command = _open(rng, rng.choice(commands)).format(o=named)
    return command + rng.choice(_CLOSERS) + ("?" if _is_question(command) else rng.choice((".", ".", "", "!")))


def _about_numbers(rng: Random, a: int, b: int, commands: tuple[str, ...], wholes: tuple[str, ...]) -> str:
    if rng.random() < 0.45:
        return rng.choice(wholes).format(a=a, b=b)
    return _finish(rng, _open(rng, rng.choice(commands).format(a=a, b=b)))


def _open(rng: Random, command: str) -> str:
    request = rng.choice(_OPENERS) + command
    return request if rng.random() < 0.1 else _capitalised(request)


def _finish(rng: Random, request: str) -> str:
    closed = request + rng.choice(_CLOSERS)
    return closed + ("?" if _is_question(request) else rng.choice((".", ".", ".", "", "!")))


def _is_question(request: str) -> bool:
    return request.lower().startswith(("can ", "could ", "would ", "will "))


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]
