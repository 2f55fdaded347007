"""How a nuScenes folder is laid out after extraction: which archive holds what, and folders that are misplaced."""

from collections.abc import Sequence
from pathlib import Path

PARTS = ("samples", "sweeps", "lidarseg", "maps")
CHANNEL_PARTS = 10
"""v1.0-trainval comes in ten archives of pictures and clouds."""

SCENE_TABLE = "scene.json"


def version_names(data: Path) -> list[str]:
    """Return the version folders of a dataset: those with tables, or, without any, all of such a name.

    A folder such as v1.0-trainval01_blobs is no version folder; somebody extracted an archive into it.
    """
    folders = sorted(path for path in data.glob("v1.0-*") if path.is_dir())
    return [path.name for path in folders if any(path.glob("*.json"))] or [path.name for path in folders]


def misplaced_version(data: Path) -> str:
    """Return what is wrong with a folder whose version folders hold no tables; an empty text if that is not known."""
    if any(data.glob(f"v1.0-*/{SCENE_TABLE}")) or any(data.glob(f"v1.0-*/v1.0-*/{SCENE_TABLE}")):
        return ""
    if (data / SCENE_TABLE).is_file():
        return f"this is a version folder itself; give its parent, --data {data.parent}"
    if data.name in PARTS or (data / "LIDAR_TOP").is_dir():
        return f"this is a part of the dataset; give the folder that holds samples/ and v1.0-*/, --data {data.parent}"
    if deeper := sorted(table.parents[1] for table in data.glob(f"*/v1.0-*/{SCENE_TABLE}")):
        return f"the dataset lies one folder deeper; give --data {deeper[0]}"
    if deeper := sorted(table.parents[1] for table in data.glob(f"*/*/v1.0-*/{SCENE_TABLE}")):
        return f"the dataset lies two folders deeper; give --data {deeper[0]}"
    return ""


def nested_version(folder: Path) -> str:
    """Return what is wrong if a version folder holds a version folder with the tables, else an empty text."""
    nested = [] if (folder / SCENE_TABLE).is_file() else sorted(folder.glob(f"v1.0-*/{SCENE_TABLE}"))
    if nested:
        inner = nested[0].parent
        return f"{folder}: the tables lie one folder too deep, in {inner}; move this folder to {folder.parent}"
    return ""


def misplaced_parts(data: Path, folders: Sequence[str]) -> str:
    """Return where folders that lack files are found instead, such as below an archive's own folder."""
    for folder in folders:
        elsewhere = [path for pattern in (f"*/{folder}", f"*/*/{folder}") for path in sorted(data.glob(pattern))]
        channel = data / Path(folder).name
        elsewhere += [channel] if channel.is_dir() else []
        if found := [path for path in elsewhere if path.is_dir()]:
            return f"there is a folder {found[0]}: move what it holds to {data / folder}"
    return ""


def archives(version: str, folders: Sequence[str]) -> str:
    """Return which official archives hold the files of these folders."""
    tops = {Path(folder).parts[0] for folder in folders if Path(folder).parts}
    names = []
    if tops - {"lidarseg"}:
        of_version = {"v1.0-mini": "v1.0-mini.tgz", "v1.0-test": "v1.0-test_blobs.tgz"}
        several = f"{version}01_blobs.tgz to {version}{CHANNEL_PARTS}_blobs.tgz (all of them)"
        names.append(of_version.get(version, several))
        kinds = {"lidar" if "LIDAR" in folder else "camera" for folder in folders if folder.startswith("samples/")}
        if len(kinds) == 1 and version not in of_version:
            kind = kinds.pop()
            names[-1] += f", of which {version}01_blobs_{kind}.tgz and so on hold this sensor alone"
    if "lidarseg" in tops:
        names.append(f"nuScenes-lidarseg-{version.removeprefix('v1.0-').replace('trainval', 'all')}-v1.0.tar.bz2")
    return f"extract {' and '.join(names)} into the folder that holds {version}/"
