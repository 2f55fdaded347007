"""Settings: what overrides what, and errors that name the key and the nearest valid one."""

from pathlib import Path

import pytest

from cache_schemas.config_files import shipped_names
from cache_schemas.errors import ConfigError
from labelgen.datasets import dataset_names
from labelgen.presets import CUSTOM, preset_of
from pipelines.config import load_config


@pytest.mark.parametrize("dataset", dataset_names())
@pytest.mark.parametrize("teachers", shipped_names("pipelines", "configs/teachers"))
@pytest.mark.parametrize("preset", shipped_names("labelgen", "presets"))
def test_every_shipped_combination_is_valid(dataset: str, teachers: str, preset: str) -> None:
    config = load_config(dataset, preset=preset, teachers=teachers)
    assert (config.dataset, config.teachers) == (dataset, teachers)
    assert preset_of(config.model_dump(mode="json")) == preset


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


@pytest.mark.parametrize(
    ("dataset", "size"), [("nuscenes", (448, 832)), ("scannet", (480, 640)), ("semantickitti", (448, 1472))]
)
def test_better_reads_twice_the_training_size_of_each_data_set(dataset: str, size: tuple[int, int]) -> None:
    clip = load_config(dataset, preset="better").clip
    assert (clip.size, clip.window) == (size, 224)
    assert load_config(dataset, preset="better", overrides=["images={height: 64, width: 112}"]).clip.size == (128, 224)


def test_the_paper_is_the_preset_of_all_data_sets_but_the_demo() -> None:
    found = {name: preset_of(load_config(name).model_dump(mode="json")) for name in dataset_names()}
    assert found.pop("demo") == "better"
    assert set(found.values()) == {"paper"}


def test_a_preset_lies_under_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = Path("labelgen/datasets/nuscenes/settings.yaml").read_text().replace("preset: paper", "preset: better")
    file.write_text(text + "clip: {window: 448}\n")
    config = load_config("nuscenes", file=file)
    assert (config.clip.size, config.clip.window, config.labels.vote) == ((448, 832), 448, "mean")
    config = load_config("nuscenes", file=file, preset="paper")
    assert (config.clip.size, config.clip.window, config.labels.vote) == (None, 448, "counts")


@pytest.mark.parametrize(
    ("preset", "overrides", "name"),
    [
        ("paper", ["clip.size=2", "clip.window=224", "labels.vote=mean"], "better"),
        ("better", ["clip.size=[448, 832]"], "better"),
        ("better", ["clip.size=[448, 816]"], CUSTOM),
        ("better", ["labels.vote=counts"], CUSTOM),
        ("paper", ["clip.key_smoothing=1.0"], CUSTOM),
        ("paper", ["clip.store_features=true", "labels.confidence=true", "sam.points_per_side=16"], "paper"),
    ],
)
def test_the_name_of_a_preset_follows_from_the_settings(preset: str, overrides: list[str], name: str) -> None:
    config = load_config("nuscenes", preset=preset, overrides=overrides)
    assert preset_of(config.model_dump(mode="json")) == name


def test_settings_of_older_caches_without_a_choice_are_those_of_the_paper() -> None:
    assert preset_of({"clip": {"key_smoothing": None}, "images": {"height": 224, "width": 416}}) == "paper"
    assert preset_of({"clip": {"key_smoothing": 1.0}}) == CUSTOM
    assert preset_of({}) == CUSTOM
    assert preset_of({"clip": None}) == preset_of({"clip": {}, "labels": [3]}) == CUSTOM


@pytest.mark.parametrize("value", ["null", "3", "[better]"])
def test_a_preset_that_is_no_name_is_told_with_its_file(tmp_path: Path, value: str) -> None:
    file = tmp_path / "mine.yaml"
    text = Path("labelgen/datasets/nuscenes/settings.yaml").read_text()
    file.write_text(text.replace("preset: paper", f"preset: {value}"))
    with pytest.raises(ConfigError, match=r"mine\.yaml: preset = .*: give a name"):
        load_config("nuscenes", file=file)


@pytest.mark.parametrize("size", ["1.0e+308", "1" + 400 * "0"])
def test_a_size_that_gives_no_pixels_is_refused(size: str) -> None:
    with pytest.raises(ConfigError, match=r"clip\.size"):
        load_config("nuscenes", overrides=[f"clip.size={size}"])


def test_a_number_of_too_many_digits_is_no_value() -> None:
    with pytest.raises(ConfigError, match="is not a YAML value"):
        load_config("nuscenes", overrides=["images.height=" + 5000 * "1"])


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
        ("clip.size=.inf", "clip.size = inf: input should be a valid tuple"),
        ("time.voxel_m=.inf", "time.voxel_m = inf: input should be less than or equal to 100"),
        ("clip.size=-1", "clip.size.0 = -224: input should be greater than or equal to 14"),
        ("preset=better", "--set preset=better: write --preset better"),
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
    with pytest.raises(ConfigError, match=r"no preset 'bettr'; choose better, paper"):
        load_config("nuscenes", preset="bettr")


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
