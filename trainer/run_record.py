"""The record of a run (run.json): what it was trained with and on, and which of this may change when it resumes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cache_schemas.plurals import counted
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
    "stream.local_copy": "where arrays are copied to",
    "stream.workers": "which processes prepare batches",
}
"""Settings that may be others when a run resumes, and what they change then."""


class CacheRecord(BaseModel):
    """A cache of a run.

    Attributes:
        cache: its URL or path.
        dataset: its data set.
        share: of the steps, in proportion to those of the other caches; None: every sample once an epoch.
        content: a digest of the fingerprints of all groups that the run reads.
        trained, held_out: the scenes that were trained on, and those held out, with digests of their pictures and
            clouds (`CacheStream.scene_contents`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cache: str
    dataset: str
    share: int | None = None
    content: str
    trained: dict[str, tuple[str, ...]]
    held_out: dict[str, tuple[str, ...]]


class RunRecord(BaseModel):
    """What determines a run, as run.json holds it.

    Attributes:
        version: of this format.
        settings: of the run; after a resume, those that it resumed with.
        caches: those that it trains on, at least one.
        taxonomy: the classes, which all caches share.
        teacher_widths: by teacher, the number of channels of its frozen features.
        absent_weights: a sentence if the 2D backbone started from noise because its weights were absent, else "".
        init: the run or the file whose weights it started from, if any.
        software: versions of the packages, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = RECORD_VERSION
    settings: RunSettings
    caches: tuple[CacheRecord, ...]
    taxonomy: Taxonomy
    teacher_widths: dict[str, int]
    absent_weights: str
    init: str | None
    software: dict[str, str]

    @model_validator(mode="before")
    @classmethod
    def _read_single_cache(cls, values: Any) -> Any:
        """Read the record of a run that was started when a run had one cache, so that it can go on."""
        if not isinstance(values, dict) or "caches" in values:
            return values
        single = {name: values[name] for name in CacheRecord.model_fields if name in values}
        return {name: value for name, value in values.items() if name not in single} | {"caches": [single]}

    @property
    def trained(self) -> dict[str, tuple[str, ...]]:
        """The digests of the scenes that were trained on, by name; scenes of one name in several caches are joined."""
        return _joined([cache.trained for cache in self.caches])

    @property
    def held_out(self) -> dict[str, tuple[str, ...]]:
        """The digests of the scenes that were held out, as those of `trained`."""
        return _joined([cache.held_out for cache in self.caches])

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
        self._refuse_other_caches(now, folder)

    def _refuse_other_caches(self, now: "RunRecord", folder: Path) -> None:
        if len(self.caches) != len(now.caches):
            urls = ", ".join(cache.cache for cache in self.caches)
            raise RunFolderError(
                f"{folder}: its run has {counted(len(self.caches), 'cache')} ({urls}), and {len(now.caches)} now; "
                "resume with those of the run in their order, or give --out another folder"
            )
        for own, given in zip(self.caches, now.caches, strict=True):
            if own.content != given.content:
                raise RunFolderError(
                    f"{folder}: its run has other cache contents (labels, pictures or clouds were made again since, or "
                    f"{given.cache} is another cache than {own.cache}); resume with the cache of the run, or give "
                    "--out another folder"
                )
        then, given_shares = ([cache.share for cache in record.caches] for record in (self, now))
        if then != given_shares:
            raise RunFolderError(
                f"{folder}: its run has other shares of its caches ({_share_options(then)} in the run, "
                f"{_share_options(given_shares)} now); resume with those of the run, or give --out another folder"
            )


def _joined(by_cache: Sequence[Mapping[str, tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    joined: dict[str, tuple[str, ...]] = {}
    for scenes in by_cache:
        for scene, digests in scenes.items():
            joined[scene] = joined.get(scene, ()) + digests
    return joined


def _share_options(shares: Sequence[int | None]) -> str:
    return " ".join(f"--share {share}" for share in shares if share is not None) or "no --share"


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
