"""docs/reference/cache-format.md: it names every array, document field and problem, and its examples run."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from cache_schemas import documents, lock
from cache_schemas.json_document import Document
from cache_schemas.layout import OPTIONAL_GROUPS, ROOT_GROUPS, SCHEMA_VERSION, SHARD_GROUPS, TEACHERS, ArraySpec
from cache_schemas.problems import ProblemKind
from cache_schemas.store import Cache
from cache_schemas.taxonomy import Taxonomy, TaxonomyClass

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cache-format.md").read_text()
ARRAYS = [
    (f"{group}/{name}", spec)
    for group, specs in {**ROOT_GROUPS, **SHARD_GROUPS}.items()
    for name, spec in specs.arrays.items()
]
EXAMPLES = {
    "zarr": "toy-000 {'car': 2, 'road': 2, 'tree': 1} 7",
    "cache_schemas": "toy-000 ('car', 'road', 'tree') (4, 3) [  0   1 255 255]",
}
"""What the example of each package prints: labels/point is 0 1 255 255 2 1 0, and the first sample has four points."""


def section(title: str) -> str:
    """Return the text below a heading, up to the next of its level or above."""
    match = re.search(rf"^(#+) {re.escape(title)}$(.*?)(?=^#{{1,2}} |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert match, f"the page has no section {title!r}"
    return match[2]


def row_of(path: str, spec: ArraySpec) -> str:
    axes = ", ".join(str(axis) for axis in spec.axes)
    codec = "zstd" if spec.compressed else "crc32c"
    return f"| `{path}` | ({axes}) | {' or '.join(spec.dtypes)} | {spec.chunk or 'all'} | {codec} | "


@pytest.mark.parametrize("path, spec", ARRAYS, ids=[path for path, _ in ARRAYS])
def test_every_array_has_its_row(path: str, spec: ArraySpec) -> None:
    rows = [line for line in section("Arrays").splitlines() if line.startswith(row_of(path, spec))]
    assert len(rows) == 1, f"expected one row that begins with {row_of(path, spec)}"
    assert rows[0].startswith(row_of(path, spec) + "optional: ") == spec.optional


def test_the_table_has_no_other_arrays() -> None:
    assert re.findall(r"^\| `(\w+/\w+)` ", PAGE, re.MULTILINE) == [path for path, _ in ARRAYS]


def test_the_tree_has_every_group() -> None:
    lines = {line.split()[0]: line for line in section("Tree").splitlines() if line.strip()}
    for group in (*ROOT_GROUPS, *SHARD_GROUPS):
        assert ("optional" in lines[f"{group}/"]) == (group in OPTIONAL_GROUPS)


def test_every_problem_has_its_row_and_there_are_no_others() -> None:
    assert re.findall(r"^\| `(.+?)` ", section("Problems"), re.MULTILINE) == [kind.value for kind in ProblemKind]


@pytest.mark.parametrize("kind", [*Document.__subclasses__(), Taxonomy, TaxonomyClass], ids=lambda kind: kind.__name__)
def test_every_field_of_a_document_is_named(kind: type[BaseModel]) -> None:
    stored = {"preset", *TEACHERS} if kind is documents.Teachers else set(kind.model_fields)
    assert not [name for name in sorted(stored) if f"`{name}`" not in PAGE]


def test_the_tables_of_fields_are_those_of_the_documents() -> None:
    tables: dict[str, type[Document]] = {
        "Root attributes: the manifest": documents.CacheManifest,
        "Shard attributes: the record": documents.ShardRecord,
        "Seals": documents.GroupSeal,
    }
    for title, kind in tables.items():
        cells = re.findall(r"^\| (`.+?) \|", section(title), re.MULTILINE)
        assert re.findall(r"`(\w+)`", " ".join(cells)) == list(kind.model_fields)


def test_the_page_is_of_this_version_and_its_times_are_those_of_the_locks() -> None:
    assert PAGE.startswith(f"# The cache format, version {SCHEMA_VERSION}\n")
    assert f"every {lock.LEASE_SECONDS / 4:.0f} s" in " ".join(PAGE.split())
    assert f"after {lock.LEASE_SECONDS:.0f} s without renewal" in " ".join(PAGE.split())


@pytest.mark.parametrize("package", EXAMPLES)
def test_the_examples_run(
    package: str,
    write_sound_cache: Callable[[str], Cache],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_sound_cache(str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(rf"```python\n((?:import|from) {package}\b.*?)```", PAGE, re.DOTALL)
    exec(compile(code, "docs/reference/cache-format.md", "exec"), {})
    assert capsys.readouterr().out.splitlines() == [EXAMPLES[package]]
