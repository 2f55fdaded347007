"""The part of a cache that is audited at once: one shard, or everything beside the shards."""

from dataclasses import dataclass, field

from cache_schemas.documents import GroupSeal, ShardRecord
from cache_schemas.errors import CacheError
from cache_schemas.group_path import GroupPath
from cache_schemas.problems import Problem, ProblemKind


@dataclass
class Part:
    """The documents of a shard, or (with an empty key) of the root groups, and the problems found so far.

    `seals` are those of its sealed groups.
    """

    key: str
    record: ShardRecord | None = None
    seals: dict[GroupPath, GroupSeal] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def readable(self) -> dict[GroupPath, GroupSeal]:
        """The seals of groups that can be read: their sizes agree with one another and with the files."""
        return self._seals_without(ProblemKind.WRONG_LAYOUT, ProblemKind.DAMAGED_DOCUMENT)

    @property
    def own_seals(self) -> dict[str, GroupSeal]:
        """The seals, by group name, of groups that hold the samples of this shard."""
        return {path.name: seal for path, seal in self._seals_without(ProblemKind.FOREIGN_GROUP).items()}

    @property
    def axis_sizes(self) -> dict[str, int]:
        """The numbers of samples and images, by axis name, if the record is that of the groups; otherwise nothing."""
        if self.record is None or any(problem.kind is ProblemKind.FOREIGN_RECORD for problem in self.problems):
            return {}
        images = {"I": len(self.record.pictures)} if any(picture.file for picture in self.record.pictures) else {}
        return {"S": len(self.record.samples), **images}

    def add(self, kind: ProblemKind, path: GroupPath | str, message: str) -> None:
        """Add a problem."""
        self.problems.append(Problem(kind, str(path), message))

    def _seals_without(self, *kinds: ProblemKind) -> dict[GroupPath, GroupSeal]:
        excluded = {problem.path for problem in self.problems if problem.kind in kinds}
        return {path: seal for path, seal in self.seals.items() if str(path) not in excluded}


def finding(error: CacheError, path: str) -> str:
    """Return what an error says without its path and its remedy; a problem adds its own."""
    return str(error).rpartition("; ")[0].removeprefix(f"{path}: ")
