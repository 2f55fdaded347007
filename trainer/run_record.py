"""The record of a run (run.json): what it was trained with and on, and which of this may change when it resumes."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cache_schemas.taxonomy import Taxonomy
from trainer.errors import RunFolderError
from trainer.settings import RunSettings, renamed_keys

RECORD_VERSION = 2
"""Raised when the meaning of run.json or of the checkpoints changes."""

RESUMABLE = {
    "checkpoint_minutes": "how often a checkpoint is written",
    "keep_checkpoints": "which checkpoints stay",
    "score_epochs": "how often held-out scenes are scored",
    "optimiser.epochs": "more or fewer epochs; the learning rate follows the new number",
    "optimiser.precision": "the precision of the coming steps",
    "optimiser.tf32": "the precision of the coming sparse convolutions",
    "stream.batch_samples": "the checkpoint checks the number of samples of a step on all ranks",
    "stream.workers": "which processes prepare batches",
}
"""Settings that may be others when a run resumes, and what they change then."""


class RunRecord(BaseModel):
    """What determines a run, as run.json holds it.

    Attributes:
        version: of this format.
        settings: of the run; after a resume, those that it resumed with.
        dataset: the data set of the cache.
        cache: the URL or path of the cache.
        content: a digest of the fingerprints of all groups that the run reads.
        trained, held_out: the scenes that were trained on, and those held out, with digests of their pictures and
            clouds (`CacheStream.scene_contents`).
        taxonomy: the classes.
        teacher_widths: by teacher, the number of channels of its frozen features.
        absent_weights: a sentence if the 2D backbone started from noise because its weights were absent, else "".
        init: the run or the file whose weights it started from, if any.
        software: versions of the packages, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = RECORD_VERSION
    settings: RunSettings
    dataset: str
    cache: str
    content: str
    trained: dict[str, tuple[str, ...]]
    held_out: dict[str, tuple[str, ...]]
    taxonomy: Taxonomy
    teacher_widths: dict[str, int]
    absent_weights: str
    init: str | None
    software: dict[str, str]

    @classmethod
    def parse(cls, text: str, file: Path) -> "RunRecord":
        """Return the record that a `file` with this text holds.

        Raises:
            RunFolderError: if it is damaged or of another version.
        """
        try:
            document = json.loads(text)
            version = document.get("version")
        except (ValueError, AttributeError):
            raise RunFolderError(f"{file}: not the record of a run; start the run again in another folder") from None
        _refuse_renamed_keys(file, document)
        if version != RECORD_VERSION:
            raise RunFolderError(
                f"{file}: version {version} of the record, this software reads version {RECORD_VERSION}; "
                "use the software that wrote it, or start the run again in another folder"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            place = ".".join(str(step) for step in error.errors()[0]["loc"])
            raise RunFolderError(
                f"{file}: {place}: {error.errors()[0]['msg']}; start the run again in another folder"
            ) from None

    def refuse_other(self, now: "RunRecord", folder: Path) -> None:
        """Check that a run with the record `now` can go on where this one ended.

        Raises:
            RunFolderError: if its settings or its cache differ; it names what differs.
        """
        then, given = _flat(self.settings.model_dump(mode="json")), _flat(now.settings.model_dump(mode="json"))
        differing = [name for name in then if then[name] != given.get(name) and name not in RESUMABLE]
        if differing:
            values = ", ".join(f"{name} = {then[name]} in the run, {given.get(name)} now" for name in differing)
            raise RunFolderError(
                f"{folder}: its run has other settings ({values}); resume with those of the run, or give --out another "
                f"folder. Only these may change: {', '.join(RESUMABLE)}"
            )
        if self.content != now.content:
            raise RunFolderError(
                f"{folder}: its run has other cache contents (labels, pictures or clouds were made again since, or "
                f"{now.cache} is another cache than {self.cache}); resume with the cache of the run, or give --out "
                "another folder"
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their full keys, such as `stream.images`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _refuse_renamed_keys(file: Path, document: dict[str, Any]) -> None:
    settings = document.get("settings")
    if isinstance(settings, dict) and (renamed := renamed_keys(settings)):
        names = ", ".join(f"{old!r} to {new!r}" for old, new in renamed.items())
        raise RunFolderError(
            f"{file}: written by an earlier version; rename the settings {names} in this file to use the run"
        )
