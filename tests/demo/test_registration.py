"""What the demo registers with the other packages is found under its name, and works."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cache_schemas.errors import ConfigError
from cache_schemas.extensions import registered
from demo.adapter import Demo
from demo.registration import IMAGE_WEIGHTS
from labelgen.datasets import find_dataset
from labelgen.datasets.nuscenes.adapter import NuScenes
from labelgen.samples import Scene
from labelgen.weights import ShippedWeights, fetch, known_weights, verified
from pipelines.config import load_config
from trainer.errors import TrainerError
from trainer.networks.image import build_image_network
from trainer.settings import load_settings


def test_the_adapter_is_found_by_name_and_an_unknown_name_lists_all() -> None:
    assert find_dataset("demo").adapter is Demo
    with pytest.raises(ConfigError, match=r"no dataset 'dmeo'; choose demo, .*nuscenes"):
        find_dataset("dmeo")


def test_settings_are_found_by_name_and_an_unknown_name_lists_all() -> None:
    config = load_config("demo")
    assert (config.dataset, config.teachers, config.clip.weights) == ("demo", "demo", "demo-clip")
    assert load_settings("demo").networks.image_weights == Path("demo-small")
    with pytest.raises(ConfigError, match=r"no teachers preset 'dmeo'; choose demo, paper, untrained"):
        load_config("nuscenes", teachers="dmeo")
    with pytest.raises(ConfigError, match=r"'dmeo'; choose demo, files, nuscenes"):
        load_settings("dmeo")


@pytest.mark.parametrize("name", ["demo-clip", "demo-sam"])
def test_teacher_weights_are_the_registered_bytes_with_a_model_card(name: str) -> None:
    path, sha256 = verified(name)
    weights = known_weights()[name]
    assert isinstance(weights, ShippedWeights)
    assert (path.name, sha256) == (f"{name}.safetensors", weights.sha256)
    assert fetch(name) == path
    assert path.with_suffix(".md").is_file()


def test_all_weights_fit_a_source_tree() -> None:
    assert sum(file.stat().st_size for file in IMAGE_WEIGHTS.parent.iterdir()) < 27e6


def test_the_backbone_is_that_of_its_card_and_fills_the_small_network_alone() -> None:
    assert hashlib.sha256(IMAGE_WEIGHTS.read_bytes()).hexdigest() in IMAGE_WEIGHTS.with_suffix(".md").read_text()
    state = load_file(IMAGE_WEIGHTS)
    loaded = build_image_network("small", Path("demo-small")).body.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in loaded.items():
        torch.testing.assert_close(tensor, state[name].float(), rtol=0, atol=0)
    with pytest.raises(TrainerError, match=r"demo-small\.safetensors: \d+ of \d+ tensors are missing"):
        build_image_network("deeplabv3-mobilenet", Path("demo-small"))


def test_every_entry_point_can_be_loaded() -> None:
    groups = ["labelgen.clip_architectures", "labelgen.commands", "labelgen.sam_architectures"]
    groups += ["labelgen.datasets", "labelgen.weights", "pipelines.configs.teachers", "trainer.configs"]
    for group in [*groups, "trainer.image_weights"]:
        ours = [entry for entry in registered(group).values() if entry.value.startswith("demo.")]
        assert ours, f"the demo registers nothing in {group}; run `make setup` after a change of setup.cfg"
        for entry in ours:
            found = entry.load()
            assert not isinstance(found, Path) or found.is_file()


def test_scenes_are_split_by_their_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [f"scene-{number}" for number in range(9000, 9010)]
    monkeypatch.setattr(NuScenes, "scenes", lambda *_: [Scene(name, ()) for name in names])
    demo = Demo(tmp_path)
    assert [scene.name for scene in demo.scenes("val", None)] == [names[4], names[9]]
    assert [scene.name for scene in demo.scenes("train", None)] == names[:4] + names[5:9]
    assert len(demo.scenes("all", None)) == 10
