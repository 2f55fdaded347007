"""The real commands on a cache in an S3 server on loopback, which fails in the ways that object stores fail."""

import io
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from cache_schemas import lock
from cache_schemas.errors import CacheLockedError
from cache_schemas.group_path import GroupPath
from cache_schemas.layout import SHARD_GROUPS
from cache_schemas.location import StoreError, file_system
from cache_schemas.lock import run_lock
from cache_schemas.store import Cache
from cache_schemas.validate import validate
from pipelines.store_retries import count_retries, take_retries
from trainer.data.stream import CacheStream

pytestmark = pytest.mark.s3

READ_TIMEOUT_S = 1.0
HANG_S = 2.5
SEAL = b'"state": "sealed"'

Environ = dict[str, Any]
Answer = tuple[str, str]
"""An HTTP status, and S3's code of the error."""

INTERNAL = ("500 Internal Server Error", "InternalError")
SLOW_DOWN = ("503 Service Unavailable", "SlowDown")
DENIED = ("403 Forbidden", "AccessDenied")
KEPT = ("200 OK", "AccessDenied")


class Quiet(MotoRequestHandler):
    def log(self, *_: object) -> None:
        """Print nothing of a request."""


class FailingStore:
    """moto's S3 server behind a door that fails requests by `rule`, and hangs on the `hang` share of them.

    A request that hangs has been carried out: its client never hears so, and asks again.
    """

    def __init__(self) -> None:
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.requests = 0
        self.injected: Counter[str] = Counter()
        self.written: Counter[str] = Counter()
        self._seals: set[str] = set()
        self.last_write = 0.0
        self.heal()

    def heal(self) -> None:
        """Answer all requests from now on."""
        self.rule: Callable[[Environ], Answer | None] = lambda _: None
        self.hang = 0.0

    def fail_a_share(self, shares: dict[Answer, float], hang: float) -> None:
        """Fail each request by chance, from now on."""
        answers = [*shares, None]
        weights = [*shares.values(), 1 - sum(shares.values())]
        self.rule = lambda _: self._random.choices(answers, weights)[0]
        self.hang = hang

    def __enter__(self) -> "FailingStore":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        with self._lock:
            self.requests += 1
            answer = self.rule(environ)
            hangs = answer is None and self._random.random() < self.hang
            self.injected.update([answer[0][:3]] if answer else ["hang"] * hangs)
        if answer:
            return _refuse(environ, start_response, *answer)
        if environ["REQUEST_METHOD"] in ("PUT", "POST", "DELETE"):
            self.last_write = time.monotonic()
        sent = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        body = self._app(environ | {"wsgi.input": io.BytesIO(sent)}, start_response)
        if environ["REQUEST_METHOD"] == "PUT":
            self.written[environ["PATH_INFO"]] += 1
            if SEAL in sent:
                self._seals.add(environ["PATH_INFO"])
        if hangs:
            time.sleep(HANG_S)
        return body

    def sealed(self, group: str) -> list[str]:
        """Return the paths of the seals of groups of this name. An unsealed group has an empty document there."""
        return sorted(path for path in list(self._seals) if path.endswith(f"/{group}/zarr.json"))


