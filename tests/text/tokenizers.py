"""Small tokenizers of the three families: byte-level BPE, BPE that falls back to bytes, and WordPiece."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from bench.byte_level import byte_level_bpe

CORPUS = [
    "The quick brown fox jumps over the lazy dog. Don't you think it's fine? 12 + 34 = 46!",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. Ça va très bien, merci.",
    "你好，世界。今天天气很好。 こんにちは世界。 안녕하세요 세계. Привет, мир!",
    "🙂 👩‍👩‍👧‍👦 🇩🇪 e\u0301 — “quotes” …\n\n\tdef f(x):\n    return x ** 2\n",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_end|>"]


def byte_level(vocab_size: int = 400) -> Tokenizer:
    """Tokens are bytes, as in GPT-2, Llama 3 and Qwen."""
    return byte_level_bpe(CORPUS, vocab_size, SPECIAL)


def byte_fallback() -> Tokenizer:
    """Tokens are characters with bytes for rare ones, and the text begins with a space that is taken off again, as in
    Llama 2 and Mistral.
    """
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    pieces = ["▁", *"abcdefghijklmnopqrstuvwxyzTD.,!", "▁t", "he", "▁the", "qu", "ick"]
    vocabulary = {piece: place for place, piece in enumerate([*SPECIAL, *bytes_, *pieces])}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("q", "u")]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def word_piece() -> Tokenizer:
    """Tokens are words and their parts, as in BERT; spaces are not in the tokens."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer
