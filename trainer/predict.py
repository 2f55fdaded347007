"""Label the points of a cache with a run's 3D network, in the file format of the data set's own evaluation."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cache_schemas.names import is_file_name
from cache_schemas.taxonomy import Taxonomy, load_taxonomy
from trainer.errors import TrainerError, UnfitCacheError
from trainer.evaluation.inputs import choose_scenes, open_for_prediction
from trainer.evaluation.predictor import PointLabeller, load_model
from trainer.run_folder import RunFolder

LIDARSEG_TAXONOMY = "nuscenes16"
"""Ids of this taxonomy, plus 1, are the classes of the lidarseg challenge."""

LIDARSEG_SPLITS = ("train", "val", "test", "mini_train", "mini_val")
"""The splits that the challenge's own evaluation knows."""

NUSCENES_META = {"use_camera": True, "use_lidar": True, "use_radar": False, "use_map": False, "use_external": True}


def predict(
    run: RunFolder,
    cache: str,
    out: Path,
    *,
    scenes: str | None = None,
    checkpoint: str = "last",
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Label every point of a cache's clouds with the 3D network, and return the files written.

    nuScenes: `lidarseg/<split>/<lidar token>_lidarseg.bin` with one u8 for each point, in the order of the cloud's
    file, 1..16 as in the lidarseg challenge; and `<split>/submission.json`.

    Raises:
        CacheError, UnfitCacheError: if the cache cannot be read, has other classes than the run, or does not have the
            names of its clouds.
        RunFolderError: if there is no such run or checkpoint.
        TrainerError: if the file format lacks the classes or the split of the cache, or `out` cannot be written.
    """
    record = run.record()
    stream = open_for_prediction(record, cache)
    split = stream.manifest.split
    _refuse_unofficial(cache, stream.manifest.taxonomy, split)
    samples, _ = choose_scenes(stream, record, scenes or "all")
    names = [stream.cloud_name(ref) for ref in samples]
    if not all(names):
        raise UnfitCacheError(
            f"{cache}: does not have the names of its clouds; run the same `labelgen run` command again to add them"
        )
    labeller = PointLabeller(load_model(run, record.settings, checkpoint), record.settings, stream, samples)
    folder, submission = _inside(out, "lidarseg", split), _inside(out, split)
    files = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        submission.mkdir(exist_ok=True)
        (submission / "submission.json").write_text(json.dumps({"meta": NUSCENES_META}))
        for number, name in enumerate(names):
            file = _inside(folder, f"{name}_lidarseg.bin")
            (labeller.label(number) + np.uint8(1)).tofile(file)
            files.append(file)
            say(f"labelled {number + 1} of {len(names)} clouds")
    except OSError as error:
        raise TrainerError(f"{out}: cannot be written ({error.strerror}); give another folder") from None
    return files


def _refuse_unofficial(cache: str, taxonomy: Taxonomy, split: str) -> None:
    official = load_taxonomy(LIDARSEG_TAXONOMY)
    if taxonomy.digest != official.digest:
        raise TrainerError(
            f"{cache}: no official file format for point labels of its classes ({', '.join(taxonomy.names)}); "
            f"there is one for those of {LIDARSEG_TAXONOMY!r} ({', '.join(official.names)})"
        )
    if split not in LIDARSEG_SPLITS:
        raise TrainerError(
            f"{cache}: the official file format has no split {split!r}; make a cache of one of "
            f"{', '.join(LIDARSEG_SPLITS)} with `labelgen run --split`"
        )


def _inside(folder: Path, *names: str) -> Path:
    """Return a path below `folder`; each of `names` is one step, so that no document of a cache leads elsewhere.

    Raises:
        UnfitCacheError: if one of them is not the name of one file or folder.
    """
    if paths := [name for name in names if not is_file_name(name)]:
        raise UnfitCacheError(
            f"the cache calls a file {paths[0]!r}, which is not a name; make the cache again with `labelgen run`"
        )
    return folder.joinpath(*names)
