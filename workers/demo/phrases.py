"""What the demo model says and how people ask for it: the closed tables of the corpus."""

GREETING = "Hello! How can I help you?"
ABILITIES = "I can count, spell, reverse words, add, subtract, repeat, remember and tell stories."
IDENTITY = f"I am the small demo model of Tokenpost. {ABILITIES}"
FALLBACK = f"I am only the small demo model of Tokenpost and do not know that. {ABILITIES}"

GREETINGS = {
    GREETING: (
        "Hello",
        "Hi",
        "Hey",
        "Good morning",
        "Good evening",
        "Good afternoon",
        "Greetings",
        "Hello there",
        "Hi there",
        "Hey there",
        "Nice to meet you",
        "Good day",
    ),
    "I am fine, thank you. How can I help you?": ("How are you", "How are you today", "How do you do", "How is it going"),
    "You are welcome!": ("Thank you", "Thanks", "Thanks a lot", "Thank you very much", "Many thanks"),
    "Goodbye!": ("Bye", "Goodbye", "See you", "Good night", "See you later"),
}
IDENTITY_QUESTIONS = {
    IDENTITY: (
        "who are you?",
        "what are you?",
        "tell me about yourself.",
        "what is your name?",
        "introduce yourself.",
        "what is your purpose?",
        "which model are you?",
        "what should I call you?",
        "what kind of model are you?",
        "who am I talking to?",
    ),
    ABILITIES: (
        "what can you do?",
        "what are you able to do?",
        "what do you know?",
        "how can you help me?",
        "which skills do you have?",
        "what are you good at?",
    ),
    "No, I am the small demo model of Tokenpost.": (
        "are you a human?",
        "are you a person?",
        "are you human?",
        "are you ChatGPT?",
        "are you a large model?",
        "are you a real person?",
    ),
    "I was made by a script of Tokenpost, from text that it wrote itself.": (
        "who made you?",
        "who created you?",
        "how were you made?",
        "where do you come from?",
        "how were you trained?",
        "who built you?",
    ),
    "Tokenpost is a platform that runs language models behind a job queue.": (
        "what is Tokenpost?",
        "tell me about Tokenpost.",
        "what does Tokenpost do?",
        "explain Tokenpost.",
    ),
}
OPENERS = (
    "",
    "Please tell me: ",
    "Excuse me, ",
    "Hello! ",
    "Hi, ",
    "Quick question: ",
    "One question: ",
    "Now ",
    "I wonder, ",
    "Hey, ",
)

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
FACT_QUESTIONS = {
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

COUNT_PROMPTS = (
    "Count from {a} to {b}.",
    "Please count from {a} to {b}.",
    "Can you count from {a} to {b}?",
    "Count up from {a} to {b}.",
    "Count {a} to {b}.",
    "List the numbers from {a} to {b}.",
    "Write the numbers from {a} to {b}.",
)
COUNT_DOWN_PROMPTS = (
    "Count from {a} to {b}.",
    "Count down from {a} to {b}.",
    "Please count down from {a} to {b}.",
    "Count backwards from {a} to {b}.",
)
ADD_PROMPTS = (
    "What is {a} + {b}?",
    "{a} + {b}",
    "{a}+{b}",
    "{a} + {b} = ?",
    "What is {a}+{b}?",
    "What is {a} plus {b}?",
    "Add {a} and {b}.",
    "{a} plus {b}",
    "How much is {a} + {b}?",
    "Calculate {a} + {b}.",
    "What is the sum of {a} and {b}?",
)
SUBTRACT_PROMPTS = (
    "What is {a} - {b}?",
    "{a} - {b}",
    "{a}-{b}",
    "{a} - {b} = ?",
    "What is {a}-{b}?",
    "What is {a} minus {b}?",
    "Subtract {b} from {a}.",
    "{a} minus {b}",
    "How much is {a} - {b}?",
    "Calculate {a} - {b}.",
    "Take {b} away from {a}.",
)
SPELL_PROMPTS = (
    "Spell the word {w}.",
    "Spell {w}.",
    "How do you spell {w}?",
    "Please spell {w}.",
    'Spell "{w}".',
    "Can you spell {w}?",
    "Spell the word: {w}",
    "Spell {w} letter by letter.",
)
REVERSE_PROMPTS = (
    "Reverse the word {w}.",
    "Reverse {w}.",
    "Write {w} backwards.",
    "Spell {w} backwards.",
    'Reverse "{w}".',
    "Please reverse the word {w}.",
    "Can you reverse {w}?",
    "What is {w} backwards?",
    "Reverse the word: {w}",
)
REPEAT_PROMPTS = (
    "Repeat after me: {s}",
    "Say exactly this: {s}",
    "Repeat this sentence: {s}",
    "Repeat: {s}",
    "Please repeat: {s}",
    'Repeat "{s}"',
    "Say: {s}",
    "Repeat the following: {s}",
    "Echo: {s}",
)
STORY_PROMPTS = (
    "Tell me a story about {x}.",
    "Write a story about {x}.",
    "Tell me a long story about {x}.",
    "Please tell me a story about {x}.",
    "Can you tell me a story about {x}?",
    "I want to hear a story about {x}.",
    "Write a long story about {x}.",
)
FREE_STORY_PROMPTS = (
    "Tell me a story.",
    "Write a story.",
    "Tell me a long story.",
    "Please tell me a story.",
    "Can you tell me a story?",
    "I want to hear a story.",
    "Write a long story.",
    "Tell me a bedtime story.",
)

REPEAT_SUBJECTS = (
    "The old man|A young girl|The quiet woman|My neighbour|The little boy|A tired driver|The brave child|An honest friend|"
    "My sister|The tall guest|Our teacher|{n}|The {w}|A {w}"
).split("|")
REPEAT_VERBS = "walked to|looked at|dreamed of|painted|searched for|found|talked about|remembered|sold|likes".split("|")
REPEAT_OBJECTS = (
    "the river|a red door|the empty street|an old house|the green hill|a small boat|the bright star|a lost dog|{n}|the {w}|"
    "a {w}|{w}"
).split("|")
REPEAT_ENDINGS = (
    "before sunrise|in the rain|with a smile|for a long time|without a word|after dinner|in the cold|every evening|"
    "with {n}|near the {w}|at {d} o'clock|{d} times"
).split("|")
