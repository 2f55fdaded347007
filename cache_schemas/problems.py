"""The kinds of problems that a cache can have, and how to fix each."""

from dataclasses import dataclass
from enum import StrEnum

from cache_schemas.group_path import SHARDS
from cache_schemas.layout import source_name
from cache_schemas.names import printable


class ProblemKind(StrEnum):
    """The problems that `audit` and `validate` find."""

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
    UNRELATED_FILE = "unrelated-file"


_REDO = "remove it with `labelgen verify --repair`, then rerun the same `labelgen run`"
_REMEDIES = {
    ProblemKind.MISSING_RECORD: "rerun the same `labelgen run`, or remove the folder if that does not make this shard",
    ProblemKind.FOREIGN_SHARD: "remove the shard with `labelgen verify --repair`",
    ProblemKind.UNSEALED_GROUP: "finish the cache with the same `labelgen run` command",
    ProblemKind.STALE_GROUP: "bring it up to date with `labelgen run` and the settings that you want",
    ProblemKind.UNKNOWN_ARRAY: "remove it with `labelgen verify --repair`",
    ProblemKind.STRAY_FILE: "remove it by hand or with `labelgen verify --repair`",
    ProblemKind.UNRELATED_FILE: "move it out of the cache; `labelgen verify --repair` leaves it",
}


@dataclass(frozen=True)
class Problem:
    """One problem: its kind, its path inside the cache, and what was found."""

    kind: ProblemKind
    path: str
    message: str

    @property
    def source(self) -> str | None:
        """The name of the imported labels that have the problem, None if it is one of something else."""
        steps = self.path.split("/")
        return source_name(steps[2]) if len(steps) > 2 and steps[0] == SHARDS else None

    @property
    def remedy(self) -> str:
        """How to fix it; imported labels are not made by a run."""
        if self.source is not None and self.kind is not ProblemKind.STRAY_FILE:
            return (
                f"import it again with `labelgen import-labels --name {self.source} --overwrite`, or remove it with "
                "`labelgen verify --repair`"
            )
        return _REMEDIES.get(self.kind, _REDO)

    def __str__(self) -> str:
        """Return the problem and its remedy in one line; control characters in file names are escaped."""
        return printable(f"{self.path}: {self.kind}: {self.message}; {self.remedy}")

    def to_dict(self) -> dict[str, str]:
        """Return the problem as a JSON-ready object."""
        return {"kind": str(self.kind), "path": self.path, "message": self.message, "remedy": self.remedy}
