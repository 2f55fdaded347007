"""Reads what `summary.json`, the summary of the last run in a cache, says about the work of that run."""

from collections.abc import Collection
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache_schemas.cache_files import files_at
from cache_schemas.group_path import SUMMARY
from cache_schemas.names import PlainText

Measure = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=10**12)]
"""Numbers of a summary. One with others was not written by a run, and nothing is forecast from it."""


class PastRun(BaseModel):
    """The work of the last run: seconds by kind of work, and the samples and pictures of each stage."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    finished: Annotated[PlainText, Field(max_length=64)]
    gpus: Measure
    teacher_recipes: dict[str, str]
    stage_seconds: dict[str, Measure]
    stage_pictures: dict[str, Count]
    wall_over_teachers: Measure | None
    stage_samples: dict[str, Count] = {}

    def seconds_per_picture(self, stage: str, recipe: str) -> float | None:
        """Return the work of a teacher's stage for one picture; None if it was not done under these settings."""
        pictures = self.stage_pictures.get(stage, 0)
        if not pictures or self.teacher_recipes.get(stage) != recipe or stage not in self.stage_seconds:
            return None
        return self.stage_seconds[stage] / pictures

    def seconds_per_sample(self, work: str, stages: Collection[str]) -> float | None:
        """Return the work of a kind that makes the groups of `stages`, for one sample; None if one was not made."""
        samples = [self.stage_samples.get(stage, 0) for stage in stages]
        if not all(samples) or work not in self.stage_seconds:
            return None
        return self.stage_seconds[work] / max(samples)

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