def _refuse(environ: Environ, start_response: Any, status: str, code: str) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    error = f"<Error><Code>{code}</Code><Message>{code} came up</Message></Error>"
    text = f"<DeleteResult>{error}</DeleteResult>" if status == KEPT[0] else error
    body = b"" if environ["REQUEST_METHOD"] == "HEAD" else text.encode()
    start_response(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(scope="module")
def server() -> Iterator[FailingStore]:
    with FailingStore() as started:
        yield started


@pytest.fixture
def store(server: FailingStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingStore]:
    """Return the server, with a bucket `labels`, to which this environment's credentials lead."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "FSSPEC_S3": json.dumps({"config_kwargs": {"read_timeout": READ_TIMEOUT_S}}),
    }.items():
        monkeypatch.setenv(name, value)
    file_system("s3://labels")[0].makedirs("labels", exist_ok=True)
    yield server
    server.heal()


@pytest.fixture
def url(store: FailingStore, request: pytest.FixtureRequest) -> str:
    """Return a place of the test's own."""
    return f"s3://labels/{request.node.name.split('[')[0]}.zarr"


@pytest.fixture
def uploaded(url: str, built: Path) -> str:
    """Return the URL of a copy of the finished cache."""
    fs, path = file_system(url)
    fs.put(f"{built}/", path, recursive=True)
    return url


def wait_for(happened: Callable[[], object], running: subprocess.Popen[str]) -> None:
    """Wait for something that a run does on its way; the run ends if it does not come."""
    deadline = time.monotonic() + 300
    while not happened():
        if time.monotonic() > deadline or running.poll() is not None:
            running.kill()
            pytest.fail(f"waited in vain: {running.communicate()[1]}")
        time.sleep(0.05)


def problems(url: str) -> list[str]:
    return [f"{problem.path}: {problem.kind}" for problem in validate(*Cache.open(url))]


def remove_lease(url: str) -> None:
    """Do what docs tell an operator to do who knows that the run is dead, rather than wait for the lease to lapse."""
    fs, path = file_system(f"{url}/.run.lock")
    fs.rm_file(path)


def assert_same_arrays(one: str, other: str) -> None:
    left, right = Cache(one), Cache(other)
    assert left.shard_keys() == right.shard_keys() != []
    groups = [GroupPath(key, group) for key in left.shard_keys() for group in left.shard_seals(key)]
    assert all(left.shard_seals(key).keys() == right.shard_seals(key).keys() for key in left.shard_keys())
    for path in [GroupPath.root("text"), *groups]:
        found, wanted = left.read(path), right.read(path)
        assert found.keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_array_equal(found[name], values)


def test_a_run_on_a_failing_store_is_killed_goes_on_and_gives_what_a_local_run_gives(
    made: Path, built: Path, store: FailingStore, url: str, labelgen: Any
) -> None:
    asked = store.requests
    store.fail_a_share({INTERNAL: 0.02, SLOW_DOWN: 0.01}, hang=0.005)
    running = labelgen.start(made / "nuscenes", url)
    wait_for(lambda: store.sealed("sam"), running)
    second = labelgen.run(made / "nuscenes", url)
    assert second.returncode == 1
    assert f"process {running.pid} on " in second.stderr
    assert "is already writing this cache" in second.stderr
    running.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    running.communicate()
    early = labelgen.run(made / "nuscenes", url)
    assert early.returncode == 1
    assert "if it was killed, try again in 60 s" in early.stderr
    while time.monotonic() - store.last_write < 5:
        assert time.monotonic() - killed < lock.LEASE_SECONDS, "its workers outlive the lease"
        time.sleep(0.1)

    remove_lease(url)
    sealed = {path: store.written[path] for group in SHARD_GROUPS for path in store.sealed(group)}
    done = labelgen.run(made / "nuscenes", url)
    assert done.returncode == 0, done.stderr
    assert {path: store.written[path] for path in sealed} == sealed, "what was sealed is not written again"
    verified = labelgen("verify", url)
    assert (verified.returncode, verified.stdout) == (0, f"{url}: sound, 3 shards\n"), verified.stderr
    found = labelgen.inspect(url)
    assert json.loads(file_system(url)[0].cat_file(f"{url}/summary.json"))["retries"]["store_requests"] >= 1
    assert store.injected["500"] >= 10
    assert store.injected["503"] >= 5
    assert store.injected["hang"] >= 3
    assert store.requests - asked > 500

    store.heal()
    assert found | {"cache": ""} == labelgen.inspect(built) | {"cache": ""}
    assert_same_arrays(url, str(built))
    assert not file_system(url)[0].exists(f"{url}/.run.lock"), "the lease is given back"
    arrays = ["images/rgb", "sam/mask_ids", "labels/image", "points/xyz", "pairs/point", "pairs/image", "pairs/row"]
    remote, local = CacheStream(url, [*arrays, "pairs/col"]), CacheStream(str(built), [*arrays, "pairs/col"])
    assert len(remote.samples) == 5
    for here, there in zip(local.samples, remote.samples, strict=True):
        wanted = local.read(here)
        for name, values in remote.read(there).items():
            np.testing.assert_array_equal(values, wanted[name])


def test_a_store_that_goes_away_stops_the_run_with_one_error_and_the_next_run_goes_on(
    made: Path, store: FailingStore, url: str, labelgen: Any
) -> None:
    before = set(store.sealed("images"))
    running = labelgen.start(made / "nuscenes", url, "--limit", "1")
    wait_for(lambda: set(store.sealed("images")) - before, running)
    store.rule = lambda _: INTERNAL
    _, errors = running.communicate(timeout=240)
    assert running.returncode == 1, errors
    assert_one_error(errors, url, "the store fails (", "rerun the same command")

    store.heal()
    left = problems(url)
    assert left, "the run did not finish"
    assert {line.split(": ")[1] for line in left} == {"unsealed-group"}, "what is there is sealed, or known to be not"
    remove_lease(url)
    (seal,) = set(store.sealed("images")) - before
    times = store.written[seal]
    done = labelgen.run(made / "nuscenes", url, "--limit", "1")
    assert done.returncode == 0, done.stderr
    assert problems(url) == []
    assert store.written[seal] == times, "what was sealed is not written again"


def assert_one_error(errors: str, *said: str) -> None:
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert all(words in line for words in said), line
    assert "Traceback" not in errors


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize("command", ["run", "inspect", "verify"])
def test_a_store_that_cannot_be_used_is_one_error_with_its_fix(
    made: Path, store: FailingStore, url: str, labelgen: Any, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def fails(place: str, *said: str) -> None:
        done = labelgen.run(made / "nuscenes", place) if command == "run" else labelgen(command, place)
        assert done.returncode == 1
        assert done.stdout == ""
        assert_one_error(done.stderr, place, *said)

    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    fails("s3://absent/x.zarr", "The specified bucket does not exist; create the bucket, or correct the URL")
    store.rule = lambda _: DENIED
    fails(url, "the store refuses access (AccessDenied came up); check the credentials: they must be allowed")
    nobody = f"http://127.0.0.1:{_free_port()}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", nobody)
    fails(url, f'the store fails (Could not connect to the endpoint URL: "{nobody}', "check that it is running")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    fails(url, "Unable to locate credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")


@pytest.mark.parametrize("unread", ["/sam/features/c/", "/sam/zarr.json"])
def test_what_a_store_fails_to_read_is_not_taken_for_damage(
    store: FailingStore, uploaded: str, labelgen: Any, monkeypatch: pytest.MonkeyPatch, unread: str
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    files = Cache(uploaded).file_sizes()
    store.rule = lambda environ: INTERNAL if unread in environ["PATH_INFO"] else None
    done = labelgen("verify", uploaded, "--repair")
    assert done.returncode == 1
    assert_one_error(done.stderr, f"{uploaded}: the store fails ([Errno 121] Internal")
    store.heal()
    assert Cache(uploaded).file_sizes() == files, "nothing was removed"
    assert problems(uploaded) == []


def test_an_object_cut_short_is_damage_and_not_a_failure_of_the_store(uploaded: str, built: Path) -> None:
    fs, base = file_system(uploaded)
    key = Cache(uploaded).shard_keys()[0]
    (chunk,) = fs.find(f"{base}/shards/{key}/labels/image/c")
    fs.pipe_file(chunk, fs.cat_file(chunk)[:-100])
    assert [line.split(":")[0] for line in problems(uploaded)] == [f"shards/{key}/labels/image"]


WRITE = """
import sys
from cache_schemas.documents import Provenance
from cache_schemas.group_path import GroupPath
from cache_schemas.store import Cache
source, target = Cache(sys.argv[1]), Cache(sys.argv[2], "a")
path = GroupPath.parse(sys.argv[3])
seal = source.seals([path])[path]
target.write_group(path, source.read(path), Provenance("another", samples=seal.samples, counts=seal.counts))
"""
"""Another process, which writes a group of one cache into another."""


def test_what_another_process_has_written_or_removed_since_is_seen(uploaded: str, built: Path) -> None:
    cache = Cache(uploaded, "a")
    keys = cache.shard_keys()
    path = GroupPath(keys[0], "labels")
    listed = cache.stored_bytes(path)
    cache.remove_group(path)
    assert cache.stored_bytes(path) == {}
    assert path not in cache.seals([path])

    subprocess.run([sys.executable, "-c", WRITE, str(built), uploaded, str(path)], check=True)
    assert cache.seals([path])[path].fingerprint == "another"
    assert cache.stored_bytes(path) == listed
    cache.remove_group(path)
    fs, base = file_system(uploaded)
    assert fs.find(f"{base}/{path}") == [], "all goes, also what was written after the last listing"
    fs.rm(f"{base}/shards/{keys[1]}", recursive=True)
    assert cache.shard_keys() == [keys[0], keys[2]]


def test_what_a_store_keeps_in_silence_is_not_taken_for_removed(store: FailingStore, uploaded: str) -> None:
    """Some stores answer a request to remove an object with success, whatever became of it."""
    cache = Cache(uploaded, "a")
    path = GroupPath(cache.shard_keys()[0], "labels")
    store.rule = lambda environ: KEPT if environ["REQUEST_METHOD"] == "DELETE" else None
    with pytest.raises(StoreError, match=rf"{uploaded}: the store did not remove .*; check that the credentials may"):
        cache.remove_group(path)


def test_the_lease_of_a_killed_run_lapses_on_a_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, path = file_system(f"{url}/.run.lock")
    fs.pipe_file(path, json.dumps({"holder": "a killed run", "renewed": time.time()}).encode())
    with pytest.raises(CacheLockedError, match="a killed run is already writing"), run_lock(url):
        pass
    monkeypatch.setattr(lock, "LEASE_SECONDS", 1.0)
    time.sleep(1.1)
    with run_lock(url):
        assert fs.exists(path)
    assert not fs.exists(path)


def test_every_request_that_failed_and_was_sent_again_is_counted(store: FailingStore) -> None:
    fs = file_system("s3://labels/counted")[0]
    count_retries()
    take_retries()
    before = store.injected["500"] + store.injected["503"]
    store.fail_a_share({INTERNAL: 0.08, SLOW_DOWN: 0.04}, hang=0)
    for number in range(40):
        fs.pipe_file(f"labels/counted/{number}", b"1")
    store.heal()
    assert take_retries() == store.injected["500"] + store.injected["503"] - before


def test_a_lock_that_the_store_refuses_is_an_error(store: FailingStore, url: str) -> None:
    store.rule = lambda environ: DENIED if environ["REQUEST_METHOD"] == "PUT" else None
    with pytest.raises(StoreError, match="the store refuses"), run_lock(url):
        pass
