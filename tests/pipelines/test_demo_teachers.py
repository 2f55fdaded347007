"""The scripts that train the demo's teachers: a few steps of each, from rendering to weights that the teacher loads."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from labelgen.settings import ClipSettings, SamSettings
from labelgen.teachers.checkpoints import state_digest
from labelgen.teachers.clip import ClipTeacher
from labelgen.teachers.sam import SamTeacher

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the training pictures of both scripts are."""
    return tmp_path_factory.mktemp("views")


@pytest.mark.parametrize(
    "name, teacher, settings",
    [
        ("clip", ClipTeacher, ClipSettings(architecture="demo-vit-16", weights="untrained:0")),
        ("sam", SamTeacher, SamSettings(architecture="demo", weights="untrained:0")),
    ],
)
def test_a_script_trains_weights_that_its_teacher_loads(
    views: Path, tmp_path: Path, name: str, teacher: type, settings: ClipSettings | SamSettings
) -> None:
    file = tmp_path / f"{name}.safetensors"
    arguments = ["--views", str(views), "--scenes", "1", "--effort", "0.0005", "--out", str(file)]
    module = f"pipelines.demo.teachers.train_{name}"
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "step 2: loss" in done.stdout
    trained = teacher(settings.model_copy(update={"weights": str(file)}))
    assert state_digest(trained.model) != state_digest(teacher(settings).model)
    assert all(np.isfinite(tensor.numpy()).all() for tensor in trained.model.state_dict().values())
