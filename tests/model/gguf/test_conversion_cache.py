"""Each GGUF file is converted once for a precision; a conversion that ends half-way leaves nothing that is used."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import torch

from storage.errors import ModelFilesMissing
from tests.model.gguf.files import make_gguf
from workers.model.gguf.conversion_cache import converted_folder
from workers.model.gguf.conversion_source import ConversionSource
from workers.model.progress import Phase


class Conversions:
    """Counts conversions by their first report."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, phase: Phase, done: int, total: int) -> None:
        self.count += (phase, done) == (Phase.CONVERTING, 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A GGUF file."""
    return make_gguf(tmp_path)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache, whose folder is not there yet."""
    return tmp_path / "models" / "converted"


def test_a_file_is_converted_once_for_a_precision(path: Path, cache: Path) -> None:
    conversions = Conversions()

    folders = [converted_folder(path, dtype, cache, conversions) for dtype in 2 * [torch.float32, torch.bfloat16]]

    assert conversions.count == 2
    assert folders[0] == folders[2] != folders[1] == folders[3]
    assert folders[0].name.startswith("model-")
    source = ConversionSource.read(folders[0])
    assert source is not None
    assert (source.path, source.size_bytes, source.dtype) == (str(path), path.stat().st_size, "float32")
    assert {"config.json", "generation_config.json", "model.safetensors", "source.json", "tokenizer.json"} <= {
        file.name for file in folders[0].iterdir()
    }


def test_a_file_that_was_touched_or_copied_is_not_converted_again(path: Path, cache: Path, tmp_path: Path) -> None:
    conversions = Conversions()
    folder = converted_folder(path, torch.float32, cache, conversions)

    os.utime(path, ns=(1, 1))
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(path.read_bytes())

    assert converted_folder(path, torch.float32, cache, conversions) == folder
    assert converted_folder(copy, torch.float32, cache, conversions) == folder
    assert conversions.count == 1


def test_another_file_under_the_same_name_is_converted(path: Path, cache: Path, tmp_path: Path) -> None:
    conversions = Conversions()
    before = converted_folder(path, torch.float32, cache, conversions)

    (tmp_path / "other").mkdir()
    make_gguf(tmp_path / "other", "qwen2").replace(path)

    assert converted_folder(path, torch.float32, cache, conversions) != before
    assert conversions.count == 2


def test_two_workers_at_once_convert_once(path: Path, cache: Path) -> None:
    conversions, folders = Conversions(), set[Path]()

    def convert() -> None:
        folders.add(converted_folder(path, torch.float32, cache, conversions))

    threads = [threading.Thread(target=convert) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(folders) == conversions.count == 1


def test_a_file_that_changes_while_it_is_read_is_refused(path: Path, cache: Path) -> None:
    def touch(phase: Phase, done: int, total: int) -> None:
        os.utime(path, ns=(1, 1))

    with pytest.raises(ModelFilesMissing, match="while it was read"):
        converted_folder(path, torch.float32, cache, touch)


def test_a_killed_conversion_leaves_nothing_that_is_used(path: Path, cache: Path) -> None:
    code = f"""
        import os, signal, sys
        from pathlib import Path
        import torch
        from workers.model.gguf.conversion_cache import converted_folder

        def kill(phase, done, total):
            if done == 5:
                os.kill(os.getpid(), signal.SIGKILL)

        converted_folder(Path({str(path)!r}), torch.float32, Path({str(cache)!r}), kill)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert killed.returncode == -signal.SIGKILL
    left = [file.name for file in cache.iterdir() if file.is_dir()]
    assert len(left) == 1
    assert left[0].startswith(".")

    conversions = Conversions()
    folder = converted_folder(path, torch.float32, cache, conversions)

    assert conversions.count == 1
    assert [file for file in cache.iterdir() if file.is_dir()] == [folder]
