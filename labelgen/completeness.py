"""Which raw files of a dataset are missing: looked up before any work starts, and told in one sentence.

A few missing files are a matter of their samples. Many at once are a disk that is not mounted, or archives that were
not extracted, and no sample is condemned for that.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from cache_schemas.plurals import counted
from labelgen.samples import Sample, Scene
from labelgen.stages import STAGES
from labelgen.stages.raw_files import FileSizes

FILES = "files"
"""The step of the work, as quarantine entries name it, that finds missing files."""

MANY_SHARE = 0.01
"""More than this share of the samples, and more than one sample, is many."""

NAMED_SCENES = 3


def missing_files(sample: Sample, groups: Collection[str], sizes: FileSizes) -> tuple[str, ...]:
    """Return the missing ones of the raw files that a run reads to make these groups of a sample."""
    if None not in sizes(sample.input_paths + sample.truth_paths).values():
        return ()
    return tuple(path for path, size in sizes(_files_read(sample, groups)).items() if size is None)


def _files_read(sample: Sample, groups: Collection[str]) -> tuple[str, ...]:
    """Return the raw files that stages read: their own, and those of the stages that they share a task with."""
    read: list[str] = []

    def note(paths: tuple[str, ...]) -> dict[str, int | None]:
        read.extend(paths)
        return dict.fromkeys(paths, 0)

    for stage in map(STAGES.__getitem__, groups):
        shared = [source for name in stage.made_from if (source := STAGES[name]).task_name == stage.task_name]
        for declared in (stage, *shared):
            if declared.raw_inputs:
                declared.raw_inputs([sample], note)
    return tuple(dict.fromkeys(read))


def quarantine_reason(files: Sequence[str]) -> str:
    """Return why a sample is left out: the folders that lack files of it, then the first file."""
    return f"No such file in {', '.join(dict.fromkeys(map(_folder, files)))}: {files[0]}"


def short_reason(stage: str, reason: str) -> str:
    """Return a quarantine reason without what differs from sample to sample if only files are missing."""
    return reason.partition(":")[0] if stage == FILES else reason


def are_many(missing: int, samples: int) -> bool:
    """Tell whether so many of the samples lack files that their number itself must be wrong."""
    return missing > max(1, MANY_SHARE * samples)


def describe_missing(missing: Mapping[str, Sequence[str]], samples: int) -> str:
    """Return how many of the samples to be read lack files, and how many files each folder lacks.

    `missing` has the missing files by token of their sample.
    """
    files = [file for of_sample in missing.values() for file in of_sample]
    folders = ", ".join(f"{count:,} in {folder}" for folder, count in sorted(Counter(map(_folder, files)).items()))
    who = f"none of the {counted(samples, 'sample')} to be read has its files"
    if len(missing) < samples:
        who = f"{len(missing):,} of the {samples:,} samples to be read {'lacks' if len(missing) == 1 else 'lack'} files"
    return f"{who}: {folders} (such as {files[0]})"


def describe_complete(scenes: Iterable[Scene], sizes: FileSizes) -> str:
    """Return which scenes have all their files, and how to label them; an empty text if there are none."""
    complete = [
        scene.name
        for scene in scenes
        if all(None not in sizes(sample.input_paths).values() for sample in scene.samples if not sample.defect)
    ]
    if not complete:
        return ""
    named = ", ".join(complete[:NAMED_SCENES]) + (", ..." if len(complete) > NAMED_SCENES else "")
    return (
        f"{counted(len(complete), 'scene')} {'is' if len(complete) == 1 else 'are'} complete ({named}): "
        "--only-complete labels what is complete, "
        f"and --shards '{complete[0]}-*' one scene"
    )


def missing_folders(missing: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the folders that lack files."""
    return sorted({_folder(file) for files in missing.values() for file in files})


def _folder(path: str) -> str:
    return str(PurePosixPath(path).parent)
