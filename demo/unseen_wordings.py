"""The evaluation set of wordings that the generator of the demo corpus does not have.

Written before the generator's own tables were widened, and never to be copied into them: a test checks that the
generator produces none of these wordings. The sentences and words are ordinary English, not the corpus's.
"""

from random import Random

from demo.corpus import with_prefix
from demo.dialog import Message
from demo.skills import Turn, difference, total

REPEAT = (
    "Copy this text word for word: {s}",
    "Give me back this sentence unchanged: {s}",
    "{s}\n\nRepeat the line above.",
    "Parrot this back to me: {s}",
    "I will say something and you say it back: {s}",
    "Could you repeat what I write here? {s}",
    "Reply with the same text: {s}",
    "Print this line as it is: {s}",
    "Output only the following sentence: {s}",
    "Recite: {s}",
    'Repeat after me, please: "{s}"',
    "Repeat these words back: {s}",
    "Just repeat: '{s}'",
    "Please say the following sentence again: {s}",
)
SENTENCES = (
    "The quick brown fox jumps over the lazy dog.",
    "Our train leaves platform nine at half past seven.",
    "She sells sea shells by the sea shore.",
    "Never put off until tomorrow what you can do today.",
    "We ordered three pizzas and a salad for the meeting.",
    "My cousin Margaret studies chemistry in Edinburgh.",
    "It is raining cats and dogs!",
    "Could somebody please open the window?",
    "The museum is closed on Mondays and public holidays.",
    "A penny saved is a penny earned.",
    "Version 2.10 fixes 37 bugs.",
    "Thunder rolled across the mountains all night long.",
    "Don't forget to water the plants on Saturday.",
    "Every cloud has a silver lining.",
    "His email address is bob_smith@example.com",
    "I think, therefore I am.",
    "Pack my box with five dozen liquor jugs.",
    "The committee will publish its report next spring.",
    "Fresh coffee tastes better in a blue cup.",
    "You cannot teach an old dog new tricks.",
    "Grandmother baked seventeen ginger cookies (and ate two).",
    "Nothing ventured, nothing gained.",
    "Tokens arrive one after another, like pearls on a string.",
    "Be careful: the floor is wet.",
    "banana strawberry telephone",
    "To be or not to be, that is the question.",
    "The price went up from 15 to 29 dollars.",
    "Six sleepy sloths slowly slid south.",
    "hello world, this is a test",
    "Where there is smoke, there is fire.",
)
PREFIX = (
    "Put {w} at the start of each of your messages.",
    "Open all your replies with {w}",
    "Your answers always begin with {w}",
    "Prefix whatever you say with {w}",
    "The first thing in every response is {w}",
    "Each response has to open with '{w}'.",
    "Before anything else, write {w} in all replies.",
    'You are a robot. Never reply without first writing "{w}".',
    "Preface everything with {w}",
    "You must put {w} in front of what you say.",
)
PREFIXES = (
    "Message:",
    "Report:",
    "Note:",
    "[bot]",
    "Roger",
    "Howdy",
    "Reply:",
    "Indeed",
    "ACK",
    "Attention:",
    "Beep",
    "Summary:",
    "Quackers",
    "Banana",
    "Result:",
    "Hmm,",
    "Greetings!",
    "[INFO]",
    "Professor",
    "Alright",
)
WORDS = (
    "tortoise",
    "Mississippi",
    "example",
    "platform",
    "language",
    "science",
    "mountain",
    "breakfast",
    "Wednesday",
    "holiday",
    "kitchen",
    "sunflower",
    "history",
    "balloon",
    "library",
    "coconut",
    "tomorrow",
    "yesterday",
    "picnic",
    "level",
    "stressed",
    "Amsterdam",
    "programming",
    "noodle",
    "pineapple",
    "committee",
    "bookkeeper",
    "orchestra",
    "giggle",
    "weekend",
    "sentence",
    "quiet",
    "friend",
    "morning",
    "yellow",
)
REVERSE = (
    "Turn the word {w} around.",
    "Say {w} in reverse.",
    "What does {w} look like from back to front?",
    "Give me {w} with its letters in the opposite order.",
    "Flip the letters of {w}.",
    "{w} in reverse order, please",
    "Type {w} the wrong way round.",
    "Mirror this word: {w}",
    "Read {w} from right to left.",
    "What do you get when you reverse '{w}'?",
)
SPELL = (
    "Which letters make up {w}?",
    "Break {w} into letters.",
    "Give me the spelling of {w}.",
    "Put dashes between the letters of {w}.",
    "I forgot how {w} is spelled.",
    "Spelling of '{w}', please",
)
COUNT = (
    "Give me all numbers between {a} and {b}, both included.",
    "Start at {a} and count until you reach {b}.",
    "Numbers {a} through {b}, please.",
    "I want to hear you count: {a} to {b}.",
    "Enumerate the integers from {a} to {b}.",
    "Go from {a} up to {b}, one at a time.",
    "Say every number from {a} to {b}.",
    "Count, starting at {a} and ending at {b}.",
)
COUNT_DOWN = (
    "Countdown: {a} to {b}",
    "Start at {a} and go down to {b}.",
    "Give me a countdown from {a} to {b}.",
    "Say the numbers from {a} to {b} in descending order.",
)
ADD = (
    "Work out {a} + {b} for me.",
    "Tell me the result of {a}+{b}.",
    "Sum: {a} + {b}",
    "What do {a} and {b} make together?",
    "Total of {a} and {b}?",
)
SUBTRACT = (
    "Work out {a} - {b} for me.",
    "Tell me the result of {a}-{b}.",
    "Difference: {a} - {b}",
    "What remains of {a} after taking away {b}?",
)
CAPITALS = (
    "From now on, use uppercase letters and nothing else.",
    "ALL CAPS PLEASE.",
    "Your replies contain no lower-case letters.",
    "Type in block capitals.",
    "Everything you say is upper-cased.",
)
RECALL = (
    ("For later: the code word is {v}.", "So what was the code word?", "The code word is {v}."),
    ("I chose {v} as the code word.", "Can you tell me the code word?", "The code word is {v}."),
    ("Keep in mind that my name is {v}.", "Say my name.", "Your name is {v}."),
    ("People call me {v}.", "So what was my name again?", "Your name is {v}."),
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
            Turn(user="What is the capital of France?", answer="The capital of France is Paris."),
            Turn(user="Hello!", answer="Hello! How can I help you?"),
            Turn(user=f"Spell {word}.", answer="-".join(word)),
        )
    )


def _recalled(index: int, rng: Random) -> Conversation:
    telling, question, answer = RECALL[index % len(RECALL)]
    is_name = "name" in answer
    value = rng.choice(("Margaret", "Theodore", "Ingrid", "Mohamed", "Svetlana")) if is_name else rng.choice(WORDS)
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
