"""What the documents of a cache and the sizes of its files tell, without reading a value of any array."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cache_schemas.documents import ArraySeal, CacheManifest, GroupSeal, ShardRecord
from cache_schemas.errors import CacheError
from cache_schemas.group_path import SHARDS, GroupPath, shard_path
from cache_schemas.layout import (
    OPTIONAL_GROUPS,
    ROOT_GROUPS,
    SHARD_GROUPS,
    ArraySpec,
    bind_axes,
    description_misfits,
    group_spec,
    least_file_bytes,
    missing_scale,
)
from cache_schemas.problems import Problem, ProblemKind
from cache_schemas.store import Cache, group_attributes

BLOCK_SHARDS = 128
"""Documents of so many shards are read at once."""

Files = Mapping[str, int | None]
Documents = Mapping[str, dict[str, Any] | CacheError]


@dataclass
class Part:
    """A shard, or (with no key) what stands beside the shards: its documents, and the problems that they tell of.

    `seals` are those of its sealed groups, by path.
    """

    key: str
    record: ShardRecord | None = None
    seals: dict[GroupPath, GroupSeal] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def readable(self) -> dict[GroupPath, GroupSeal]:
        """The seals whose arrays may be read: the sizes that they claim agree with one another and with the files."""
        unfit = self._paths(ProblemKind.WRONG_LAYOUT, ProblemKind.DAMAGED_DOCUMENT)
        return {path: seal for path, seal in self.seals.items() if str(path) not in unfit}

    @property
    def home_seals(self) -> dict[str, GroupSeal]:
        """The seals, by group name, of groups that belong to this shard."""
        foreign = self._paths(ProblemKind.FOREIGN_GROUP)
        return {path.name: seal for path, seal in self.seals.items() if str(path) not in foreign}

    @property
    def sizes(self) -> dict[str, int]:
        """The number of samples, if the record tells."""
        told = self.record is not None and not self._paths(ProblemKind.FOREIGN_RECORD)
        return {"S": len(self.record.samples)} if self.record and told else {}

    def add(self, kind: ProblemKind, path: GroupPath | str, message: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(kind, str(path), message))

    def _paths(self, *kinds: ProblemKind) -> set[str]:
        return {problem.path for problem in self.problems if problem.kind in kinds}


def audit(cache: Cache, manifest: CacheManifest) -> Iterator[Part]:
    """Yield what stands beside the shards, then every shard, each with the problems that need no array to be read.

    Documents are compared with the contract, with one another, and with the sizes of the files: these are all the
    problems that there are, but for values and checksums.
    """
    sizes = cache.file_sizes()
    files = _by_group(sizes)
    root = _audit_root(cache, manifest, files)
    root.problems += [Problem(ProblemKind.STRAY_FILE, path, why) for path, why in _stray_files(sizes)]
    yield root
    fixed = {"C": len(manifest.taxonomy.classes)}
    text = root.readable.get(GroupPath.root("text"))
    if text is not None and "embeddings" in text.arrays:
        fixed["D"] = text.arrays["embeddings"].shape[-1]
    keys = cache.shard_keys()
    home: dict[str, str] = {}
    for start in range(0, len(keys), BLOCK_SHARDS):
        for part in _audit_block(cache, keys[start : start + BLOCK_SHARDS], files):
            _audit_record(part, home)
            _audit_axes(part, fixed | part.sizes)
            _audit_origins(part, manifest, root.home_seals | part.home_seals)
            yield part


def stale_groups(seals: Mapping[str, GroupSeal], recipes: Mapping[str, str]) -> dict[str, list[str]]:
    """Return why groups do not belong to what is around them: sentences, by group name.

    A group is stale if it was made under other settings than the manifest's, or if a group that it was made from has
    been redone since under the manifest's. `seals` are one shard's, by group name, and the seal of `text`; `recipes`
    the manifest's.
    """
    stale = {
        name: ["made under other settings than the manifest's"]
        for name, seal in seals.items()
        if seal.recipe != recipes.get(name, seal.recipe)
    }
    current = {name: seal.fingerprint for name, seal in seals.items() if name not in stale}
    for name, seal in seals.items():
        for source, was in seal.upstream.items():
            if (now := current.get(source, was)) != was:
                stale.setdefault(name, []).append(f"made from {source} {was[:12]}, which is now {now[:12]}")
    return {name: reasons for name, reasons in stale.items() if name in SHARD_GROUPS or name in ROOT_GROUPS}


def _audit_root(cache: Cache, manifest: CacheManifest, files: Mapping[str, Files]) -> Part:
    root = Part("")
    documents = cache.documents([SHARDS, *ROOT_GROUPS])
    try:
        group_attributes(documents.get(SHARDS, CacheError("there is no zarr.json; write it")), SHARDS)
    except CacheError as error:
        root.add(ProblemKind.DAMAGED_DOCUMENT, SHARDS, _finding(error, SHARDS))
    for name, group in ROOT_GROUPS.items():
        _read_seal(root, GroupPath.root(name), documents.get(name), name in files, required=not group.optional)
    _audit_arrays([root], cache, files)
    _audit_axes(root, {"C": len(manifest.taxonomy.classes)})
    _audit_origins(root, manifest, root.home_seals)
    return root


def _audit_block(cache: Cache, keys: list[str], files: Mapping[str, Files]) -> list[Part]:
    """Read the documents of some shards, and compare each shard's with its files."""
    parts = [Part(key) for key in keys]
    groups = [str(GroupPath(key, name)) for key in keys for name in SHARD_GROUPS]
    there = [path for path in groups if path in files]
    documents = cache.documents([*map(shard_path, keys), *there])
    for part in parts:
        _read_record(part, documents.get(shard_path(part.key)))
        for name in SHARD_GROUPS:
            path = GroupPath(part.key, name)
            if part.record and not part.record.samples and str(path) in files:
                part.add(ProblemKind.FOREIGN_GROUP, path, "its shard holds no sample, and so no group")
            elif part.record is None or part.record.samples:
                required = part.record is not None and name not in OPTIONAL_GROUPS
                _read_seal(part, path, documents.get(str(path)), str(path) in files, required)
    _audit_arrays(parts, cache, files)
    return parts


