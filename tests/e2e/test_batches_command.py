"""`tokenpost batches` against a whole platform."""

import json
import os
from pathlib import Path

from typer.testing import CliRunner

from api.cli.main import app
from tests.e2e.platform import Platform, bare_environment


def test_a_file_becomes_a_batch_whose_results_are_fetched(platform: Platform, tmp_path: Path) -> None:
    lines = [
        {
            "custom_id": f"request-{number}",
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "demo", "prompt": f"{number}", "max_tokens": max_tokens},
        }
        for number, max_tokens in enumerate([4, 4, 4, -1])
    ]
    path, output, errors = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "err.jsonl"))
    path.write_text("\n".join(map(json.dumps, lines)))

    batch = platform.command("batches", "create", str(path), "--watch")

    assert (batch["endpoint"], batch["status"]) == ("/v1/completions", "completed")
    assert batch["request_counts"] == {"total": 4, "completed": 3, "failed": 1}
    assert platform.command("batches", "list")[0]["id"] == batch["id"]
    left_out = dict.fromkeys(os.environ.keys() - bare_environment().keys())
    arguments = ["batches", "results", batch["id"], "--output", str(output), "--errors", str(errors)]
    done = CliRunner().invoke(app, [*arguments, "--home", str(platform.home)], env=left_out)
    assert done.exit_code == 0, (done.output, done.exception)
    results = [json.loads(line) for line in output.read_text().splitlines()]
    assert sorted(one["custom_id"] for one in results) == ["request-0", "request-1", "request-2"]
    assert json.loads(errors.read_text())["response"]["status_code"] == 400
