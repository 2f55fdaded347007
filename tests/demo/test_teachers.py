"""The scripts that train the demo's teachers: a few steps of each, from rendering to weights that a teacher loads."""

import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from demo.teachers import loop
from labelgen.settings import ClipSettings, SamSettings
from labelgen.teachers.checkpoints import state_digest
from labelgen.teachers.clip.teacher import ClipTeacher
from labelgen.teachers.sam.teacher import SamTeacher
from labelgen.weights import OPENAI_MEAN, OPENAI_STD
from trainer.networks.image import build_image_network

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the training pictures, shared by all scripts."""
    return tmp_path_factory.mktemp("views")


def run_script(name: str, views: Path, file: Path, effort: float = 0.0005) -> str:
    """Run a training script for a few steps, check its exit code, and return what it printed."""
    arguments = ["--views", str(views), "--scenes", "1", "--effort", str(effort), "--out", str(file)]
    module = f"demo.teachers.train_{name}"
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(views: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of both teachers, a few steps old."""
    files = {name: tmp_path_factory.mktemp(name) / f"{name}.safetensors" for name in ("clip", "sam")}
    for name, file in files.items():
        assert "step 2 of 2: loss" in run_script(name, views, file)
    return files


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, teacher, settings",
    [
        (
            "clip",
            ClipTeacher,
            ClipSettings(architecture="demo-vit-16", weights="untrained:0", mean=OPENAI_MEAN, std=OPENAI_STD),
        ),
        ("sam", SamTeacher, SamSettings(architecture="demo", weights="untrained:0")),
    ],
)
def test_a_script_trains_weights_that_its_teacher_loads(
    trained: dict[str, Path], name: str, teacher: type, settings: ClipSettings | SamSettings
) -> None:
    loaded = teacher(settings.model_copy(update={"weights": str(trained[name])}))
    assert state_digest(loaded.model) != state_digest(teacher(settings).model)
    assert all(np.isfinite(tensor.numpy()).all() for tensor in loaded.model.state_dict().values())


@pytest.mark.slow
def test_a_training_whose_warm_up_would_be_a_single_step_runs(views: Path, tmp_path: Path) -> None:
    assert "step 20 of 20: loss" in run_script("clip", views, tmp_path / "clip.safetensors", effort=0.004)


@pytest.mark.slow
def test_a_script_trains_a_backbone_that_the_trainer_loads(views: Path, tmp_path: Path) -> None:
    file = tmp_path / "backbone.safetensors"
    assert "step 2 of 2: loss" in run_script("backbone", views, file)
    torch.manual_seed(0)
    before = build_image_network("small", None).body.state_dict()
    after = build_image_network("small", file).body.state_dict()
    assert all(tensor.isfinite().all() for tensor in after.values())
    assert any(not torch.equal(before[name].half(), after[name].half()) for name in before)


@pytest.mark.slow
def test_a_stopped_training_resumes_after_its_last_stage(views: Path, trained: dict[str, Path]) -> None:
    file = trained["sam"]
    whole = file.read_bytes()
    file.unlink()
    file.with_name("sam-full-size.safetensors").unlink()
    printed = run_script("sam", views, file)
    kept = [
        stage for stage in ("encoder", "prompts", "full-size") if f"sam-{stage}.safetensors is up to date" in printed
    ]
    assert kept == ["encoder", "prompts"]
    assert file.read_bytes() == whole


@pytest.mark.slow
def test_a_stage_is_trained_again_if_one_before_it_was(views: Path, trained: dict[str, Path]) -> None:
    printed = run_script("sam", views, trained["sam"], effort=0.0007)
    assert "step 3 of 3: loss" in printed, "the encoder takes more steps than before"
    assert printed.count("step 2 of 2: loss") == 3, "the other stages take as many as before"
    assert "is up to date" not in printed


def test_a_training_stopped_within_a_stage_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "LOG_STEPS", 4)
    whole, stopped = (Namespace(out=tmp_path / f"{name}.safetensors", effort=1, scenes=1) for name in ("a", "b"))
    fit_line(whole)
    with pytest.raises(KeyboardInterrupt):
        fit_line(stopped, stop_at=11)
    assert not stopped.out.exists()
    capsys.readouterr()
    fit_line(stopped)
    printed = capsys.readouterr().out
    assert "resuming after step 8" in printed
    assert "step 4 of 20" not in printed
    assert "step 20 of 20" in printed
    assert stopped.out.read_bytes() == whole.out.read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_a_checkpoint_of_other_weights_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOG_STEPS", 4)
    whole, stopped = (Namespace(out=tmp_path / f"{name}.safetensors", effort=1, scenes=1) for name in ("a", "b"))
    fit_line(whole, start=1)
    with pytest.raises(KeyboardInterrupt):
        fit_line(stopped, stop_at=11, start=2)
    fit_line(stopped, start=1)
    assert stopped.out.read_bytes() == whole.out.read_bytes()


def fit_line(args: Namespace, stop_at: int = 0, start: int = 0) -> None:
    """Fit a linear layer, started from the seed `start`, to twenty random draws, or stop before step `stop_at`."""
    torch.manual_seed(start)
    model, rng, taken = torch.nn.Linear(3, 1), np.random.default_rng(5), 0

    def step() -> tuple[torch.Tensor, float]:
        nonlocal taken
        taken += 1
        if taken == stop_at:
            raise KeyboardInterrupt
        inputs = torch.from_numpy(rng.standard_normal((4, 3), np.float32))
        loss = (model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean()
        return loss, loss.item()

    loop.train(model, step, "error", 20, rng, args)
