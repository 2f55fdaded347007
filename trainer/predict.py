"""Label the points of a cache with a run's 3D network, in the file format of the data set's own evaluation."""

from collections.abc import Callable
from pathlib import Path

from cache_schemas.label_files.formats import point_format, usual_format
from cache_schemas.label_files.nuscenes_lidarseg import SPLITS, NuscenesLidarseg
from cache_schemas.label_files.output_folder import OutputFolder
from cache_schemas.label_files.point_format import CloudName, LabelledCloud
from trainer.errors import TrainerError
from trainer.evaluation.inputs import choose_scenes, open_for_prediction
from trainer.evaluation.predictor import PointLabeller, load_model
from trainer.run_folder import RunFolder


def predict(
    run: RunFolder,
    cache: str,
    out: Path,
    *,
    file_format: str | None = None,
    scenes: str | None = None,
    checkpoint: str = "last",
    overwrite: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> list[Path]:
    """Label every point of a cache's clouds with the 3D network, and return the files written.

    `file_format` is one of `cache_schemas.label_files`; None stands for the official one of the cache's taxonomy, or
    pointcept where there is none. Files that are there and were changed are replaced only with `overwrite`.

    Raises:
        CacheError, UnfitCacheError: if the cache cannot be read, has other classes than the run, does not fit the
            format, or `out` cannot be written.
        RunFolderError: if there is no such run or checkpoint.
        TrainerError: if the run has no 3D network, or the official evaluation does not know the split of the cache.
    """
    record = run.record()
    stream = open_for_prediction(record, cache)
    taxonomy = stream.manifest.taxonomy
    labels = point_format(file_format, taxonomy) if file_format else usual_format(taxonomy)
    samples, _ = choose_scenes(stream, record, scenes or "all")
    splits = dict.fromkeys(map(stream.split_of, samples))
    if labels.name == NuscenesLidarseg.name and (unknown := [split for split in splits if split not in SPLITS]):
        raise TrainerError(
            f"{cache}: {labels.name} has no split {unknown[0]!r}; make a cache of one of {', '.join(SPLITS)} with "
            "`labelgen run --split`, or choose --format pointcept"
        )
    names = [CloudName(stream.split_of(ref), ref.scene, ref.token, stream.cloud_name(ref)) for ref in samples]
    for name in names:
        labels.label_file(name)
    labeller = PointLabeller(load_model(run, record.settings, checkpoint), record.settings, stream, samples)
    output = OutputFolder(out, overwrite=overwrite)
    files = [output.write(steps, content) for split in splits for steps, content in labels.files_of_split(split)]
    for number, (ref, name) in enumerate(zip(samples, names, strict=True)):
        cloud = stream.read(ref)
        labelled = LabelledCloud(name, labeller.label(number), cloud["points/xyz"], cloud.get("points/intensity"))
        files += [output.write(steps, content) for steps, content in labels.files_of_cloud(labelled)]
        say(f"labelled {number + 1} of {len(names)} clouds")
    return files
