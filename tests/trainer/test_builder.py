"""Batches: pairs, labels and features of augmented samples still belong together after they are joined."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
from tests.trainer.conftest import as_int8
from trainer.data.batch import Batch
from trainer.data.builder import BatchDataset, training_arrays
from trainer.data.sampler import Step
from trainer.data.stream import CacheStream
from trainer.data.training_caches import BatchesOfCaches, open_training_stream
from trainer.errors import UnfitCacheError
from trainer.method_settings import Source
from trainer.networks.bilinear import sample_bilinear
from trainer.schedule import TargetSources
from trainer.settings import RunSettings, load_settings
from trainer.training.model import TrainingModel


def toy_settings(*overrides: str) -> RunSettings:
    return load_settings("demo", overrides=["stream.workers=0", "networks.voxel_m=1.0", *overrides])


def batches(url: str, *overrides: str) -> tuple[BatchDataset, CacheStream]:
    settings = toy_settings(*overrides)
    needed, optional = training_arrays(settings)
    stream = CacheStream(url, needed, optional=optional)
    return BatchDataset(stream, stream.samples, settings), stream


@pytest.fixture
def batch(toy: str) -> Batch:
    return batches(toy)[0][Step(0, 0, (3, 0, 4))]


def test_pairs_still_join_points_and_pixels_of_one_class(batch: Batch) -> None:
    assert batch.batch_size == 3 and len(batch.rgb) == 6 and len(batch.point_labels) == 3 * 240
    pixel = batch.pixel_labels[batch.pair_image, batch.pair_row, batch.pair_col]
    assert 100 < len(pixel) < 3 * 240
    np.testing.assert_array_equal(pixel, batch.point_labels[batch.pair_point])
    rgb = batch.rgb[batch.pair_image, :, batch.pair_row, batch.pair_col].float()
    # Colours blend where a band ends; away from there they are the class's own.
    nearest = torch.cdist(rgb, torch.tensor([[220.0, 30, 30], [90, 90, 90], [20, 160, 40]])).argmin(dim=1)
    assert (nearest == pixel).float().mean() > 0.95


def test_points_lie_in_voxels_of_their_own_sample(batch: Batch) -> None:
    sample_of_point = torch.arange(3).repeat_interleave(240)
    assert (batch.voxels[batch.point_voxel, 0] == sample_of_point).all()
    # Heights of the toy world's classes differ by 3 m: no voxel of 1 m holds two.
    seen = batch.point_labels != 255
    for voxel in batch.point_voxel[seen].unique():
        assert len(batch.point_labels[seen & (batch.point_voxel == voxel)].unique()) == 1


@pytest.mark.parametrize(("network", "position", "features"), [("spvcnn", True, False), ("spvcnn-2dpass", True, True)])
def test_batches_carry_points_for_networks_that_need_them(
    toy: str, batch: Batch, network: str, position: bool, features: bool
) -> None:
    assert batch.point_position is None and batch.point_features is None
    found = batches(toy, f"networks.cloud={network}")[0][Step(0, 0, (3, 0, 4))]
    assert (found.point_position is not None, found.point_features is not None) == (position, features)
    inside = found.point_position - found.voxels[found.point_voxel, 1:]
    assert inside.min() >= 0 and inside.max() < 1 + 1e-4 and inside.std() > 0.2
    if features:
        lone = torch.bincount(found.point_voxel)[found.point_voxel] == 1
        torch.testing.assert_close(found.point_features[lone], found.voxel_features[found.point_voxel][lone])


def test_frozen_features_are_sampled_at_the_pairs_position_before_augmentation(batch: Batch) -> None:
    grid, scale = batch.features["sam"], batch.scales["sam"]
    found = sample_bilinear(grid, batch.pair_image, batch.pair_position) * scale[batch.pair_image]
    assert (found[:, :3].argmax(dim=1) == batch.point_labels[batch.pair_point]).float().mean() > 0.95


def test_openscene_trains_on_int8_features_as_on_float16(rich_toy: str, tmp_path: Path) -> None:
    compact = Cache(str(shutil.copytree(rich_toy, tmp_path / "compact")), "a")
    for key in compact.shard_keys():
        path = GroupPath(key, "clip")
        seal, arrays = compact.seals([path])[path], compact.read(path)
        compact.write_group(path, arrays | as_int8(arrays["features"]), seal.provenance)
    settings = load_settings("demo", "openscene", overrides=["networks.image_weights=null", "networks.voxel_m=1.0"])
    text, losses = torch.from_numpy(compact.read(GroupPath.root("text"))["embeddings"]), []
    for url in (rich_toy, compact.url):
        batch = BatchesOfCaches([open_training_stream(settings, url)], settings)[Step(0, 0, (0, 1))]
        torch.manual_seed(0)
        found = TrainingModel(settings, text, {"clip": 8})(batch, TargetSources(Source.CLIP_2D, Source.CLIP_3D))
        losses.append({name: loss.total.item() for name, loss in found.losses.items()})
    assert batch.features["clip"].dtype == torch.int8 and batch.scales["clip"].shape == (len(batch.rgb), 8)
    assert set(losses[0]) == {"image_distillation", "cloud_distillation"}
    assert losses[1] == pytest.approx(losses[0], rel=1e-3) and losses[1] != losses[0]


def test_first_pairs_are_exactly_one_of_each_point_and_pixel(batch: Batch) -> None:
    assert batch.first_pair_of_point.sum() == len(batch.pair_point.unique())
    assert set(batch.pair_point[batch.first_pair_of_point].tolist()) == set(batch.pair_point.tolist())
    pixels = torch.stack([batch.pair_image, batch.pair_row, batch.pair_col], dim=1)
    assert batch.first_pair_of_pixel.sum() == len(pixels.unique(dim=0))


def test_batches_depend_on_seed_epoch_and_samples_only(toy: str) -> None:
    first, again = batches(toy)[0], batches(toy)[0]
    one, same, later = first[Step(1, 0, (2,))], again[Step(1, 5, (2,))], first[Step(2, 0, (2,))]
    torch.testing.assert_close(one.rgb, same.rgb)
    torch.testing.assert_close(one.voxel_features, same.voxel_features)
    assert not torch.equal(one.rgb, later.rgb)


def test_without_augmentation_a_batch_is_the_sample(toy: str) -> None:
    found, stream = batches(toy, "augment.images=false", "augment.clouds=false")
    batch, arrays = found[Step(0, 0, (1,))], stream.read(stream.samples[1])
    np.testing.assert_array_equal(batch.rgb.permute(0, 2, 3, 1), arrays["images/rgb"])
    np.testing.assert_array_equal(batch.pair_row, arrays["pairs/row"])
    np.testing.assert_array_equal(batch.mask_ids, arrays["sam/mask_ids"])


def test_fewer_images_keep_all_points_and_labels(toy: str) -> None:
    batch = batches(toy, "stream.images=1")[0][Step(0, 0, (0, 1))]
    assert len(batch.rgb) == 2 and len(batch.point_labels) == 480
    assert batch.pair_image.max() <= 1


def test_labels_of_an_imported_source_take_the_place_of_those_of_points(own: str) -> None:
    cache = Cache(own, "a")
    rng = np.random.default_rng(0)
    corrected = {key: rng.integers(0, 3, 480).astype(np.uint8) for key in cache.shard_keys()}
    for key, labels in corrected.items():
        path = GroupPath(key, "labels.corrected")
        samples = cache.shard_records([key])[key].samples
        cache.write_group(path, {"point": labels}, Provenance(key, samples=samples))
    found, _ = batches(own, "stream.label_source=corrected", "augment.images=false")
    cached, _ = batches(own, "augment.images=false")
    batch, other = found[Step(0, 0, (1,))], cached[Step(0, 0, (1,))]
    np.testing.assert_array_equal(batch.point_labels, corrected["scene-0-000"][240:])
    np.testing.assert_array_equal(batch.pixel_labels, other.pixel_labels)


def test_a_source_that_a_shard_lacks_is_not_trained_on(own: str) -> None:
    with pytest.raises(UnfitCacheError, match=r"labels\.corrected: not sealed; import labels for every shard"):
        batches(own, "stream.label_source=corrected")


def test_raw_labels_are_read_without_refinement(toy: str) -> None:
    found, stream = batches(toy, "schedule.refine=false", "augment.images=false")
    arrays = stream.read(stream.samples[0])
    assert "labels/image" not in arrays
    np.testing.assert_array_equal(found[Step(0, 0, (0,))].pixel_labels, arrays["labels/image_raw"])


def test_frozen_features_of_pictures_of_many_sizes_stay_with_their_pixels(own: str) -> None:
    """Of one shard half of the pictures have smaller grids, padded with what no sampling may read."""
    cache, path = Cache(own, "a"), GroupPath("scene-0-000", "sam")
    arrays, seal = cache.read(path), cache.seals([path])[path]
    grids, height, width = arrays["features"], 48, 64
    valid = np.tile(np.array([[4, 8], [6, 5]], np.uint16), (len(grids) // 2, 1))
    truth = cache.read(GroupPath("scene-0-000", "truth"), "image")["image"]
    padded = np.full((len(grids), 7, 9, 16), -128, np.int8)
    for picture, (rows, columns) in enumerate(valid):
        row = ((np.arange(rows) + 0.5) * height / rows).astype(int)
        col = ((np.arange(columns) + 0.5) * width / columns).astype(int)
        padded[picture, :rows, :columns] = 0
        padded[picture, :rows, :columns, :3] = 100 * np.eye(3)[truth[picture][row][:, col]]
    provenance = Provenance(seal.fingerprint, upstream=seal.upstream, samples=seal.samples, counts=seal.counts)
    cache.write_group(path, {**arrays, "features": padded, "features_valid": valid}, provenance)
    batch = batches(own)[0][Step(0, 0, (0, 2, 1))]
    assert batch.features["sam"].shape == (6, 7, 9, 16)
    assert batch.features_valid["sam"].tolist() == [[4, 8], [6, 5], [6, 8], [6, 8], [4, 8], [6, 5]]
    found = sample_bilinear(batch.features["sam"], batch.pair_image, batch.pair_position, batch.features_valid["sam"])
    right = found[:, :3].argmax(dim=1) == batch.point_labels[batch.pair_point]
    assert found[:, :3].min() >= 0
    for image in range(6):
        share = right[batch.pair_image == image].float().mean()
        assert share > (0.7 if batch.features_valid["sam"][image, 1] == 5 else 0.95)


def test_confidence_follows_the_labels_of_augmented_pixels_and_of_points(own: str) -> None:
    with pytest.raises(UnfitCacheError, match=r"image_confidence: not in this cache; .*labels\.confidence=true"):
        batches(own, "terms.semantic.confidence=true")
    cache = Cache(own, "a")
    for number in range(3):  # confidence is 50 times the class, so that both can be compared after augmentation
        path = GroupPath(f"scene-{number}-000", "labels")
        seal, labels = cache.seals([path])[path], cache.read(path)
        labels |= {f"{name}_confidence": 50 * np.minimum(labels[name], 2) for name in ("image", "point")}
        provenance = Provenance(seal.fingerprint, upstream=seal.upstream, samples=seal.samples, counts=seal.counts)
        cache.write_group(path, labels, provenance)
    found = batches(own, "terms.semantic.confidence=true")[0][Step(0, 0, (3, 0))]
    np.testing.assert_array_equal(found.pixel_confidence, 50 * found.pixel_labels.clamp(max=2))
    np.testing.assert_array_equal(found.point_confidence, 50 * found.point_labels.clamp(max=2))
    plain = batches(own)[0][Step(0, 0, (3, 0))]
    assert plain.pixel_confidence is None and plain.point_confidence is None
