"""Errors of the trainer; each message quotes the bad value, names the place and says the fix."""

from cache_schemas.errors import UserError


class TrainerError(UserError):
    """Anything wrong with a training run that a user can act on."""


class UnfitCacheError(TrainerError):
    """The cache is sound or not, but this run cannot use it."""


class RunFolderError(TrainerError):
    """The run folder is missing, occupied, or of another run."""


class DivergedError(TrainerError):
    """The loss is no longer a number."""
