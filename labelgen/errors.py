"""Errors of the labelling packages; each message quotes the bad value, names the file and says the fix."""

from cache_schemas.errors import UserError


class LabelgenError(UserError):
    """Anything wrong with a run that a user can act on."""


class DatasetError(LabelgenError):
    """The raw dataset as a whole cannot be used."""


class SourceError(LabelgenError):
    """The raw dataset cannot be read now: its disk or network fails, or files disappear. No sample is at fault."""


class SampleError(LabelgenError):
    """The content of files that can be read, or the calibration, condemns one sample; others are not affected."""


class PromptsError(LabelgenError):
    """A prompt file is missing, malformed, or does not fit the taxonomy."""


class WeightsError(LabelgenError):
    """Teacher weights are unknown, absent, or not the official bytes."""
