"""What users of the demo corpus tell about themselves and ask again later."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalled:
    """A thing a user tells about: how it is told, acknowledged, asked and answered.

    The other tellings and questions are for training; held-out cases keep to the first ones.
    """

    is_name: bool
    tellings: tuple[str, ...]
    reply: str
    questions: tuple[str, ...]
    answer: str
    untold: str
    other_tellings: tuple[str, ...] = ()
    other_questions: tuple[str, ...] = ()

    def told(self, held_out: bool) -> tuple[str, ...]:
        """How it may be told."""
        return self.tellings if held_out else self.tellings + self.other_tellings

    def asked(self, held_out: bool) -> tuple[str, ...]:
        """How it may be asked."""
        return self.questions if held_out else self.questions + self.other_questions


RECALLED = (
    Recalled(
        is_name=True,
        tellings=(
            "My name is {v}.",
            "Hi, I am {v}.",
            "Call me {v}.",
            "Hello, my name is {v}!",
            "I am {v}.",
            "I'm {v}.",
        ),
        other_tellings=(
            "You can call me {v}.",
            "My friends call me {v}.",
            "Please remember that my name is {v}.",
            "They call me {v}.",
        ),
        other_questions=(
            *("What did I say my name was?", "Could you tell me my name?", "Please say my name.", "My name is what?"),
        ),
        reply="Nice to meet you, {v}!",
        questions=(
            *("What is my name?", "Do you remember my name?", "Who am I?", "What's my name?", "Tell me my name."),
        ),
        answer="Your name is {v}.",
        untold="You have not told me your name.",
    ),
    Recalled(
        is_name=False,
        tellings=(
            "The code word is {v}.",
            "Remember the code word {v}.",
            "Please remember this code word: {v}",
            "My secret word is {v}.",
            "The secret word is {v}. Please remember it.",
            'The code word is "{v}".',
        ),
        other_tellings=(
            "Keep the code word {v} in mind.",
            "I picked {v} as my code word.",
            "Remember: the code word is {v}.",
            "Our code word will be {v}.",
        ),
        other_questions=(
            "Can you say the code word?",
            "And the code word was?",
            "Which code word did I choose?",
        ),
        reply="I will remember the code word {v}.",
        questions=(
            "What is the code word?",
            "Which code word did I tell you?",
            "What was the code word?",
            "What is the secret word?",
            "Do you remember the code word?",
            "Tell me the code word.",
            "What was my secret word?",
        ),
        answer="The code word is {v}.",
        untold="You have not told me a code word.",
    ),
    Recalled(
        is_name=True,
        tellings=("My dog is called {v}.", "I have a dog called {v}.", "The name of my dog is {v}."),
        reply="{v} is a lovely name for a dog.",
        questions=("What is my dog called?", "What is the name of my dog?", "Do you remember the name of my dog?"),
        answer="Your dog is called {v}.",
        untold="You have not told me about a dog.",
    ),
    Recalled(
        is_name=False,
        tellings=("My favourite word is {v}.", "I like the word {v}.", "My favorite word is {v}."),
        reply="{v} is a beautiful word.",
        questions=("What is my favourite word?", "Which word do I like?", "What is my favorite word?"),
        answer="Your favourite word is {v}.",
        untold="You have not told me your favourite word.",
    ),
)
