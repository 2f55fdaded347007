"""The mean and standard deviation of pictures that a CLIP network expects: from the registry, or from the settings."""

from cache_schemas.errors import ConfigError
from labelgen.settings import UNTRAINED, ClipSettings
from labelgen.weights import OPENAI_MEAN, OPENAI_STD, Channels, known_weights, registered_as, verified


def input_range(settings: ClipSettings) -> tuple[Channels, Channels]:
    """Return mean and standard deviation of the pictures, in 0..1, that the network of the settings expects.

    Raises:
        ConfigError: if a file of the user's own comes without them, or they differ from those of registered weights.
        WeightsError: if the weights are absent.
    """
    if settings.weights.startswith(UNTRAINED):
        return settings.mean or OPENAI_MEAN, settings.std or OPENAI_STD
    entry = known_weights().get(settings.weights)
    if entry is None and settings.mean and settings.std:
        return settings.mean, settings.std
    entry = entry or registered_as(verified(settings.weights)[1])
    if entry is None:
        raise ConfigError(
            f"clip.weights {settings.weights}: say which mean and standard deviation of pictures the network was "
            f"trained with, as clip.mean and clip.std: {list(OPENAI_MEAN)} and {list(OPENAI_STD)} for most networks, "
            "[0.5, 0.5, 0.5] twice for CLIPA and others; and give clip.architecture with -quickgelu if it uses that"
        )
    given = settings.mean or entry.mean, settings.std or entry.std
    if given != (entry.mean, entry.std):
        raise ConfigError(
            f"clip.weights {settings.weights}: was trained with mean {entry.mean} and standard deviation {entry.std}, "
            f"not {given[0]} and {given[1]}; leave out clip.mean and clip.std"
        )
    return given
