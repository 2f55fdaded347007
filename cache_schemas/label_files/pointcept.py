"""The format of Pointcept's data sets, for any taxonomy.

`<split>/<cloud>/`: `coord.npy` (P, 3) f32 in metres, `segment.npy` (P,) i16 with label ids and -1 for no label, and as
far as the cloud has them `color.npy` (P, 3) u8 RGB and `strength.npy` (P, 1) f32.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from cache_schemas.label_files.point_format import CloudName, LabelledCloud, PointFormat, Steps

NO_LABEL = -1


class Pointcept(PointFormat):
    """A folder a cloud."""

    name = "pointcept"

    @override
    def label_file(self, cloud: CloudName) -> Steps:
        return *self._folder(cloud), "segment.npy"

    @override
    def pack(self, official: NDArray[np.int64]) -> bytes:
        return _npy(official.astype(np.int16))

    @override
    def unpack(self, content: bytes) -> NDArray[np.int64]:
        ids: NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
        if ids.dtype.kind not in "iu":
            raise ValueError(f"{ids.dtype} values, not integers")
        if ids.shape not in ((ids.size,), (ids.size, 1)):
            raise ValueError(f"an array of shape {ids.shape}, not one id a point")
        return ids.reshape(-1).astype(np.int64)

    @override
    def files_of_cloud(self, cloud: LabelledCloud) -> Iterator[tuple[Steps, bytes]]:
        folder = self._folder(cloud.name)
        yield (*folder, "coord.npy"), _npy(cloud.xyz.astype(np.float32))
        if cloud.colour is not None:
            yield (*folder, "color.npy"), _npy(cloud.colour)
        if cloud.intensity is not None:
            yield (*folder, "strength.npy"), _npy(cloud.intensity.astype(np.float32).reshape(-1, 1))
        yield from super().files_of_cloud(cloud)

    def _folder(self, cloud: CloudName) -> Steps:
        return cloud.split, cloud.unique


def _npy(values: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    np.save(content, values)
    return content.getvalue()