def _read_record(part: Part, document: dict[str, Any] | CacheError | None) -> None:
    path = shard_path(part.key)
    try:
        attributes = {} if document is None else group_attributes(document, path)
        if attributes:
            part.record = ShardRecord.from_attrs(attributes, path)
        else:
            part.add(ProblemKind.MISSING_RECORD, path, "the shard has no record of its samples")
    except CacheError as error:
        part.add(ProblemKind.DAMAGED_DOCUMENT, path, _finding(error, path))


def _read_seal(
    part: Part, path: GroupPath, document: dict[str, Any] | CacheError | None, remains: bool, required: bool
) -> None:
    try:
        attributes = {} if document is None else group_attributes(document, str(path))
        if attributes.get("state") == "sealed":
            part.seals[path] = GroupSeal.from_attrs(attributes, str(path))
        elif remains:
            part.add(ProblemKind.UNSEALED_GROUP, path, "not sealed: the run that wrote it did not finish")
        elif required:
            part.add(ProblemKind.UNSEALED_GROUP, path, "not sealed: the group is absent")
    except CacheError as error:
        part.add(ProblemKind.DAMAGED_DOCUMENT, path, _finding(error, str(path)))


def _finding(error: CacheError, path: str) -> str:
    """Return what an error found; what to do is the problem's to say."""
    return str(error).rpartition("; ")[0].removeprefix(f"{path}: ")


def _audit_arrays(parts: Sequence[Part], cache: Cache, files: Mapping[str, Files]) -> None:
    documents = cache.documents(
        f"{path}/{name}"
        for part in parts
        for path, seal in part.seals.items()
        for name in seal.arrays
        if f"{name}/zarr.json" in files.get(str(path), {})
    )
    for part in parts:
        for path, seal in part.seals.items():
            part.problems += _array_problems(path, seal, files.get(str(path), {}), documents)


