"""How far the weights of a model are loaded."""

from pathlib import Path

import torch

from workers.model import files, progress
from workers.model.source import BUNDLED_FOLDER


def test_every_tensor_is_reported_up_to_all_of_them(tmp_path: Path) -> None:
    reported: list[tuple[str, int, int]] = []
    path = tmp_path / "progress"

    files.read(str(BUNDLED_FOLDER), torch.float32, torch.device("cpu"), lambda *counts: reported.append(counts))
    files.read(str(BUNDLED_FOLDER), torch.float32, torch.device("cpu"), progress.write_to(path))

    total = reported[0][2]
    assert total > 60
    assert reported == [("loading", done, total) for done in range(total + 1)]
    assert path.read_text() == f"loading {total} {total}"
