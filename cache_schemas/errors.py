"""Errors that the cache raises; each message quotes the bad value, names the place and says the fix."""

from cache_schemas.plain import printable


class UserError(Exception):
    """Base of all errors that a user can act on; the command line programs print them as one line."""

    def __str__(self) -> str:
        """Return the message, safe to print whatever the files hold that it quotes."""
        return printable(super().__str__())


class CacheError(UserError):
    """Anything wrong with a cache, or with the settings of what works on it."""


class NoCacheError(CacheError):
    """There is no cache at the given place."""


class SchemaVersionError(CacheError):
    """The cache was written under another version of the contract."""


class UnsealedGroupError(CacheError):
    """A reader asked for a group that is absent or was never sealed."""


class DamagedGroupError(CacheError):
    """A sealed group's bytes cannot be read back."""


class CacheLockedError(CacheError):
    """Another run is writing this cache."""


class LayoutError(CacheError):
    """Arrays do not have the shape or dtype that the contract promises."""


class TaxonomyError(CacheError):
    """A taxonomy is unknown, or does not fit what it is used with."""


class ConfigError(CacheError):
    """A setting is unknown, of the wrong kind, or does not fit the others."""
