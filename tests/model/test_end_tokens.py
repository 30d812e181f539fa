"""End tokens are united from every source that names one."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from tests.model.conftest import TORCH_LIMITS
from tests.model.tiny import END_OF_TURN, make_tiny
from workers.model.end_tokens import end_of_turn_id
from workers.model.load import load

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def test_an_answer_ends_where_the_template_ends_a_turn_whatever_the_generation_config_says(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "finetune", eos_token_id=2)

    loaded = load(str(folder), device="cpu", limits=TORCH_LIMITS)

    assert loaded.limits.eos_token_ids == {2, END_OF_TURN}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, "<|im_end|>"),
        ("{% for m in messages %}{{ m.content }}\n<s>{% endfor %}", "<s>"),
        ("{% for m in messages %}[{{ m.content }}]{% endfor %}", None),
        ("{{ raise_exception('no') }}", None),
        ("{% for m in messages %}{{ m.role }}{% endfor %}", None),
        (None, None),
    ],
)
def test_the_end_of_turn_is_what_the_template_writes_after_an_answer(
    template: str | None, expected: str | None, tiny_folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = template

    found = end_of_turn_id(tokenizer)

    assert found == (None if expected is None else tokenizer.convert_tokens_to_ids(expected))
