"""The SAM teacher: embeddings of the stock predictor, maps of mask ids, features as they are stored."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor

from cache_schemas.errors import ConfigError
from labelgen.settings import SamSettings
from labelgen.teachers.sam.architectures import find_architecture
from labelgen.teachers.sam.network import build_sam
from labelgen.teachers.sam.preprocessing import resize_for_sam
from labelgen.teachers.sam.teacher import SamTeacher
from tests.labelgen.teachers.sam_reference import (
    EVERY_MASK,
    MakeTeacher,
    Refused,
    make_image,
    paint_pixel_by_pixel,
    propose,
)


def test_embeddings_are_those_that_the_stock_predictor_computes_one_by_one(teacher: SamTeacher) -> None:
    images = [make_image(0), make_image(1)]
    found = teacher.embed(teacher.upload([resize_for_sam(image, "tiny") for image in images]))
    assert found.shape == (2, 256, 64, 64)
    predictor = SamPredictor(teacher.model)
    for index, image in enumerate(images):
        predictor.set_image(image)
        np.testing.assert_allclose(found[index].numpy(), predictor.get_image_embedding()[0].numpy(), atol=1e-4)


def test_a_run_paints_each_image_by_itself_and_keeps_its_features(make_teacher: MakeTeacher) -> None:
    images, size = [make_image(0), make_image(1)], (56, 104)
    teacher = make_teacher(**EVERY_MASK)
    resized = [resize_for_sam(image, "tiny") for image in images]
    result = teacher.run(resized, size)
    assert (result.mask_ids.shape, result.mask_ids.dtype) == ((2, *size), np.uint16)
    assert (result.features.shape, result.features.dtype) == ((2, 36, 64, 256), np.int8)
    assert result.features_scale is not None
    assert (result.features_scale.shape, result.features_scale.dtype) == ((2, 256), np.float32)
    embeddings = teacher.embed(teacher.upload(resized))
    for index, image in enumerate(images):
        masks = list(propose(teacher, image)[0].inside.numpy())
        np.testing.assert_array_equal(result.mask_ids[index], paint_pixel_by_pixel(masks, size))
        assert len(np.unique(result.mask_ids[index])) >= 3
    assert (result.mask_ids[0] != result.mask_ids[1]).any()
    valid = embeddings[:, :, :36, :64].permute(0, 2, 3, 1).numpy()
    restored = result.features * result.features_scale[:, None, None]
    steps = np.broadcast_to(result.features_scale[:, None, None], valid.shape)
    assert (np.abs(restored - valid) <= 0.5 * steps + 1e-4).all()


def test_float16_features_are_the_embedding_without_a_scale(make_teacher: MakeTeacher) -> None:
    teacher = make_teacher(features="float16", points_per_side=1)
    image = resize_for_sam(make_image(2), "tiny")
    result = teacher.run([image], (45, 80))
    assert result.features_scale is None
    assert (result.features.shape, result.features.dtype) == ((1, 36, 64, 256), np.float16)
    valid = teacher.embed(teacher.upload([image]))[:, :, :36, :64].permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(result.features, valid, rtol=1e-3, atol=1e-4)


def test_an_unknown_architecture_lists_the_known_ones(refused: Refused) -> None:
    with refused(ConfigError, "'vit_z'", "demo, tiny, vit_b, vit_h, vit_l"):
        SamTeacher(SamSettings(architecture="vit_z", weights="untrained:0"))


@pytest.mark.parametrize("digits", [19, 5000])
def test_a_seed_that_is_too_large_is_told(refused: Refused, digits: int) -> None:
    with refused(ConfigError, "whole number below 10^18"):
        SamTeacher(SamSettings(architecture="tiny", weights="untrained:" + digits * "9"))


@pytest.mark.parametrize(
    "native, valid",
    [
        *(((900, 1600), (36, 64)), ((1600, 900), (64, 36)), ((480, 480), (64, 64))),
        *(((968, 1296), (48, 64)), ((480, 640), (48, 64)), ((90, 160), (36, 64)), ((376, 1241), (20, 64))),
    ],
    ids=str,
)
def test_the_valid_part_is_where_the_image_lies_in_sams_square(
    teacher: SamTeacher, native: tuple[int, int], valid: tuple[int, int]
) -> None:
    # The longer side becomes 1024 pixels, or 64 positions of 16 pixels; a position that the image touches counts.
    embeddings = torch.arange(2 * 3 * 64 * 64, dtype=torch.float32).reshape(2, 3, 64, 64)
    found = teacher.valid_part(embeddings, resize_for_sam(np.zeros((*native, 3), np.uint8), "tiny").pixels.shape[:2])
    assert found.shape == (2, *valid, 3)
    for batch, row, col, channel in ((0, 0, 0, 0), (1, valid[0] - 1, valid[1] - 1, 2), (0, 5, 7, 1)):
        assert found[batch, row, col, channel] == embeddings[batch, channel, row, col]


@pytest.mark.parametrize("name", ["vit_b", "tiny", "demo"])
def test_the_table_gives_the_input_side_of_the_network(name: str) -> None:
    built = build_sam(SamSettings(architecture=name, weights="untrained:0"))
    assert built.image_encoder.img_size == find_architecture(name).input_side_px


def test_resizing_images_imports_no_torch() -> None:
    code = "import sys, labelgen.teachers.sam.preprocessing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
