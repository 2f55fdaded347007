"""Errors of a run as a whole."""

from labelgen.errors import LabelgenError


class PipelineError(LabelgenError):
    """The run cannot continue. Sealed groups are kept, and the same command resumes."""
