"""What CLIP reads in a run: pictures at their own size, and what SAM found in them."""

from pathlib import Path

import numpy as np
import pytest

from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from labelgen.pictures import read_native_images, resize
from labelgen.teachers.clip.attention import Guides
from labelgen.teachers.clip.sam_guides import embedding_at_patches, masks_at_patches
from labelgen.teachers.clip.teacher import ClipTeacher
from pipelines.config import RunConfig, load_config
from pipelines.plan import Planner
from pipelines.resolve import open_dataset, read_scenes, resolve
from tests.pipelines.conftest import PROMPTS, _maker
from tests.pipelines.in_process import build_cache

SMALL = ["images.height=32", "images.width=64", "sam.points_per_side=1", "cameras=[CAM_BACK]"]
CLIP = ["clip.size=[48,80]", "clip.window=32"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    (folder / "prompts.yaml").write_text(PROMPTS)
    return _maker()(folder / "nuscenes", scenes={"scene-0061": 1}, lidarseg=True)


def config_of(data: Path, *changes: str) -> RunConfig:
    prompts = f"prompts={data.parent / 'prompts.yaml'}"
    return load_config("nuscenes", teachers="untrained", overrides=[*SMALL, prompts, *changes])


@pytest.mark.parametrize("change", ["clip.scope=sam", "clip.proxy=sam"])
def test_scores_are_those_of_native_pictures_and_of_what_sam_found(data: Path, tmp_path: Path, change: str) -> None:
    config = config_of(data, *CLIP, change)
    build_cache(config, data, str(tmp_path / "cache.zarr"))
    cache = Cache(str(tmp_path / "cache.zarr"))
    adapter = open_dataset("nuscenes", data)
    ((sample,),) = (scene.samples for scene in read_scenes(config, adapter))
    rgb = np.stack([resize(picture, (48, 80)) for picture in read_native_images(adapter, sample)])
    sam = cache.read(GroupPath("scene-0061-000", "sam"))
    guides = Guides(
        masks_at_patches(sam["mask_ids"], (3, 5)) if config.clip.scope == "sam" else None,
        embedding_at_patches(sam, (3, 5)) if config.clip.proxy == "sam" else None,
    )
    text = cache.read(GroupPath.root("text"))["embeddings"]
    logits = cache.read(GroupPath("scene-0061-000", "clip"))["logits"]
    np.testing.assert_allclose(logits, ClipTeacher(config.clip).score(rgb, text, guides).logits, atol=1e-3)


def test_pictures_that_clip_needs_again_are_missed_before_the_run(data: Path, tmp_path: Path) -> None:
    """The pictures at training size are sealed, so only CLIP at another size needs the files."""
    build_cache(config_of(data), data, str(tmp_path / "cache.zarr"))
    cache, adapter = Cache(str(tmp_path / "cache.zarr")), open_dataset("nuscenes", data)
    picture = next((data / "samples/CAM_BACK").iterdir())
    picture.rename(tmp_path / "gone")

    def missing(*changes: str) -> dict[str, tuple[str, ...]]:
        planner = Planner(data, cache, resolve(config_of(data, *changes), adapter))
        planner.plan(adapter.scenes("all", None))
        return planner.missing

    assert missing("clip.attention=sclip") == {}
    (files,) = missing("clip.size=[48,80]").values()
    assert files == (str(picture.relative_to(data)),)
    (tmp_path / "gone").rename(picture)