def _array_problems(path: GroupPath, seal: GroupSeal, files: Files, documents: Documents) -> Iterator[Problem]:
    specs = group_spec(path).arrays
    if unknown := sorted(set(seal.arrays) - set(specs)):
        found = f"the seal lists {unknown[0]!r}, an array that the contract does not know"
        yield Problem(ProblemKind.DAMAGED_DOCUMENT, str(path), found)
    for name, spec in specs.items():
        if name in seal.arrays:
            yield from _stored_problems(f"{path}/{name}", spec, seal.arrays[name], files, documents)
        elif not spec.optional:
            yield Problem(ProblemKind.MISSING_ARRAY, f"{path}/{name}", "the seal does not list it")
    required = {name for name, spec in specs.items() if not spec.optional}
    for name in sorted({file.split("/")[0] for file in files if "/" in file} - set(seal.arrays) - required):
        yield Problem(ProblemKind.UNKNOWN_ARRAY, f"{path}/{name}", "the seal does not list it")
    for sentence in missing_scale({name: promise.dtype for name, promise in seal.arrays.items()}):
        yield Problem(ProblemKind.MISSING_ARRAY, f"{path}/features_scale", sentence)


def _stored_problems(
    place: str, spec: ArraySpec, promise: ArraySeal, files: Files, documents: Documents
) -> Iterator[Problem]:
    """Compare what a seal promises of an array with the contract, the array's own document, and its file."""
    name = place.rsplit("/", 1)[-1]
    if promise.dtype not in spec.dtypes or len(promise.shape) != len(spec.axes):
        found = f"sealed as {promise.dtype} {promise.shape}, the contract says {' or '.join(spec.dtypes)} {spec.axes}"
        yield Problem(ProblemKind.WRONG_LAYOUT, place, found)
        return
    document = documents.get(place)
    if document is None:
        yield Problem(ProblemKind.MISSING_ARRAY, place, "the array is not there")
        return
    if isinstance(document, CacheError):
        yield Problem(ProblemKind.UNREADABLE_ARRAY, place, _finding(document, place))
        return
    try:
        if misfits := description_misfits(spec, promise.shape, promise.dtype, document):
            yield Problem(ProblemKind.WRONG_LAYOUT, place, "; ".join(misfits))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        yield Problem(ProblemKind.WRONG_LAYOUT, place, f"its zarr.json does not describe one Zarr shard ({error!r})")
    file, least = f"{name}/{_chunk_file(spec)}", least_file_bytes(spec, promise.shape, promise.dtype)
    if 0 in promise.shape:
        if file in files:
            yield Problem(ProblemKind.STRAY_FILE, f"{place}/{_chunk_file(spec)}", "an empty array has no chunk file")
    elif (size := files.get(file)) is None:
        yield Problem(ProblemKind.UNREADABLE_ARRAY, place, f"its chunk file {_chunk_file(spec)} is not there")
    elif size < least:
        found = f"its chunk file {_chunk_file(spec)} has {size} bytes, its shape {promise.shape} takes {least} or more"
        yield Problem(ProblemKind.UNREADABLE_ARRAY, place, found)


def _audit_record(part: Part, home: dict[str, str]) -> None:
    """Compare a shard's record with its key, with the shards before it (`home`, by sample), and with its seals."""
    record, path = part.record, shard_path(part.key)
    if record is None:
        return
    if not re.fullmatch(re.escape(record.scene) + r"-\d{3,}", part.key):
        found = f"its record is of scene {record.scene!r}, whose shards are called {record.scene}-000 and so on"
        part.add(ProblemKind.FOREIGN_SHARD, path, found)
        return
    if shared := [sample for sample in record.samples if sample in home]:
        part.add(ProblemKind.FOREIGN_SHARD, path, f"sample {shared[0]} is in shard {home[shared[0]]} already")
        return
    if len(set(record.samples)) < len(record.samples):
        part.add(ProblemKind.DAMAGED_DOCUMENT, path, "its record names a sample twice")
    if record.clouds and len(record.clouds) != len(record.samples):
        found = f"its record names {len(record.clouds)} clouds for {len(record.samples)} samples"
        part.add(ProblemKind.DAMAGED_DOCUMENT, path, found)
    home.update(dict.fromkeys(record.samples, part.key))
    _compare_samples(part, record)


