"""Every recipe that comes with the package takes a step on a cache that has what it needs."""

from pathlib import Path

import pytest

from tests.trainer.runs import history, overrides, run_cli
from trainer.settings import load_settings, recipes

LOSSES = {
    "cns": {"image", "cloud", "image_sam", "cloud_sam"},
    "cns-latent-sam-clip": {"image", "cloud", "image_sam", "cloud_sam", "image_clip", "cloud_clip"},
    "maskclip++": {"image", "cloud"},
    "openscene": {"image_distillation", "cloud_distillation"},
    "openscene-original": {"cloud_distillation"},
    "affinity3d": {"image", "cloud", "cloud_kl"},
    "clip2scene": {"image", "cloud", "cloud_consistency"},
    "clip2scene-original": {"cloud", "cloud_consistency"},
    "clip2scene-rooms": {"image", "cloud", "image_clip", "cloud_clip"},
    "clip2scene-rooms-original": {"cloud", "cloud_clip"},
}
"""The losses of some recipes."""


@pytest.mark.parametrize("recipe", recipes())
def test_every_recipe_takes_a_step(rich_toy: str, tmp_path: Path, recipe: str) -> None:
    shrink = ["networks.cloud=small", "stream.batch_samples=8", "optimiser.epochs=1", "schedule.stage2_epoch=0"]
    if load_settings("demo", recipe).networks.image != "none":
        shrink.append("networks.image=small")
    run_cli("fit", rich_toy, "--recipe", recipe, "--out", tmp_path / "run", *overrides(*shrink))
    (row,) = history(tmp_path / "run")
    found = set(row) - {"step", "epoch", "loss", "image_source", "cloud_source"}
    assert found == LOSSES.get(recipe, found)
    assert row["loss"] == pytest.approx(sum(row[name] for name in found))


def test_a_recipe_says_what_the_cache_lacks(toy: str, tmp_path: Path) -> None:
    for recipe, remedy in (
        ("openscene", "clip.store_features=true"),
        ("clip2scene", "sweeps.count=10"),
        ("affinity3d", "instances.enabled=true"),
    ):
        done = run_cli("fit", toy, "--recipe", recipe, "--out", tmp_path / recipe, *overrides(), exit_code=1)
        assert remedy in done.stderr
