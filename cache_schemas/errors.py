"""The errors of the cache. Each message quotes the bad value, names the file and says how to fix it."""

from cache_schemas.names import printable


class UserError(Exception):
    """Base of all errors that a user can act on; the command line programs print them as one line."""

    def __str__(self) -> str:
        """Return the message; control characters that it quotes from files are escaped."""
        return printable(super().__str__())


class CacheError(UserError):
    """Something is wrong with a cache, or with the settings of a program that uses it, and the user can fix it."""


class NoCacheError(CacheError):
    """There is no cache at the given location."""


class SchemaVersionError(CacheError):
    """The cache was written under another version of the contract."""


class UnsealedGroupError(CacheError):
    """A group to be read is absent or was never sealed."""


class DamagedGroupError(CacheError):
    """The bytes of a sealed group cannot be read back."""


class CacheLockedError(CacheError):
    """Another run is writing to this cache."""


class LayoutError(CacheError):
    """A group or its arrays do not have the names, shapes or dtypes of the contract."""


class TaxonomyError(CacheError):
    """A taxonomy is unknown, or does not fit the data that it is used with."""


class LabelFileError(CacheError):
    """A file of labels in an official format cannot be read or written, or the format does not fit the cache."""


class ConfigError(CacheError):
    """A setting is unknown, of the wrong type, or does not fit the others."""
