"""How byte-level tokenizers split text before they merge, by the name that a GGUF file gives (`tokenizer.ggml.pre`).

Source: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-vocab.cpp and the tokenizer.json of the models
"""

from dataclasses import dataclass

from tokenizers import Regex, pre_tokenizers

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT4O = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRule:
    """What the name of a pre-tokenizer stands for.

    pattern:               pieces of text; None is GPT-2's
    has_single_digits:     whether each digit is a piece of its own before that
    is_normalized:         whether text is brought into Unicode's form C
    keeps_whole_words:     whether a piece that is a token is not merged of parts (`ignore_merges`)
    adds_bos:              whether a prompt begins with the first token where the file does not say
    """

    pattern: str | None = None
    has_single_digits: bool = False
    is_normalized: bool = False
    keeps_whole_words: bool = False
    adds_bos: bool = False

    def pre_tokenizer(self) -> pre_tokenizers.PreTokenizer:
        """The pre-tokenizer of a byte-level tokenizer."""
        parts: list[pre_tokenizers.PreTokenizer] = []
        if self.has_single_digits:
            parts.append(pre_tokenizers.Digits(individual_digits=True))
        if self.pattern is not None:
            parts.append(pre_tokenizers.Split(Regex(self.pattern), behavior="isolated"))
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=self.pattern is None))
        return pre_tokenizers.Sequence(parts)


_GPT2_RULE = SplitRule()
_DIGITS_RULE = SplitRule(has_single_digits=True)
_LLAMA3_RULE = SplitRule(pattern=_LLAMA3, keeps_whole_words=True, adds_bos=True)
_QWEN2_RULE = SplitRule(pattern=_QWEN2)

RULE_BY_NAME = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt"), _GPT2_RULE),
    **dict.fromkeys(("smollm", "starcoder", "refact", "codeshell", "minerva-7b"), _DIGITS_RULE),
    **dict.fromkeys(("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "midm-2.0"), _LLAMA3_RULE),
    **dict.fromkeys(("dbrx", "smaug-bpe"), SplitRule(pattern=_LLAMA3)),
    "qwen2": SplitRule(pattern=_QWEN2, is_normalized=True),
    **dict.fromkeys(("deepseek-r1-qwen", "stablelm2", "megrez", "kormo"), _QWEN2_RULE),
    "tekken": SplitRule(pattern=_TEKKEN, keeps_whole_words=True, adds_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2"), SplitRule(pattern=_GPT4O)),
}
