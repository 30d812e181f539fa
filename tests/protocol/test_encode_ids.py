import threading
import time

from api.protocol.prompt.encode_ids import encode_ids
from bench.byte_level import byte_level_bpe

TOKENIZER = byte_level_bpe(["The quick brown fox jumps over the lazy dog."] * 8, 300, ["<|end|>"])


def test_short_and_long_texts_become_the_ids_of_the_tokenizer() -> None:
    for text in ("", "The quick <|end|> fox.", "The quick <|end|> fox, Grüße. " * 500):
        expected = TOKENIZER.encode(text, add_special_tokens=False).ids
        assert encode_ids(TOKENIZER, text, add_special_tokens=False) == expected


def test_other_threads_run_while_a_long_text_is_encoded() -> None:
    is_encoding, is_over = threading.Event(), threading.Event()
    num_turns = 0

    def run_beside() -> None:
        nonlocal num_turns
        while not is_over.is_set():
            num_turns += is_encoding.is_set()
            time.sleep(0)  # gives up the interpreter lock, which is what `encode` must do as well

    thread = threading.Thread(target=run_beside)
    thread.start()
    is_encoding.set()
    encode_ids(TOKENIZER, "The quick brown fox. " * 20_000, add_special_tokens=False)
    is_encoding.clear()
    is_over.set()
    thread.join()

    # One turn may fall on each side of the call.
    assert num_turns > 10
