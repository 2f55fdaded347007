"""The format of the nuScenes lidarseg challenge.

`lidarseg/<split>/<token of the cloud>_lidarseg.bin`: one u8 a point, 1..16, in the order of the cloud's file. 0 is no
label; the official evaluation refuses it in predictions. `<split>/submission.json` says what the labels were made with.
"""

import json
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from cache_schemas.errors import LabelFileError
from cache_schemas.label_files.point_format import CloudName, PointFormat, Steps

SPLITS = ("train", "val", "test", "mini_train", "mini_val")
"""The splits that the official evaluation knows."""

META = {"use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": True}


class NuscenesLidarseg(PointFormat):
    """Files named by the token of the cloud."""

    name = "nuscenes-lidarseg"

    @override
    def label_file(self, cloud: CloudName) -> Steps:
        if not cloud.cloud:
            raise LabelFileError(
                f"{cloud}: the cache does not have the names of its clouds; run the same `labelgen run` command again "
                "to add them"
            )
        return "lidarseg", cloud.split, f"{cloud.cloud}_lidarseg.bin"

    @override
    def pack(self, official: NDArray[np.int64]) -> bytes:
        return official.astype(np.uint8).tobytes()

    @override
    def unpack(self, content: bytes) -> NDArray[np.int64]:
        return np.frombuffer(content, np.uint8).astype(np.int64)

    @override
    def files_of_split(self, split: str) -> Iterator[tuple[Steps, bytes]]:
        yield (split, "submission.json"), json.dumps({"meta": META}).encode()
