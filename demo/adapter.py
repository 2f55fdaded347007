"""Adapter of demo worlds: the nuScenes layout, with true classes and segments of all pixels beside the pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from labelgen.datasets.declaration import Dataset
from labelgen.datasets.nuscenes.adapter import NuScenes
from labelgen.datasets.nuscenes.splits import ALL
from labelgen.errors import DatasetError
from labelgen.samples import Camera, Sample, Scene

HELD_OUT_EVERY = 5
"""Every fifth scene in name order belongs to `val`, the others to `train`."""

SPLITS = (ALL, "train", "val")


class Demo(NuScenes):
    """A folder written by `labelgen demo make`."""

    remedy = "make a world with `labelgen demo make --out {data}`"

    def remedy_for_missing(self, folders: Sequence[str]) -> str:
        """Return how to make the world again."""
        return self.remedy.format(data=self.data)

    def scenes(self, split: str, version: str | None) -> list[Scene]:
        """Return the scenes of `split` with their image truth; see `Adapter.scenes`."""
        if split not in SPLITS:
            raise DatasetError(f"no split {split!r} in the demo; choose {', '.join(SPLITS)}")
        scenes = super().scenes(ALL, version)
        held_out = scenes[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY]
        chosen = {ALL: scenes, "val": held_out, "train": [scene for scene in scenes if scene not in held_out]}[split]
        if not chosen:
            raise DatasetError(f"{self.data}: {len(scenes)} scenes are too few for split {split!r}; make 5 or more")
        return [Scene(scene.name, tuple(map(_with_image_truth, scene.samples))) for scene in chosen]


def _with_image_truth(sample: Sample) -> Sample:
    return replace(sample, cameras=tuple(map(_with_truth_paths, sample.cameras)))


def _with_truth_paths(camera: Camera) -> Camera:
    picture = PurePosixPath(camera.image_path)
    classes, segments = (
        str(PurePosixPath(folder, camera.channel, f"{picture.stem}.png"))
        for folder in ("image_truth", "image_instances")
    )
    return replace(camera, truth_path=classes, segments_path=segments)


DATASET = Dataset(adapter=Demo, settings=Path(__file__).parent / "configs" / "settings.yaml")
