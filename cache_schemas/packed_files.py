"""The files of a packed cache, as `cache_files.CacheFiles` describes them; all that would change one is refused."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from cache_schemas.packed_file import open_packed, packed_error
from cache_schemas.zarr_documents import LARGEST_DOCUMENT_BYTES, Text


class PackedFiles:
    """The members of a packed cache."""

    def __init__(self, path: str) -> None:
        """Open the packed cache at `path`.

        Raises:
            CacheError: if it is no zip of stored members, or is cut short.
            StoreError: if it cannot be read.
        """
        self._packed = open_packed(path)

    def sizes(self, folders: Iterable[str] | None = None) -> dict[str, int | None]:
        """Return the bytes of all members, or of those in some folders."""
        wanted = [""] if folders is None else folders
        return {name: self._packed.size(name) for folder in wanted for name in self._packed.below(folder)}

    def folder_names(self, folder: str) -> list[str]:
        """Return the names of the folders directly inside a folder."""
        return list(dict.fromkeys(first for first, *rest in self._steps(folder) if rest))

    def top_names(self) -> list[str]:
        """Return the names of all files and folders at the top."""
        return list(dict.fromkeys(first for first, *_ in self._steps("")))

    def _steps(self, folder: str) -> Iterator[list[str]]:
        """Return for each member of a folder the name of what is directly inside the folder, and what follows."""
        prefix = f"{folder}/" if folder else ""
        return (name.removeprefix(prefix).split("/", 1) for name in self._packed.below(folder))

    def size(self, path: str) -> int:
        """Return the bytes of a member."""
        return self._packed.size(path)

    def texts(self, paths: Sequence[str]) -> Mapping[str, Text | Exception]:
        """Return the content of those members that exist, up to one byte more than a document may have, by path."""
        found = self._packed.read_ranges([(path, 0, LARGEST_DOCUMENT_BYTES + 1) for path in paths])
        pairs = zip(paths, found, strict=True)
        return {path: text for path, text in pairs if not isinstance(text, FileNotFoundError)}

    def content(self, path: str) -> bytes:
        """Return the whole content of a member."""
        return bytes(self._packed.read(path))

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise packed_error(self._packed.path)

    take = put = start_group = remove = remove_folder = remove_empty_folders = _refuse
    refuse_links = sync_below = sync_way_to = _refuse
