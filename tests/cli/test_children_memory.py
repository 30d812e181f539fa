"""What a child of the command keeps of torch's own caches."""

import subprocess
import sys

import pytest

from api.cli.settings import inherited_environment

# Matrix products of 500 shapes, as steps with 1 to 500 tokens have; tells how many MiB more are held then.
_PRODUCTS = """
import psutil, torch
torch.set_num_threads(1)
weight = torch.ops.mkldnn._reorder_linear_weight(torch.randn(64, 64), 32)
def multiply(num_tokens):
    torch.ops.mkldnn._linear_pointwise(torch.zeros(num_tokens, 64), weight, None, "none", [], "")
multiply(1)
before = psutil.Process().memory_info().rss
for num_tokens in range(1, 500):
    multiply(num_tokens)
print((psutil.Process().memory_info().rss - before) >> 20)
"""
_MAX_GROWN_MIB = 100


def test_a_child_does_not_keep_a_kernel_for_every_shape() -> None:
    command = [sys.executable, "-c", _PRODUCTS]

    done = subprocess.run(command, env=inherited_environment(), capture_output=True, text=True, check=True)

    assert int(done.stdout) < _MAX_GROWN_MIB


def test_who_names_a_cache_has_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)

    environment = inherited_environment()

    assert (environment["LRU_CACHE_CAPACITY"], environment["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) == ("7", "64")
