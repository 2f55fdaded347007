"""The format of SemanticKITTI.

`sequences/NN/predictions/%06d.label`: one little-endian u32 a point with a raw id of the data set, 0 for no label.
Labels are also read from `sequences/NN/labels/`, the folder of the data set and of tools that correct labels.
`poses.txt` and `calib.txt` of a sequence are those that KITTI's readers expect: the pose of a cloud is
inverse(Tr) pose Tr, and the pixel of a point x is P2 Tr x.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from cache_schemas.errors import LabelFileError
from cache_schemas.label_files.point_format import CloudCalibration, CloudName, PointFormat, Steps

CAMERAS = ("P0", "P1", "P2", "P3")
CLASS_BITS = 0xFFFF
"""The low 16 bits of a label are the class, the high ones the instance."""


class Semantickitti(PointFormat):
    """Files named by sequence and frame."""

    name = "semantickitti"

    @override
    def label_file(self, cloud: CloudName) -> Steps:
        sequence, frame = _sequence_and_frame(cloud)
        return "sequences", sequence, "predictions", f"{frame:06d}.label"

    @override
    def places(self, cloud: CloudName) -> Iterator[Steps]:
        sequences, sequence, predictions, file = self.label_file(cloud)
        yield sequences, sequence, "labels", file  # where labelling tools write
        yield sequences, sequence, predictions, file

    @override
    def pack(self, official: NDArray[np.int64]) -> bytes:
        return official.astype("<u4").tobytes()

    @override
    def unpack(self, content: bytes) -> NDArray[np.int64]:
        if len(content) % 4:
            raise ValueError(f"{len(content)} bytes, which is not a multiple of 4")
        return np.frombuffer(content, "<u4").astype(np.int64) & CLASS_BITS

    @override
    def files_of_scene(self, clouds: Sequence[CloudCalibration]) -> Iterator[tuple[Steps, bytes]]:
        """Yield `calib.txt` where there is a camera, and `poses.txt` where every frame from 0 on has a pose.

        Line n of `poses.txt` is the pose of frame n, so that a frame without a pose leaves no file at all.
        """
        first = clouds[0]
        if first.cam_from_cloud is None or first.intrinsics is None:
            return
        sequence, _ = _sequence_and_frame(first.name)
        projection = np.hstack([first.intrinsics, np.zeros((3, 1))])
        lines = [f"{name}: {_numbers(projection)}" for name in CAMERAS]
        lines.append(f"Tr: {_numbers(first.cam_from_cloud)}")
        yield ("sequences", sequence, "calib.txt"), "".join(f"{line}\n" for line in lines).encode()
        poses = {_sequence_and_frame(cloud.name)[1]: cloud.world_from_cloud for cloud in clouds}
        known = [poses.get(frame) for frame in range(len(poses))]
        if all(pose is not None for pose in known):
            cam, cloud_from_cam = first.cam_from_cloud, np.linalg.inv(first.cam_from_cloud)
            text = "".join(f"{_numbers(cam @ pose @ cloud_from_cam)}\n" for pose in known if pose is not None)
            yield ("sequences", sequence, "poses.txt"), text.encode()


def _sequence_and_frame(cloud: CloudName) -> tuple[str, int]:
    """Return the sequence, two digits, and the frame; a scene ends with the one, a cloud or token with the other."""
    sequence = re.search(r"(?<!\d)\d\d$", cloud.scene)
    frame = re.search(r"(?<!\d)\d{6}$", cloud.cloud) or re.search(r"(?<!\d)\d{6}$", cloud.token)
    if sequence is None or frame is None:
        raise LabelFileError(
            f"{cloud}: not a frame of SemanticKITTI, whose scenes end with two digits and whose frames with six; "
            "export this cache in another format"
        )
    return sequence[0], int(frame[0])


def _numbers(matrix: NDArray[np.float64]) -> str:
    """Return the first three rows of a matrix as text that gives the same float64 values when it is read."""
    return " ".join(f"{value:.17g}" for value in matrix[:3].ravel().tolist())
