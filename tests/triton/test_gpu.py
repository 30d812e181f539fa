"""The same cases as in the interpreter, compiled, on a GPU."""

from importlib import import_module
from importlib.util import find_spec

import pytest
import torch

from tests.triton.test_interpreted import KINDS

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(find_spec("triton") is None or not torch.cuda.is_available(), reason="no NVIDIA GPU"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_agrees_with_the_plain_reference_on_a_gpu(kind: str) -> None:
    # Imported here: its import chooses between compiler and interpreter, and no other test wants either.
    cases = import_module("tests.triton.cases")

    cases.main(kind, "cuda")
