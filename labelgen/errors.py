"""Errors of the labelling packages; each message quotes the bad value, names the file and says the fix."""

from cache_schemas.errors import UserError


class LabelgenError(UserError):
    """Anything wrong with a run that a user can act on."""


class DatasetError(LabelgenError):
    """The raw dataset as a whole cannot be used."""


class SampleError(LabelgenError):
    """The files or the calibration of one sample cannot be used; other samples are not affected."""


class PromptsError(LabelgenError):
    """A prompt file is missing, malformed, or does not fit the taxonomy."""


class WeightsError(LabelgenError):
    """Teacher weights are unknown, absent, or not the official bytes."""
