"""The names of all that can be wrong with a cache, and what to do about each."""

from dataclasses import dataclass
from enum import StrEnum

from cache_schemas.plain import printable


class ProblemKind(StrEnum):
    """The names of the problems that `validate` knows."""

    DAMAGED_DOCUMENT = "damaged-document"
    MISSING_RECORD = "missing-record"
    FOREIGN_RECORD = "foreign-record"
    FOREIGN_SHARD = "foreign-shard"
    FOREIGN_GROUP = "foreign-group"
    UNSEALED_GROUP = "unsealed-group"
    STALE_GROUP = "stale-group"
    MISSING_ARRAY = "missing-array"
    UNKNOWN_ARRAY = "unknown-array"
    WRONG_LAYOUT = "wrong-layout"
    UNREADABLE_ARRAY = "unreadable-array"
    CHECKSUM_MISMATCH = "checksum-mismatch"
    VALUE_OUT_OF_RANGE = "value-out-of-range"
    STRAY_FILE = "stray-file"


_REDO = "remove it with `labelgen verify --repair`, then run the same `labelgen run` again"
_REMEDIES = {
    ProblemKind.MISSING_RECORD: "run the same `labelgen run` again, or remove the folder if that makes no such shard",
    ProblemKind.FOREIGN_SHARD: "remove the shard with `labelgen verify --repair`",
    ProblemKind.UNSEALED_GROUP: "finish the cache with the same `labelgen run` command",
    ProblemKind.STALE_GROUP: "bring it up to date with `labelgen run`, under the settings that you mean",
    ProblemKind.UNKNOWN_ARRAY: "remove it with `labelgen verify --repair`",
    ProblemKind.STRAY_FILE: "remove it, or let `labelgen verify --repair` do so",
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong: its name, the path inside the cache, and what was found."""

    kind: ProblemKind
    path: str
    message: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return _REMEDIES.get(self.kind, _REDO)

    def __str__(self) -> str:
        """Return all of it as one line that is safe to print, whatever files are called."""
        return printable(f"{self.path}: {self.kind}: {self.message}; {self.remedy}")

    def to_dict(self) -> dict[str, str]:
        """Return the problem as a JSON-ready object."""
        return {"kind": str(self.kind), "path": self.path, "message": self.message, "remedy": self.remedy}
