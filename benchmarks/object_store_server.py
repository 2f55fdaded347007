"""A small S3 server in a process of its own, which answers each request after a latency from the files of a folder.

It knows only the requests that reading a cache makes: objects, ranges of them, and lists of them. moto's server needs
several ms of CPU for a request, so a benchmark through it would measure the server.
"""

import argparse
import asyncio
import bisect
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen
from xml.sax.saxutils import escape

from aiohttp import web

BUCKET = "bench"
KEYS_PER_PAGE = 1000
AFTER_ALL = chr(0x10FFFF)
"""Sorts after every character of a key."""

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "a",
    "AWS_SECRET_ACCESS_KEY": "b",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Store:
    """The objects of a folder, and how many requests there were."""

    def __init__(self, folder: Path, latency_s: float) -> None:
        """List the folder once; it must not change later."""
        self._folder, self._latency_s, self.requests = folder, latency_s, 0
        self._sizes = {
            str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
        }
        self._keys = sorted(self._sizes)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer a request for an object, a range of it, or a list of objects."""
        self.requests += 1
        await asyncio.sleep(self._latency_s)
        key = request.path.strip("/").partition("/")[2]
        if not key:
            return web.Response(text=self._page(request.query), content_type="application/xml")
        if key not in self._sizes:
            return web.Response(
                status=404, text="<Error><Code>NoSuchKey</Code></Error>", content_type="application/xml"
            )
        return web.FileResponse(self._folder / key)

    async def count(self, _: web.Request) -> web.Response:
        """Return the number of requests so far."""
        return web.Response(text=str(self.requests))

    def _page(self, query: Mapping[str, str]) -> str:
        """Return one page of ListObjectsV2: objects, and with a delimiter the folders of the others."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        most, token = int(query.get("max-keys", KEYS_PER_PAGE)), query.get("continuation-token", "")
        entries: list[str] = []
        place = bisect.bisect_left(self._keys, token or prefix)
        while place < len(self._keys) and self._keys[place].startswith(prefix) and len(entries) < most:
            name, folder, _ = self._keys[place][len(prefix) :].partition(delimiter or "\0")
            entry = prefix + name + folder
            entries.append(
                self._object(entry)
                if not folder
                else f"<CommonPrefixes><Prefix>{escape(entry)}</Prefix></CommonPrefixes>"
            )
            place = bisect.bisect_left(self._keys, entry + AFTER_ALL) if folder else place + 1
        cut = place < len(self._keys) and self._keys[place].startswith(prefix)
        more = f"<NextContinuationToken>{escape(self._keys[place])}</NextContinuationToken>" if cut else ""
        return (
            f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{BUCKET}'
            f"</Name><Prefix>{escape(prefix)}</Prefix><KeyCount>{len(entries)}</KeyCount><MaxKeys>{most}</MaxKeys>"
            f"<IsTruncated>{str(cut).lower()}</IsTruncated>{more}{''.join(entries)}</ListBucketResult>"
        )

    def _object(self, key: str) -> str:
        return (
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"0"</ETag><Size>{self._sizes[key]}</Size><StorageClass>STANDARD</StorageClass></Contents>'
        )


@contextmanager
def serve(folder: Path, latency_s: float) -> Iterator[tuple[str, dict[str, str]]]:
    """Serve a folder as the bucket `s3://bench` from another process.

    Yields the server's address, and the environment in which s3fs finds it.
    """
    command = [sys.executable, "-m", "benchmarks.object_store_server", str(folder), str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{int(server.stdout.readline())}"
        try:
            yield address, CREDENTIALS | {"AWS_ENDPOINT_URL": address}
        finally:
            server.terminate()


def requests_so_far(address: str) -> int:
    """Return how many requests a server has answered."""
    with urlopen(f"{address}/requests") as answer:  # our own server
        return int(answer.read())


async def _run(folder: Path, latency_s: float) -> None:
    store, app = Store(folder, latency_s), web.Application()
    app.router.add_get("/requests", store.count)
    app.router.add_route("*", "/{path:.*}", store.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("latency_s", type=float)
    arguments = parser.parse_args()
    asyncio.run(_run(arguments.folder, arguments.latency_s))
