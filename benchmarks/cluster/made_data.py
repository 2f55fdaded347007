"""A made data set of any number of keyframes in little memory: its pictures are links to one file, and so its clouds.

    python -m benchmarks.cluster.made_data FOLDER SCENES KEYFRAMES

The folder must be on a file system without a bound on links, such as tmpfs.
"""

import os
import sys
from pathlib import Path
from typing import Any

from labelgen.datasets.nuscenes.splits import split_scenes
from tests.labelgen.make_nuscenes import _Maker

VERSION = "v1.0-trainval"


def make_data(folder: Path, scenes: int, keyframes: int) -> Path:
    """Write `scenes` scenes of the split `train` with `keyframes` each, in the layout of nuScenes."""
    maker = _LinkMaker(folder, VERSION, lidarseg=True, seed=0)
    for scene in sorted(split_scenes("train"))[:scenes]:
        maker.add_scene(scene, keyframes)
    maker.write_tables()
    return folder


class _Picture:
    """A drawing whose further copies on the disk are links to the first one."""

    def __init__(self, drawing: Any) -> None:
        self._drawing = drawing
        self._first: Path | None = None

    def save(self, path: Path, quality: int) -> None:
        if self._first:
            os.link(self._first, path)
        else:
            self._drawing.save(path, quality=quality)
            self._first = path


class _LinkMaker(_Maker):
    _picture: _Picture | None = None
    _first_cloud: tuple[Path, Path] | None = None

    def picture(self) -> Any:
        self._picture = self._picture or _Picture(super().picture())
        return self._picture

    def write_cloud(self, path: Path, token: str) -> None:
        labels = self.folder / "lidarseg" / self.version / f"{token}_lidarseg.bin"
        if not self._first_cloud:
            super().write_cloud(path, token)
            self._first_cloud = path, labels
            return
        os.link(self._first_cloud[0], path)
        os.link(self._first_cloud[1], labels)
        name = labels.relative_to(self.folder).as_posix()
        self.tables["lidarseg"].append({"token": token, "sample_data_token": token, "filename": name})


if __name__ == "__main__":
    make_data(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
