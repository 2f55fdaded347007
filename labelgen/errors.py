"""Errors of the label side; each message quotes the bad value, names the file and says the fix."""

from cache_schemas.names import printable


class LabelgenError(Exception):
    """Anything wrong with a run that a user can act on."""

    def __str__(self) -> str:
        """Return the message, safe to print whatever the files hold that it quotes."""
        return printable(super().__str__())


class DatasetError(LabelgenError):
    """The raw dataset as a whole cannot be used."""


class SampleError(LabelgenError):
    """One sample's files or calibration are unusable; the other samples are not touched by it."""


class PromptsError(LabelgenError):
    """A prompt file is missing, malformed, or does not fit the taxonomy."""


class WeightsError(LabelgenError):
    """Teacher weights are unknown, absent, or not the official bytes."""
