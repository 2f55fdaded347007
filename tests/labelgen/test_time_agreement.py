"""Agreement over time: voxels, free space, votes, and pictures, against values computed by hand or by another way."""

import numpy as np
from numpy.testing import assert_allclose

from cache_schemas.taxonomy import IGNORE
from labelgen.geometry import invert_rigid
from labelgen.time_agreement.free_space import RangeImage
from labelgen.time_agreement.pixels import PointVotes, label_picture
from labelgen.time_agreement.votes import vote_in_cells
from labelgen.time_agreement.voxels import cells_of_points

NONE = IGNORE


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


# Votes


def test_votes_are_weighted_and_points_without_a_label_take_part_in_the_result_alone() -> None:
    """Cell 0: class 1 has 0.5 + 0.25, class 2 has 0.7, of three votes. Cell 1: one. Cell 2: a tie. Cell 3: none."""
    cell = np.array([0, 0, 0, 0, 1, 1, 2, 2, 3])
    labels = np.array([1, 2, 1, NONE, NONE, 0, 2, 1, NONE], np.uint8)
    weight = np.array([0.5, 0.7, 0.25, 0.9, 0.1, 0.4, 0.5, 0.5, 1.0])
    found, confidence = vote_in_cells(cell, labels, weight, 3)
    assert found.tolist() == [1, 1, 1, 1, 0, 0, 1, 1, NONE]
    assert_allclose(confidence, [0.25, 0.25, 0.25, 0.25, 0.4, 0.4, 0.25, 0.25, 0])


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


# Pictures


def test_a_mask_takes_the_class_of_its_points_where_they_agree_better_than_its_pixels() -> None:
    """Four masks in columns of 4 pixels; mask 0 is no mask.

    Mask 1: 3 of 4 pixels had the voted class 0; its points agree on 2 with (1 + 1) / 2 = 1, more than 0.75.
    Mask 2: all pixels had class 0; its point has 0.9. Mask 3: 2 of 4 had 1; its points differ, each has 0.8 / 2 = 0.4.
    No mask: the pixel of the point takes its label.
    """
    masks = np.repeat(np.array([[1, 2, 3, 0]], np.uint16), 4, axis=0)
    raw = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 2, 0], [2, 0, 2, 0]], np.uint8)
    voted = np.repeat(np.array([[0, 0, 1, 0]], np.uint8), 4, axis=0)
    points = PointVotes(
        row=np.array([0, 1, 0, 0, 1, 3]),
        col=np.array([0, 0, 1, 2, 2, 3]),
        label=np.array([2, 2, 1, 1, 2, 1], np.uint8),
        confidence=np.array([1, 1, 0.9, 0.8, 0.8, 0.1], np.float32),
    )
    expected = np.array([[2, 0, 1, 0], [2, 0, 1, 0], [2, 0, 1, 0], [2, 0, 1, 1]])
    np.testing.assert_array_equal(label_picture(raw, voted, masks, points, 3), expected)
    nothing = PointVotes(*(values[:0] for values in (points.row, points.col, points.label, points.confidence)))
    np.testing.assert_array_equal(label_picture(raw, voted, masks, nothing, 3), voted)
