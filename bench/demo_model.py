"""How exact the demo model is on held-out prompts of each skill: `python -m bench.demo_model [--unseen-wordings]`.

Loads the model folder in float32 and generates greedily with transformers.
"""

import argparse
import time
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase, Qwen3ForCausalLM

from demo import unseen_wordings
from demo.dialog import Dialog
from demo.evaluation import (
    OTHER_SKILLS,
    REQUIRED_SKILLS,
    STRUCTURED_SKILLS,
    Reply,
    Score,
    draw_cases,
    draw_unseen_wordings,
    evaluate,
)

MODEL_FOLDER = Path(__file__).parents[1] / "workers" / "model" / "demo"


def load(folder: Path) -> tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase]:
    """The model in float32 and its tokenizer, padding on the left."""
    model = Qwen3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder, padding_side="left")


def replier(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase) -> Reply:
    """Greedy answers of transformers, a whole batch at once."""

    def reply(dialogs: list[Dialog], max_tokens: int) -> list[str]:
        prompts = [dialog.prompt() for dialog in dialogs]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(  # type: ignore[misc]  # transformers types `self` as a protocol
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=max_tokens,
                do_sample=False,
            )
        return tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return reply


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FOLDER)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--misses", type=int, default=0, help="wrong replies to show per skill")
    parser.add_argument("--skills", nargs="*", default=None)
    parser.add_argument("--unseen-wordings", action="store_true", help="wordings that the generator does not have")
    arguments = parser.parse_args()
    old_skills = unseen_wordings.SKILLS if arguments.unseen_wordings else (*REQUIRED_SKILLS, *OTHER_SKILLS)
    all_skills = (*old_skills, *STRUCTURED_SKILLS)
    sample = draw_unseen_wordings if arguments.unseen_wordings else draw_cases
    torch.set_num_threads(arguments.threads)
    model, tokenizer = load(arguments.model)
    print("| skill | cases | exact | seconds |\n| --- | --- | --- | --- |")
    reply = replier(model, tokenizer)
    for skill in arguments.skills or all_skills:
        started = time.perf_counter()
        cases = sample(skill, arguments.cases)
        score = evaluate(skill, cases, reply, lambda text: len(tokenizer.tokenize(text)))
        print(f"| {skill} | {score.num_cases} | {score.share:.1%} | {time.perf_counter() - started:.0f} |", flush=True)
        _show(score, arguments.misses)


def _show(score: Score, num_shown: int) -> None:
    for case, text in score.misses[:num_shown]:
        print(f"  asked {case.dialog.messages[-1].content!r}: {text!r} and not {case.answer!r}")


if __name__ == "__main__":
    main()
