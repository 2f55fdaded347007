"""Where the files of ScanNet lie: the scans of a folder, in one of three versions of their frames."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from labelgen.datasets.scannet.splits import split_scans
from labelgen.errors import DatasetError

SCAN = re.compile(r"(scene\d{4})_\d{2}")
SCAN_FOLDERS = ("scans", "scans_test")
PARTS = (*SCAN_FOLDERS, "tasks")
FRAME_FOLDERS = (
    *("tasks/scannet_frames_25k", "tasks/scannet_frames_test"),
    *("scannet_frames_25k", "scannet_frames_test"),
)
FRAMES_25K, EXPORTED, SENS = VERSIONS = ("frames_25k", "exported", "sens")

EVERY = {FRAMES_25K: 1, EXPORTED: 20, SENS: 20}
"""Of each version, frames whose number is a multiple of this are read, unless the setting says otherwise."""

MESH, TRUTH_MESH = "_vh_clean_2.ply", "_vh_clean_2.labels.ply"
GROUPS, SEGMENTS = ".aggregation.json", "_vh_clean_2.0.010000.segs.json"


@dataclass(frozen=True)
class FrameFiles:
    """How the files of a frame are called, relative to the folder with the frames of a scan; {} is its number."""

    colour: str
    depth: str
    pose: str
    label: str
    intrinsics: str
    """Here {} is `color` or `depth`."""


FILES = {
    FRAMES_25K: FrameFiles(
        "color/{:06d}.jpg", "depth/{:06d}.png", "pose/{:06d}.txt", "label/{:06d}.png", "intrinsics_{}.txt"
    ),
    EXPORTED: FrameFiles(
        "color/{}.jpg", "depth/{}.png", "pose/{}.txt", "label-filt/{}.png", "intrinsic/intrinsic_{}.txt"
    ),
    SENS: FrameFiles("", "", "", "label-filt/{}.png", ""),
}


@dataclass(frozen=True)
class Version:
    """Which frames are read: those of a layout whose number is a multiple of `every`."""

    layout: str
    every: int


@dataclass(frozen=True)
class Scan:
    """One scan: its name, the folder of its mesh and that of its frames, relative to the dataset folder."""

    name: str
    folder: str
    frames: str

    @property
    def space(self) -> str:
        """The name of the room; several scans may show it."""
        return self.name.partition("_")[0]

    def file(self, ending: str) -> str:
        """Return the path of a file of the scan, relative to the dataset folder."""
        return f"{self.folder}/{self.name}{ending}"


def find_version(data: Path, version: str | None) -> Version:
    """Return the version of a setting such as `sens`, `sens/50` or None: the only one that is there.

    Raises:
        DatasetError: if there is no such version, if several are there and none is named, or if `data` is a part of
            the data set.
    """
    if data.name in PARTS and not any((data / folder).is_dir() for folder in SCAN_FOLDERS):
        raise DatasetError(f"{data}: this is a part of the data set; give its parent, --data {data.parent}")
    if version is not None:
        match = re.fullmatch(rf"({'|'.join(VERSIONS)})(?:/([1-9]\d{{0,5}}))?", version)
        if match is None:
            raise DatasetError(
                f"no version {version!r} of ScanNet; choose {', '.join(VERSIONS)}, or for example sens/50 for the "
                "frames whose number is a multiple of 50"
            )
        return Version(match[1], int(match[2] or EVERY[match[1]]))
    there = [name for name in VERSIONS if any(True for _ in _scans_of(data, name))]
    if not there:
        raise DatasetError(f"{data}: {_no_scans(data)}")
    if len(there) > 1:
        raise DatasetError(f"{data}: which frames? it holds {', '.join(there)}; choose with --set version=...")
    return Version(there[0], EVERY[there[0]])


def find_scans(data: Path, layout: str) -> list[Scan]:
    """Return the scans whose frames are in the folder `data`, in name order.

    Raises:
        DatasetError: if there are none.
    """
    scans: dict[str, Scan] = {}
    for scan in _scans_of(data, layout):
        scans.setdefault(scan.name, scan)
    if not scans:
        raise DatasetError(f"{data}: no scan has frames of version {layout}; {_no_scans(data)}")
    return [scans[name] for name in sorted(scans)]


def _scans_of(data: Path, layout: str) -> Iterable[Scan]:
    if layout == FRAMES_25K:
        for parent in FRAME_FOLDERS:
            for name in _scan_names(data / parent):
                yield Scan(name, _mesh_folder(data, name), f"{parent}/{name}")
        return
    for parent in SCAN_FOLDERS:
        for name in _scan_names(data / parent):
            wanted = f"{name}.sens" if layout == SENS else "color"
            if (data / parent / name / wanted).exists():
                yield Scan(name, f"{parent}/{name}", f"{parent}/{name}")


def _scan_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if SCAN.fullmatch(path.name)) if folder.is_dir() else []


def _mesh_folder(data: Path, scan: str) -> str:
    """Return the folder of a scan's mesh; where it should be if there is none."""
    official = SCAN_FOLDERS[scan in split_scans("test")]
    there = [parent for parent in SCAN_FOLDERS if (data / parent / scan).is_dir()]
    return f"{official if official in there or not there else there[0]}/{scan}"


def _no_scans(data: Path) -> str:
    """Return why a folder holds no scans: it is a part of the data set, or an archive is still packed."""
    if data.name.startswith("scannet_frames") and _scan_names(data):
        parent = data.parent.parent if data.parent.name == "tasks" else data.parent
        return f"this is a part of the data set; give the folder that holds scans/ too, such as --data {parent}"
    for folder in FRAME_FOLDERS:
        if (archive := data / f"{folder}.zip").is_file():
            return f"extract {archive} into {archive.parent}"
    return "give the folder that holds scans/ and tasks/scannet_frames_25k/, or scans/ with .sens files"


def remedy(folders: Iterable[str]) -> str:
    """Return which official files hold what is missing in these folders."""
    parts = []
    if any(folder.startswith(SCAN_FOLDERS) for folder in folders):
        parts.append(f"download the files <scan>{MESH} and, for truth, <scan>{TRUTH_MESH} into scans/<scan>/")
    if any("scannet_frames" in folder for folder in folders):
        parts.append("extract scannet_frames_25k.zip (scannet_frames_test.zip for test) again")
    return " and ".join(parts) or "download the scans again"
