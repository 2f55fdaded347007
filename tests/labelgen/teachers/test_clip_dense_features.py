"""Dense features of CLIP against the value paths written out in numpy."""

import numpy as np
import pytest
import torch

from labelgen.teachers.clip.teacher import ClipTeacher
from tests.labelgen.teachers.clip_reference import normalised, random_images, unit, unit_rows
from tests.labelgen.teachers.vit_reference import gelu, linear, quick_gelu, visual_weights, vit_features


@pytest.mark.parametrize(
    "architecture, size",
    [
        *(("tiny-vit-16", (224, 224)), ("tiny-vit-16", (224, 416)), ("toy-vit", (64, 96))),
        *(("toy-vit", (96, 64)), ("toy-vit", (32, 160))),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value[0]}x{value[1]}",
)
def test_a_vit_scores_patches_through_the_value_path_of_its_last_block(
    clip_teachers: dict[str, ClipTeacher], architecture: str, size: tuple[int, int]
) -> None:
    teacher = clip_teachers[architecture]
    heads, trained, activation = {"tiny-vit-16": (2, (14, 14), gelu), "toy-vit": (3, (4, 6), quick_gelu)}[architecture]
    rgb = random_images(2, size)
    text = unit_rows(5, teacher.model.visual.output_dim)
    features, keys = teacher.dense(normalised(rgb))
    scores = teacher.score(rgb, text)
    assert scores.logits.shape == (2, 5, size[0] // 16, size[1] // 16)
    assert scores.logits.dtype == np.float16
    for index in range(2):
        expected, expected_keys = vit_features(rgb[index], visual_weights(teacher), heads, trained, activation)
        np.testing.assert_allclose(features[index].numpy(), unit(expected), atol=1e-4)
        np.testing.assert_allclose(keys[index].numpy(), expected_keys, atol=1e-4 * np.abs(expected_keys).max())
        cosines = np.einsum("dhw,cd->chw", unit(expected), text)
        np.testing.assert_allclose(scores.logits[index], cosines, atol=6e-4)


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_a_resnet_scores_positions_through_the_projections_of_its_attention_pool(
    clip_teachers: dict[str, ClipTeacher], size: tuple[int, int]
) -> None:
    teacher = clip_teachers["toy-resnet"]
    rgb = random_images(2, size)
    text = unit_rows(5, 24)
    visual, w = teacher.model.visual, visual_weights(teacher)
    seen: list[torch.Tensor] = []
    hook = visual.layer4.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        visual.forward_intermediates(normalised(rgb), intermediates_only=True)
    hook.remove()
    (last,) = (tensor.double().numpy().transpose(0, 2, 3, 1) for tensor in seen)
    assert last.shape == (2, size[0] // 32, size[1] // 32, 256)
    expected = linear(linear(last, w, "attnpool.v_proj"), w, "attnpool.c_proj").transpose(0, 3, 1, 2)
    features, keys = teacher.dense(normalised(rgb))
    scores = teacher.score(rgb, text)
    for index in range(2):
        np.testing.assert_allclose(features[index].numpy(), unit(expected[index]), atol=1e-4)
        cosines = np.einsum("dhw,cd->chw", unit(expected[index]), text)
        np.testing.assert_allclose(scores.logits[index], cosines, atol=6e-4)
    expected_keys = linear(last, w, "attnpool.k_proj").transpose(0, 3, 1, 2)
    np.testing.assert_allclose(keys.numpy(), expected_keys, rtol=1e-4, atol=1e-4 * np.abs(expected_keys).max())


def test_images_do_not_change_each_others_scores(clip_teachers: dict[str, ClipTeacher]) -> None:
    rgb, text = random_images(3, (64, 96)), unit_rows(4, 24)
    together = clip_teachers["toy-vit"].score(rgb, text).logits
    for index in range(3):
        alone = clip_teachers["toy-vit"].score(rgb[index : index + 1], text).logits[0]
        np.testing.assert_allclose(together[index], alone, atol=1e-3)
