"""The evaluation set of wordings that the generator of the demo corpus does not have.

Written by somebody who had not read the generator, and never to be copied into its tables: a test checks that the
generator produces none of these wordings. The sentences and words are ordinary English, not the corpus's.
"""

from random import Random

from demo.corpus import with_prefix
from demo.dialog import Message
from demo.skills import Turn, difference, total

REPEAT = (
    "Write exactly this and nothing more: {s}",
    "Type the following for me: {s}",
    "Send me back what I typed: {s}",
    "{s}\n\nNow say that sentence yourself.",
    "Respond using exactly these words: {s}",
    "Your answer should be this and only this: {s}",
    "I need this text returned without changes: {s}",
    "Here is a sentence: {s}\nSay it back to me.",
    "Be my echo: {s}",
    "Test, test. Repeat what comes next: {s}",
    "Write out the following, letter for letter: {s}",
    'Return this string: "{s}"',
    "I would like to read '{s}' in your answer, and nothing else.",
    "Please reproduce: {s}",
    "Quote me exactly: {s}",
    'Let me hear you say "{s}"',
)
SENTENCES = (
    "Good evening, ladies and gentlemen, and welcome on board.",
    "My phone battery died in the middle of the call.",
    "The early bird catches the worm.",
    "Lunch is at 12:45 in the small canteen.",
    "How vexingly quick daft zebras jump!",
    "We moved to Rotterdam in 2019 and never regretted it.",
    "Peter Piper picked a peck of pickled peppers.",
    "The server returned status 503, so I tried again.",
    "Would anybody like another slice of cake?",
    "Actions speak louder than words.",
    "My neighbour's cat sleeps on our doormat every afternoon.",
    "foo bar baz",
    "Today is a good day to learn something new.",
    "All animals are equal, but some are more equal than others.",
    "Order no. A-4471 was shipped yesterday.",
    "Knock knock. Who is there?",
    "Let it snow, let it snow, let it snow!",
    "A watched pot never boils.",
    "Dr. Okafor will see you now.",
    "The invoice total is 1,249.50 euros (VAT included).",
    "I would rather walk than take the bus.",
    "Hello from the other side of the wire",
    "Rome was not built in a day.",
    "please deploy the new build to staging",
    "Lukas and Priya painted the fence green.",
    "May the Force be with you.",
    "Visit https://example.org/help for more information.",
    "Winter is coming; bring a warm coat.",
    "There are 24 hours in a day and 7 days in a week.",
    "Better late than never.",
    "GPU memory is almost full!",
    "Two wrongs do not make a right.",
)
PREFIX = (
    "Whatever the user asks, your reply starts with {w}",
    "Answer normally, but put {w} before the answer.",
    "Every message that you send has {w} as its beginning.",
    "Always lead with {w}",
    "Use {w} as the opening of all your answers.",
    "You are a friendly parrot that says {w} before each answer.",
    "Format of your answers: {w} followed by the answer.",
    "Never forget: {w} comes first in every reply.",
    "Say '{w}' first, then answer the question.",
    "Make sure that {w} is the first thing the user reads.",
    "Each time you answer, write {w} and then the answer.",
    'Your catchphrase is "{w}". Open every answer with it.',
)
PREFIXES = (
    "Output:",
    "Bot>",
    "Ahoy",
    "Sure,",
    "OK:",
    "[assistant]",
    "Captain,",
    "Dear user,",
    "Meow",
    "As you wish:",
    "Okey-dokey",
    "[v2]",
    "Unit 7:",
    "Yes, chef!",
    "Ta-da!",
    "Breaking news:",
    "Tokenpost says:",
    ">>>",
    "TL;DR",
    "Zounds",
    "Marvin",
    "Well,",
    "DEBUG:",
    "(whispers)",
)
WORDS = (
    "keyboard",
    "umbrella",
    "Barcelona",
    "elephant",
    "GitHub",
    "chocolate",
    "necessary",
    "rhythm",
    "racecar",
    "Thursday",
    "server",
    "bicycle",
    "Gandalf",
    "onomatopoeia",
    "desserts",
    "pancake",
    "window",
    "JavaScript",
    "hospital",
    "calendar",
    "raspberry",
    "queue",
    "network",
    "February",
    "dolphin",
    "accommodate",
    "iPhone",
    "violin",
    "restaurant",
    "octopus",
    "Zanzibar",
    "cheese",
    "planet",
    "sandwich",
    "parliament",
    "drawer",
    "butterfly",
    "electricity",
    "water",
    "knife",
)
REVERSE = (
    "Begin with the last letter of {w} and end with its first.",
    "How would {w} read if you started at the end?",
    "Take {w} and invert the order of its letters.",
    "{w}, but from the end to the start",
    'What is "{w}"[::-1]?',
    "Print {w} starting from its last letter.",
    "I want the word {w} the other way around.",
    "Do you know what {w} is in reverse?",
    "Show me {w} from end to beginning.",
    "Can you put the letters of {w} in reverse order for me?",
    "Reverse this string for me: '{w}'",
    "The word is {w}. Now say it backwards.",
)
SPELL = (
    "My daughter asks how {w} is spelled.",
    "Take {w} apart into single letters.",
    "What letters do I need to write {w}?",
    "Say {w} one letter at a time.",
    "Separate the letters of {w} with hyphens.",
    "Dictate {w} to me letter by letter.",
    "I never know how to spell {w}, can you help?",
    "The word is {w}. Spell it, please.",
)
COUNT = (
    "List every number starting with {a} and stopping at {b}.",
    "Print the integers {a}..{b}",
    "Which numbers are there from {a} to {b}?",
    "Please count upwards: first {a}, last {b}.",
    "Show me the numbers in order, from {a} up to and including {b}.",
    "Let us count together from {a} to {b}.",
    "Help me count: I am at {a} and want to get to {b}.",
    "I start with {a}, you count on until {b}.",
    "Can you count for me? Begin with {a}, stop after {b}.",
    "All the whole numbers from {a} to {b}",
)
COUNT_DOWN = (
    "Rocket launch! Count backwards from {a} to {b}.",
    "Numbers from {a} back to {b}, please.",
    "List the numbers {a} to {b}, biggest first.",
    "We begin at {a}. Count backwards until we are at {b}.",
    "Go backwards from {a} until you reach {b}.",
    "Can you count down for me? From {a}, and stop after {b}.",
)
ADD = (
    "What does {a} + {b} evaluate to?",
    "Quick math: {a} + {b}",
    "My calculator is broken, what is {a} plus {b}?",
    "If you put {a} and {b} together, what is the sum?",
    "How much is {a} plus {b} altogether?",
    "I have {a} and get {b} more, how much is that?",
    "Give me the answer to {a} + {b}",
)
SUBTRACT = (
    "What does {a} - {b} evaluate to?",
    "Quick math: {a} - {b}",
    "My calculator is broken, what is {a} minus {b}?",
    "Start with {a} and remove {b}: how much is left?",
    "By how much is {a} more than {b}?",
    "Give me the answer to {a} - {b}",
)
CAPITALS = (
    "Answer with the Caps Lock key on.",
    "Use capital letters for the whole reply.",
    "Small letters are forbidden in your answers.",
    "Make every letter of your reply a capital.",
    "STYLE OF ALL ANSWERS: UPPERCASE",
    "Your Caps Lock is stuck, so each letter that you type is a capital one.",
    "The user can only read capital letters. Answer in them.",
)
RECALL = (
    ("Let us agree on a code word: {v}.", "Which code word did we agree on?", "The code word is {v}."),
    ("By the way, they call me {v}.", "Do you still know my name?", "Your name is {v}."),
    ("{v} is our code word, do not lose it.", "Please remind me of the code word.", "The code word is {v}."),
    ("My friends know me as {v}, that is my name.", "Which name did I give you?", "Your name is {v}."),
    ("Write this down, please: code word {v}.", "I lost the code word, tell me.", "The code word is {v}."),
    ("Good morning, this is {v} speaking.", "You know my name, what is it?", "Your name is {v}."),
    ("The code word for tonight is {v}, ok?", "What code word did I set for tonight?", "The code word is {v}."),
    ("Before we start: my name is {v}, please keep it.", "And what am I called?", "Your name is {v}."),
)
NAMES = ("Priya", "Bartholomew", "Yuki", "Chloe", "Okonkwo", "Anneliese", "Raj", "DeShawn", "Lukas", "McKenzie")
CODE_WORDS = (
    "Bluebird",
    "TANGO",
    "sesame",
    "Falcon-42",
    "marmalade",
    "X7Q9",
    "Northern Star",
    "pickle",
    "1984",
    "thunderbolt",
    "eMerald",
    "velvet",
    "SilverFox",
    "hunter2",
)

