"""Errors of the trainer; each message quotes the bad value, names the file, and says the fix."""

from cache_schemas.errors import UserError


class TrainerError(UserError):
    """Anything wrong with a training run that a user can act on."""


class UnfitCacheError(TrainerError):
    """The run cannot use the cache: it is incomplete or damaged, or lacks what the run needs."""


class RunFolderError(TrainerError):
    """The run folder is missing or damaged, or it holds another run."""


class DivergedError(TrainerError):
    """The loss is infinite or not a number."""
