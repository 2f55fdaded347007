"""The format of ScanNet's 3D semantic benchmark.

`<scan>.txt`: one nyu40 id a line, in the order of the mesh's vertices; 0 is no label, which the evaluation counts as a
miss.
"""

import re

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from cache_schemas.errors import LabelFileError
from cache_schemas.label_files.point_format import CloudName, PointFormat, Steps


class Scannet(PointFormat):
    """Files named by scan."""

    name = "scannet"

    @override
    def label_file(self, cloud: CloudName) -> Steps:
        for name in (cloud.cloud, cloud.token, cloud.scene):
            if re.fullmatch(r"scene\d{4}_\d{2}", name):
                return (f"{name}.txt",)
        raise LabelFileError(
            f"{cloud}: not a scan of ScanNet, which is called scene0000_00 and so on; export this cache in another "
            "format"
        )

    @override
    def pack(self, official: NDArray[np.int64]) -> bytes:
        return "".join(f"{value}\n" for value in official.tolist()).encode()

    @override
    def unpack(self, content: bytes) -> NDArray[np.int64]:
        return np.array([int(line) for line in content.decode("ascii").split()], np.int64)