SKILLS = ("repeat", "prefix", "reverse", "count", "count_down", "spell", "add", "subtract", "capitals", "recall")

Conversation = tuple[list[Message], Turn]


def draw(skill: str, num_cases: int) -> list[Conversation]:
    """Different conversations of a skill that end with the user's message, each with the right answer."""
    rng = Random(f"unseen {skill}")
    drawn: dict[str, Conversation] = {}
    for index in range(20 * num_cases):
        conversation = _conversation(skill, index, rng)
        drawn.setdefault(repr(conversation[0]), conversation)
        if len(drawn) == num_cases:
            break
    return list(drawn.values())


def _conversation(skill: str, index: int, rng: Random) -> Conversation:
    match skill:
        case "prefix":
            prefix, turn = rng.choice(PREFIXES), _plain(rng)
            system = PREFIX[index % len(PREFIX)].format(w=prefix)
            return _asked(turn.user, with_prefix(prefix, turn.answer), system)
        case "capitals":
            turn = _plain(rng)
            return _asked(turn.user, turn.answer.upper(), CAPITALS[index % len(CAPITALS)])
        case "recall":
            return _recalled(index, rng)
        case _:
            turn = _task(skill, index, rng)
            return _asked(turn.user, turn.answer)


def _task(skill: str, index: int, rng: Random) -> Turn:
    word, low, span = rng.choice(WORDS), rng.randint(1, 80), rng.randint(3, 12)
    a, b = sorted((rng.randint(2, 99), rng.randint(2, 99)), reverse=True)
    match skill:
        case "repeat":
            text = SENTENCES[(index * 11 + index // len(REPEAT)) % len(SENTENCES)]
            return Turn(user=REPEAT[index % len(REPEAT)].format(s=text), answer=text)
        case "reverse":
            return Turn(user=REVERSE[index % len(REVERSE)].format(w=word), answer=word[::-1])
        case "spell":
            return Turn(user=SPELL[index % len(SPELL)].format(w=word), answer="-".join(word))
        case "count":
            answer = ", ".join(map(str, range(low, low + span + 1)))
            return Turn(user=COUNT[index % len(COUNT)].format(a=low, b=low + span), answer=answer)
        case "count_down":
            answer = ", ".join(map(str, range(low + span, low - 1, -1)))
            return Turn(user=COUNT_DOWN[index % len(COUNT_DOWN)].format(a=low + span, b=low), answer=answer)
        case "add":
            return Turn(user=ADD[index % len(ADD)].format(a=a, b=b), answer=total(a, b))
        case _:
            return Turn(user=SUBTRACT[index % len(SUBTRACT)].format(a=a, b=b), answer=difference(a, b))


def _plain(rng: Random) -> Turn:
    """A question in the corpus's own wording, for system messages whose wording is what is tried."""
    a, b = rng.randint(1, 49), rng.randint(1, 49)
    word = rng.choice(WORDS)
    return rng.choice(
        (
            Turn(user=f"What is {a} + {b}?", answer=total(a, b)),
            Turn(user="What is the capital of Japan?", answer="The capital of Japan is Tokyo."),
            Turn(user="Hi!", answer="Hello! How can I help you?"),
            Turn(user=f"Spell {word}.", answer="-".join(word)),
        )
    )


def _recalled(index: int, rng: Random) -> Conversation:
    telling, question, answer = RECALL[index % len(RECALL)]
    is_name = "name" in answer
    value = rng.choice(NAMES if is_name else CODE_WORDS)
    acknowledged = f"Nice to meet you, {value}!" if is_name else f"I will remember the code word {value}."
    messages = [
        Message(role="user", content=telling.format(v=value)),
        Message(role="assistant", content=acknowledged),
        Message(role="user", content=question),
    ]
    return messages, Turn(user=question, answer=answer.format(v=value))


def _asked(user: str, answer: str, system: str | None = None) -> Conversation:
    messages = [Message(role="user", content=user)]
    if system is not None:
        messages.insert(0, Message(role="system", content=system))
    return messages, Turn(user=user, answer=answer)
