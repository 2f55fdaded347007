"""Agreement over time: voxels, free space, scores and labels, against values computed by hand or in another way."""

import numpy as np
from numpy.testing import assert_allclose

from cache_schemas.taxonomy import IGNORE
from labelgen.geometry import invert_rigid
from labelgen.time_agreement.agreement import agree
from labelgen.time_agreement.free_space import RangeImage
from labelgen.time_agreement.labels import confidence_of_cells, label_cells, label_pictures
from labelgen.time_agreement.views import Views, find_views
from labelgen.time_agreement.voxels import cells_of_points


def pose(x: float = 0.0, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """Return the transform (4, 4) of a lidar at (x, y, 0) that is turned by `yaw` radians."""
    found = np.eye(4)
    found[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    found[:2, 3] = x, y
    return found


def seen_from(world: np.ndarray, world_from_cloud: np.ndarray) -> np.ndarray:
    """Return points (P, 3) of the world in the frame of a lidar."""
    cloud_from_world = invert_rigid(world_from_cloud)
    return (world @ cloud_from_world[:3, :3].T + cloud_from_world[:3, 3]).astype(np.float32)


# Cells


def test_points_of_one_voxel_of_the_world_share_a_cell() -> None:
    """Voxels of 1 m, by hand: (2, 0, 0) twice in the first cloud and once in the second, then (2, 1, 0) and (-1, 0, 0).

    The last two lie on both sides of x = 0: -0.1 is in voxel -1, 0.1 in voxel 0.
    """
    world = [
        np.array([[2.2, 0.5, 0.5], [2.9, 0.1, 0.9], [-0.1, 0.5, 0.5]]),
        np.array([[2.5, 0.9, 0.1], [2.5, 1.1, 0.1], [0.1, 0.5, 0.5]]),
    ]
    poses = np.stack([pose(), pose(0.7, -0.4, 0.3)])
    clouds = [seen_from(own, at) for own, at in zip(world, poses, strict=True)]
    first, second, left, third, beside, right = cells_of_points(clouds, poses, 1.0).tolist()
    assert first == second == third
    assert len({first, beside, left, right}) == 4


def test_no_clouds_and_a_sample_without_a_cloud() -> None:
    none, one = np.zeros((0, 3), np.float32), np.ones((1, 3), np.float32)
    assert cells_of_points([none, none], np.stack([pose(), pose()]), 0.2).tolist() == []
    assert cells_of_points([one, none, one], np.stack([pose()] * 3), 0.2).tolist() == [0, 0]


# Views


def test_a_view_has_the_mean_score_of_its_mask_or_that_of_its_pixel() -> None:
    """Scores of columns 0..3 at width 4 from two patches, class 0: 1, 0.75, 0.25, 0. Mask 1 covers columns 0 and 1."""
    logits = np.array([[[[1.0, 0.0]], [[0.0, 1.0]]]] * 2, np.float32)
    masks = np.array([[[1, 1, 0, 0], [1, 1, 0, 2]], [[1, 0, 0, 0], [0, 0, 0, 0]]], np.uint16)
    rows = {"point": [0, 1, 2, 2], "image": [0, 0, 0, 1], "row": [0, 0, 1, 1], "col": [0, 2, 3, 1]}
    views = find_views({name: np.array(values) for name, values in rows.items()}, logits, masks)
    assert_allclose(views.scores, [[0.875, 0.125], [0.25, 0.75], [0, 1], [0.75, 0.25]])
    assert views.first_mask.tolist() == [0, 3, 5]
    assert views.mask.tolist() == [1, 0, 2, 3] and views.in_mask.tolist() == [True, False, True, False]


# Agreement: two keyframes, a picture each. Mask 1 of the first sees points 0 and 1, mask 1 of the second sees point 2,
# and point 3 is in no mask. Points 0 and 2 share a cell. No picture sees point 4.

CELL = np.array([0, 1, 0, 2, 3])
VIEWS = Views(
    point=np.array([0, 1, 2, 3]),
    image=np.array([0, 0, 1, 1]),
    row=np.array([0, 0, 0, 1]),
    col=np.array([0, 1, 0, 1]),
    first_mask=np.array([0, 2, 4]),
    mask=np.array([1, 1, 3, 2]),
    in_mask=np.array([True, True, True, False]),
    scores=np.array([[1, 0], [1, 0], [0, 0.5], [0.2, 0.4]], np.float32),
)
NAN = [np.nan, np.nan]


def test_scores_are_averaged_in_cells_and_spread_over_masks() -> None:
    """One round: the first mask has the mean of (0.5, 0.25) and (1, 0), the second one that of its only cell."""
    without = agree(VIEWS, CELL, 0)
    assert_allclose(without.cells, [[0.5, 0.25], [1, 0], [0.2, 0.4], NAN])
    assert_allclose(without.masks[[1, 3]], [[0.75, 0.125], [0.5, 0.25]])
    once = agree(VIEWS, CELL, 1)
    assert_allclose(once.cells, [[0.625, 0.1875], [0.75, 0.125], [0.2, 0.4], NAN])
    assert_allclose(once.masks[[1, 3]], [[0.6875, 0.15625], [0.625, 0.1875]])


def test_labels_confidence_and_pictures_follow_from_agreed_scores() -> None:
    """The second keyframe alone calls mask 1 class 1; over time it is class 0, on which half of the views agree."""
    agreement = agree(VIEWS, CELL, 0)
    labels = label_cells(agreement)
    assert labels.tolist() == [0, 0, 1, IGNORE]
    assert confidence_of_cells(labels, VIEWS, CELL).tolist() == [0.5, 1, 1, 0]
    masks, voted = np.array([[[1, 1], [0, 0]], [[1, 1], [0, 0]]], np.uint16), np.full((2, 2, 2), 2, np.uint8)
    found = label_pictures(agreement, VIEWS, labels[CELL], masks, voted)
    assert found.tolist() == [[[0, 0], [2, 2]], [[0, 0], [2, 1]]]


# What moved: rays of a lidar against boxes, cast here by the slab method


def cast(boxes: np.ndarray, world_from_cloud: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the points (P, 3) that a lidar sees of boxes (B, 2, 3), in its own frame, and the box (P,) of each.

    Its rays are 1 degree apart along a ring, and its 17 rings 1.25 degrees.
    """
    azimuth, elevation = np.meshgrid(np.radians(np.arange(-60, 60) + 0.5), np.radians(np.arange(-8, 9) * 1.25))
    directions = np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=-1
    ).reshape(-1, 3)
    with np.errstate(divide="ignore"):
        slabs = (boxes[:, :, None] - world_from_cloud[:3, 3]) / (directions @ world_from_cloud[:3, :3].T)
    near, far = slabs.min(axis=1).max(axis=-1), slabs.max(axis=1).min(axis=-1)
    distance = np.where((near < far) & (near > 0), near, np.inf)
    hit = np.isfinite(distance.min(axis=0))
    return (directions * distance.min(axis=0)[:, None])[hit].astype(np.float32), distance.argmin(axis=0)[hit]


def box(x: float, y: float, side: float = 2.0) -> list[list[float]]:
    return [[x, y - side / 2, -side / 2], [x + side, y + side / 2, side / 2]]


WALL = [[20.0, -60.0, -30.0], [21.0, 60.0, 30.0]]
PARKED, GONE, ARRIVED = box(10, -4), box(10, 1), box(10, 1)


def test_things_that_moved_do_not_vote_with_what_stands_there_later() -> None:
    """A car has left when the second cloud is recorded, and another one is at its place in the third cloud.

    Rays of the second cloud hit the wall through the empty place. The parked car and the wall stay where they are. The
    lidar moves, so that other rays hit the same voxels.
    """
    poses = np.stack([pose(), pose(0.5, 0.2, 0.05), pose(1.0)])
    scenes = [[WALL, PARKED, GONE], [WALL, PARKED], [WALL, PARKED, ARRIVED]]
    clouds, things = zip(*(cast(np.array(s), at) for s, at in zip(scenes, poses, strict=True)), strict=True)
    cell, thing = cells_of_points(clouds, poses, 0.5), np.concatenate(things)
    sample = np.repeat([0, 1, 2], [len(cloud) for cloud in clouds])
    alone = {number: [set(sample[cell == c]) for c in set(cell[thing == number])] for number in (0, 1, 2)}
    assert all(len(samples) == 1 for samples in alone[2])
    world = np.concatenate([c @ p[:3, :3].T + p[:3, 3] for c, p in zip(clouds, poses, strict=True)])
    first, last = (set(map(tuple, np.floor(world[(thing == 2) & (sample == s)] / 0.5).astype(int))) for s in (0, 2))
    assert len(first & last) >= 10, "both cars are in the same voxels, which have two cells each"
    assert sum(len(samples) > 1 for samples in alone[1]) >= 10
    assert max(map(len, alone[0])) == 3


def test_a_ray_passes_a_place_if_all_points_around_its_direction_are_clearly_behind_it() -> None:
    """A wall at 20 m, seen from the origin. With a margin of 0.5 m or 5 % and the place's own 0.5 m."""
    cloud, _ = cast(np.array([WALL]), pose())
    places = np.array([[10.0, 0, 0], [19.0, 0, 0], [20.5, 0, 0], [-10, 0, 0], [5, 0, 4], [18.0, 5, 0]])
    assert RangeImage.of(cloud).passes(places, 0.5).tolist() == [True, False, False, False, False, True]
    both, _ = cast(np.array([WALL, box(14, 0)]), pose())
    assert RangeImage.of(both).passes(places[:1], 0.5).tolist() == [True]
    assert RangeImage.of(both).passes(np.array([[16.0, 1.1, 0]]), 0.5).tolist() == [False], "beside the edge of the box"
