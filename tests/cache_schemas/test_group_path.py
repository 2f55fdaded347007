"""Group paths: printed and parsed without loss, and names that would lead elsewhere are refused."""

import pytest

from cache_schemas.errors import LayoutError
from cache_schemas.group_path import GroupPath, shard_path


@pytest.mark.parametrize(
    "path, text",
    [(GroupPath("scene-0061-000", "clip"), "shards/scene-0061-000/clip"), (GroupPath.root("text"), "text")],
)
def test_paths_are_printed_and_parsed(path: GroupPath, text: str) -> None:
    assert str(path) == text
    assert GroupPath.parse(text) == path


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/etc", "../.."])
def test_names_that_are_paths_are_refused(name: str) -> None:
    for make in (
        lambda: GroupPath("s-000", name),
        lambda: GroupPath(name, "clip"),
        lambda: GroupPath.root(name),
        lambda: shard_path(name),
    ):
        with pytest.raises(LayoutError, match="not the name of one folder"):
            make()


@pytest.mark.parametrize(
    "text", ["shards/s-000", "shards/s-000/clip/logits", "scenes/s-000/clip", "/text", "shards//clip"]
)
def test_other_text_is_no_group_path(text: str) -> None:
    with pytest.raises(LayoutError):
        GroupPath.parse(text)
