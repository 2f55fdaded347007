"""The summary of the last run in its cache: `summary.json`, from which later runs are forecast."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from cache_schemas.cache_files import files_at
from cache_schemas.group_path import SUMMARY
from cache_schemas.lock import writing
from pipelines.summary import RunSummary


class PastRun(BaseModel):
    """What a forecast takes from the summary of an earlier run; the fields are those of `RunSummary`."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    finished: str
    gpus: float
    teacher_recipes: dict[str, str]
    stage_seconds: dict[str, float]
    stage_pictures: dict[str, int]
    wall_over_teachers: float | None

    def seconds_per_picture(self, stage: str, recipe: str) -> float | None:
        """Return the work of a teacher's stage for one picture; None if it was not done under these settings."""
        pictures = self.stage_pictures.get(stage, 0)
        if not pictures or self.teacher_recipes.get(stage) != recipe or stage not in self.stage_seconds:
            return None
        return self.stage_seconds[stage] / pictures

    @classmethod
    def of(cls, url: str) -> Self | None:
        """Return the summary in a cache; None if there is none, or it cannot be understood."""
        text = files_at(url).texts([SUMMARY]).get(SUMMARY)
        if text is None or isinstance(text, Exception):
            return None
        try:
            return cls.model_validate_json(bytes(text))
        except ValidationError:
            return None


def write_summary(summary: RunSummary, holder: str) -> None:
    """Replace `summary.json` in the cache as one write, for the run `holder`.

    Raises:
        CacheError: if the file is a link, or another run has taken over.
        OSError: if it cannot be written.
    """
    finished = replace(summary, finished=datetime.now(UTC).isoformat(timespec="seconds"))
    text = json.dumps(finished.to_dict(), indent=2)
    files = files_at(summary.cache)
    files.refuse_links(SUMMARY)
    with writing(summary.cache, holder):
        files.put({SUMMARY: text.encode()})
