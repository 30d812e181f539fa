"""llama.cpp's converter, with the bench tokenizer's way to split text; runs in llama.cpp's environment.

python -m bench.llama_convert SCRIPT MODEL --outfile FILE --outtype f32|bf16

The converter knows tokenizers by a hash of what they do, and refuses the bench's, which splits as GPT-2's does.
"""

import runpy
import sys
from pathlib import Path


def main() -> None:
    """Convert."""
    script = sys.argv[1]
    sys.argv = sys.argv[1:]
    sys.path.insert(0, str(Path(script).parent))
    from conversion.base import TextModel  # noqa: PLC0415 - found beside the script only

    TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
