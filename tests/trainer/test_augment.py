"""Augmentation keeps the pixels of images and the pairs together."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.augment import Crop, draw_crop, draw_crop_with_pairs, draw_rotation


@st.composite
def crops(draw: st.DrawFn) -> Crop:
    size = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
    height, width = (draw(st.integers(1, side)) for side in size)
    top, left = draw(st.integers(0, size[0] - height)), draw(st.integers(0, size[1] - width))
    return Crop(size, top, left, height, width, draw(st.booleans()))


@given(crops())
@settings(max_examples=300, deadline=None)
def test_a_pair_that_stays_lands_on_its_own_content(crop: Crop) -> None:
    row, col = (axis.ravel() for axis in np.indices(crop.size))
    content = row * crop.size[1] + col
    rows, columns = crop.source_pixels()
    changed = content.reshape(crop.size)[rows][:, columns]
    new_row, new_col, inside = crop.map_pixels(row, col)
    assert inside.sum() == crop.height * crop.width
    np.testing.assert_array_equal(changed[new_row[inside], new_col[inside]], content[inside])


def test_a_whole_crop_changes_nothing_and_a_mirror_mirrors() -> None:
    picture = np.arange(12).reshape(3, 4)
    for mirrored, expected in ((False, picture), (True, picture[:, ::-1])):
        rows, columns = Crop((3, 4), 0, 0, 3, 4, mirrored).source_pixels()
        np.testing.assert_array_equal(picture[rows][:, columns], expected)


def test_an_enlarged_quarter_shows_each_pixel_four_times() -> None:
    rows, columns = Crop((4, 4), 2, 0, 2, 2, False).source_pixels()
    np.testing.assert_array_equal(rows, [2, 2, 3, 3])
    np.testing.assert_array_equal(columns, [0, 0, 1, 1])


def test_drawn_crops_cover_the_allowed_sizes() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_crop((100, 200), 0.4, rng) for _ in range(300)]
    assert min(crop.height for crop in drawn) in range(40, 44)
    assert max(crop.width for crop in drawn) in range(194, 201)
    assert {crop.mirrored for crop in drawn} == {True, False}
    assert all(abs(crop.width - 2 * crop.height) <= 1 for crop in drawn)


def test_a_crop_keeps_the_asked_share_of_pairs_or_the_most_that_was_drawn() -> None:
    corner = (np.zeros(4, int), np.array([0, 0, 0, 99]))  # no crop but the whole image keeps all four; many keep three

    def kept(crop: Crop) -> int:
        return int(crop.map_pixels(*corner)[2].sum())

    for seed in range(20):
        ten = np.random.default_rng(seed)
        drawn = [draw_crop((50, 100), 0.5, ten) for _ in range(10)]
        for share, enough in ((0.0, 0), (0.25, 1), (0.75, 3), (1.0, 4)):
            fitting = [crop for crop in drawn if kept(crop) >= enough]
            expected = fitting[0] if fitting else max(drawn, key=kept)
            found = draw_crop_with_pairs((50, 100), 0.5, share, corner, np.random.default_rng(seed))
            assert found == expected


def test_rotations_are_orthogonal_sometimes_mirrored_and_keep_z() -> None:
    rng = np.random.default_rng(0)
    rotations = np.stack([draw_rotation(rng) for _ in range(50)])
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (50, 1, 1)), atol=1e-6)
    np.testing.assert_array_equal(rotations[:, 2], np.tile([0, 0, 1], (50, 1)))
    assert {round(float(np.linalg.det(rotation))) for rotation in rotations} == {-1, 1}