def _compare_samples(part: Part, record: ShardRecord) -> None:
    """Blame the record if all groups agree with one another and not with it, else the groups that differ."""
    others = {path: seal.samples for path, seal in part.seals.items() if seal.samples != record.samples}
    if len(others) == len(part.seals) > 1 and len(set(others.values())) == 1:
        found = f"its record names {len(record.samples)} samples, not those that all {len(others)} groups hold"
        part.add(ProblemKind.FOREIGN_RECORD, shard_path(part.key), found)
        return
    for path, samples in others.items():
        found = f"holds {len(samples)} samples, not the {len(record.samples)} of the shard's record"
        part.add(ProblemKind.FOREIGN_GROUP, path, found)


def _audit_axes(part: Part, fixed: Mapping[str, int]) -> None:
    """Compare the sizes of axes over the groups of a part; of two sizes, that which more groups have is right."""
    shapes = {path: _known_shapes(path, seal) for path, seal in part.seals.items()}
    votes: dict[str, Counter[int]] = defaultdict(Counter)
    for path, found in shapes.items():
        for axis, size in bind_axes(path, found)[0].items():
            votes[axis][size] += 1
    agreed = {axis: counted.most_common(1)[0][0] for axis, counted in votes.items()} | dict(fixed)
    for path, found in shapes.items():
        for misfit in bind_axes(path, found, agreed)[1]:
            part.add(ProblemKind.WRONG_LAYOUT, path, misfit)


def _known_shapes(path: GroupPath, seal: GroupSeal) -> dict[str, tuple[int, ...]]:
    specs = group_spec(path).arrays
    return {
        name: promise.shape
        for name, promise in seal.arrays.items()
        if name in specs and len(promise.shape) == len(specs[name].axes)
    }


def _audit_origins(part: Part, manifest: CacheManifest, seals: Mapping[str, GroupSeal]) -> None:
    """Note the groups that were made under other settings, by other networks, or from other groups."""
    stale = stale_groups(seals, manifest.recipes)
    for path in part.seals:
        made_by = seals[path.name].teacher if path.name in seals else None
        teacher = group_spec(path).teacher
        expected = manifest.teachers.networks.get(teacher) if teacher else None
        if made_by and expected and path.name not in stale and made_by != expected:
            stale[path.name] = [f"made by {made_by.architecture} {made_by.weights}, not the manifest's network"]
        for reason in stale.get(path.name, ()):
            part.add(ProblemKind.STALE_GROUP, path, reason)


def _by_group(sizes: Files) -> dict[str, dict[str, int | None]]:
    """Return the sizes of the files of each group, by its path and by theirs inside it."""
    groups: dict[str, dict[str, int | None]] = {}
    for path, size in sizes.items():
        steps = path.split("/")
        depth = 1 if steps[0] in ROOT_GROUPS else 3
        if len(steps) > depth:
            groups.setdefault("/".join(steps[:depth]), {})["/".join(steps[depth:])] = size
    return groups


def _stray_files(sizes: Files) -> Iterator[tuple[str, str]]:
    """Yield what no part of the contract put there, such as half-written chunks of a killed run, and why it is stray.

    What lies in a folder of a group that is no array of the contract belongs to an unknown array, or to remains.
    """
    for path, size in sorted(sizes.items()):
        if size is None:
            yield path, "a link, or no file at all"
        elif not _is_expected(path.split("/")):
            yield path, "not part of the contract"


def _is_expected(steps: list[str]) -> bool:
    root = steps[0] in ROOT_GROUPS
    if not root and steps[0] != SHARDS:
        return steps == ["zarr.json"]
    within = steps[1:] if root else steps[3:]
    if not within:
        return steps[-1] == "zarr.json"
    if not root and steps[2] not in SHARD_GROUPS:
        return False
    spec = group_spec(GroupPath.parse("/".join(steps[: -len(within)]))).arrays.get(within[0])
    return within == ["zarr.json"] or (
        len(within) > 1 and (spec is None or "/".join(within[1:]) in ("zarr.json", _chunk_file(spec)))
    )


def _chunk_file(spec: ArraySpec) -> str:
    return "/".join(["c", *["0"] * len(spec.axes)])
