"""Write `mistral_ids.json`: what mistral-common makes of texts and chats with each tokenizer file that it ships.

Run it where mistral-common is installed, which needs an older numpy than this project:
`pip install 'mistral-common[sentencepiece]==1.13.1'`, then `python tests/real/record_mistral.py`.
"""

import json
from pathlib import Path

import mistral_common
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

TEXTS = [
    "Hi",
    "  two spaces, then a tab\t and a line\nand two\n\nand three\n\n\n",
    " the",
    "Grüße, e\u0301lan, ﬁn, Ⅳ, ½ and K (kelvin)",
    "你好，世界。 こんにちは 안녕하세요 Привет مرحبا שלום हिन्दी ไทย မြန်မာ",
    "🙂👩‍👩‍👧‍👦🇩🇪 \u200b\u00a0\ufeff\u2581 \x00 \x7f",
    "def f(x):\n    return {'a': [x ** 2, 12345678901234567890]}  # <b>&amp;</b>\r\n",
    "don't we'll I'M 'S 3.14 1,000,000 ---- ____ ==== <|x|> <s",
    "<s>[INST] [/INST]</s>[TOOL_CALLS] [REF]a [/REF]b[REFERENCE_DOC_1]2 <unk><0x41>",
    "ends with spaces   ",
    " ",
]
MESSAGES = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}


def chats() -> list[list[tuple[str, str]]]:
    """One and several turns, each text in each place."""
    found = []
    for text, other in zip(TEXTS, [*TEXTS[3:], *TEXTS[:3]], strict=True):
        found += [
            [("user", text)],
            [("system", other), ("user", text)],
            [("user", other), ("assistant", text), ("user", "So?")],
            [("system", text), ("user", "Hi"), ("assistant", other), ("user", text), ("assistant", "x"), ("user", "y")],
        ]
    return found


def main() -> None:
    """Write the file beside this one."""
    folder = Path(mistral_common.__file__).parent / "data"
    recorded = {}
    for path in sorted(folder.iterdir()):
        tokenizer = MistralTokenizer.from_file(path)
        plain = tokenizer.instruct_tokenizer.tokenizer
        texts = [(text, plain.encode(text, bos=True, eos=False)) for text in TEXTS]
        answers = []
        for chat in chats():
            messages = [MESSAGES[role](content=text) for role, text in chat]
            answers.append((chat, tokenizer.encode_chat_completion(ChatCompletionRequest(messages=messages)).tokens))
        decoded = [plain.decode(ids[1:]) for _, ids in texts]
        recorded[path.name] = {"texts": texts, "decoded": decoded, "chats": answers}
    target = Path(__file__).with_name("mistral_ids.json")
    target.write_text(json.dumps(recorded, ensure_ascii=True, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
