"""Settings: what overrides what, and errors that name the key and the nearest valid one."""

from pathlib import Path

import pytest

from cache_schemas.config_files import shipped_names
from cache_schemas.errors import ConfigError
from labelgen.datasets import dataset_names
from pipelines.config import load_config


@pytest.mark.parametrize("dataset", dataset_names())
@pytest.mark.parametrize("preset", shipped_names("pipelines", "configs/teachers"))
def test_every_shipped_combination_is_valid(dataset: str, preset: str) -> None:
    config = load_config(dataset, teachers=preset)
    assert (config.dataset, config.teachers) == (dataset, preset)


def test_the_default_is_the_paper_at_its_training_size() -> None:
    config = load_config("nuscenes")
    assert config.teachers == "paper"
    assert config.images.size == (224, 416)
    assert (config.clip.architecture, config.sam.architecture) == ("ViT-B-16-quickgelu", "vit_h")
    assert (config.sam.points_per_side, config.sam.pred_iou_thresh, config.sam.stability_score_thresh) == (
        32,
        0.88,
        0.95,
    )


def test_overrides_beat_the_preset_which_beats_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = Path("labelgen/datasets/nuscenes/settings.yaml").read_text().replace("height: 224", "height: 448")
    file.write_text(text + "sam: {points_per_side: 7, points_per_batch: 9}\n")
    config = load_config(
        "nuscenes", file=file, teachers="untrained", split="val", overrides=["clip.weights=untrained:5"]
    )
    assert config.images.height == 448
    assert (config.sam.points_per_side, config.sam.points_per_batch) == (2, 9)
    assert config.clip.weights == "untrained:5"
    assert config.split == "val"


def test_scientific_notation_is_a_number() -> None:
    assert load_config("nuscenes", overrides=["points.min_depth_m=1e-1"]).points.min_depth_m == 0.1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("sam.pred_iou_tresh=0.5", "unknown key 'sam.pred_iou_tresh'; did you mean 'sam.pred_iou_thresh'?"),
        ("sam.pts=3", "unknown key 'sam.pts'; the keys of sam are architecture, weights, points_per_side"),
        ("min_depth_m=2", "unknown key 'min_depth_m'; did you mean 'points.min_depth_m'?"),
        ("ray.dino.actors=2", "unknown key 'ray.dino'; the keys of ray are clip, sam, retries, placement_minutes"),
        ("speed=9", "unknown key 'speed'; the keys of the settings are dataset, version"),
        ("imges.height=3", "unknown key 'imges'; did you mean 'images'?"),
        ("images.height=tall", "images.height = 'tall'"),
        ("images.height=3", "images.height = 3: input should be greater than or equal to 16"),
        ("shard_samples=1001", "shard_samples = 1001"),
        ("sam.features=int4", "sam.features = 'int4'"),
        ("images.height", "--set 'images.height': write key=value"),
        ("prompts=[", "--set 'prompts=['"),
    ],
)
def test_a_bad_setting_is_quoted(override: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config("nuscenes", teachers="untrained", overrides=[override])
    assert said in str(caught.value)


def test_unknown_dataset_and_preset_list_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"no dataset 'nuscene'; choose .*nuscenes"):
        load_config("nuscene")
    with pytest.raises(ConfigError, match=r"no teachers preset 'papr'; choose .*paper"):
        load_config("nuscenes", teachers="papr")


def test_a_bad_config_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml: No such file"):
        load_config("nuscenes", file=tmp_path / "absent.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("images: {height: 3")
    with pytest.raises(ConfigError, match=r"broken.yaml: not YAML"):
        load_config("nuscenes", file=broken)
    broken.write_text("- a list")
    with pytest.raises(ConfigError, match=r"broken.yaml: settings are a mapping"):
        load_config("nuscenes", file=broken)


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("images: {height: 64, width: 112, height: 32}\n")
    with pytest.raises(ConfigError, match="the key 'height' is there twice"):
        load_config("nuscenes", file=file)
    with pytest.raises(ConfigError, match="is not a YAML value"):
        load_config("nuscenes", overrides=["images={height: 64, height: 32}"])
