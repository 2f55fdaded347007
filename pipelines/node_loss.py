"""What Ray raises when a node of the cluster is lost. No call, task or sample is to blame for that."""

from ray.exceptions import (
    ActorUnavailableError,
    LocalRayletDiedError,
    NodeDiedError,
    ObjectLostError,
    RayActorError,
)

MOST_LOSSES = 20
"""How often one call or task may be lost with a node. After that something else is wrong, and the run stops."""


def origin(error: BaseException) -> BaseException:
    """Return the exception that a remote task raised, without the one that Ray wraps around it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def is_node_loss(error: BaseException) -> bool:
    """Tell whether an error says that a node is gone, and with it an actor, a task or the only copy of an object."""
    cause = origin(error)
    if isinstance(cause, ObjectLostError | NodeDiedError | LocalRayletDiedError | ActorUnavailableError):
        return True
    return isinstance(cause, RayActorError) and "node has died" in str(cause)
