"""Errors of a run as a whole."""

from labelgen.errors import LabelgenError


class PipelineError(LabelgenError):
    """The run cannot go on; what is sealed stays, and the same command goes on from there."""
