"""Fetching, finding and checking teacher weights, against a real server on this machine."""

import errno
import fcntl
import hashlib
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from labelgen import weights
from labelgen.cli import main
from labelgen.errors import WeightsError
from labelgen.weights import REGISTRY, ShippedWeights, Weights, fetch, locate, verified, weights_folder

Refused = Callable[..., AbstractContextManager[None]]

CONTENT = np.random.default_rng(0).bytes(2_500_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Server:
    """What the server serves and how; `ranges` records the Range header of each request ("" for none)."""

    content: bytes = CONTENT
    knows_ranges: bool = True
    stop_after: int | None = None
    tells_length: bool = True
    wait: threading.Event | None = None
    status: int = 200
    url: str = ""
    ranges: list[str] = field(default_factory=list)
    bytes_sent: int = 0

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.ranges.append(wanted)
        if self.status != 200:
            request.send_error(self.status)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.knows_ranges else 0
        body = self.content[start:]
        if start and not body:
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if self.tells_length:
            request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if self.wait:
            self.wait.wait(20)
        # Counted first: a client that has read all may look before this thread continues.
        self.bytes_sent += len(body[: self.stop_after])
        request.wfile.write(body[: self.stop_after])
        request.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """A server of `toy.bin`, registered as the weights `toy`; the weights folder is tmp_path / "weights"."""
    state = Server()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        state.url = f"http://127.0.0.1:{httpd.server_address[1]}/models/toy.bin"
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setenv("LABELGEN_WEIGHTS", str(tmp_path / "weights"))
        monkeypatch.setattr(weights, "REGISTRY", {"toy": Weights(state.url, SHA256, "a toy (2.4 MiB)")})
        yield state
        httpd.shutdown()
        thread.join()


@pytest.fixture
def target(server: Server, tmp_path: Path) -> Path:
    """Where the toy weights belong."""
    return tmp_path / "weights" / "toy.bin"


@pytest.fixture
def part(target: Path) -> Path:
    """Where an unfinished download of the toy weights lies."""
    return target.with_name("toy.bin.part")


def files_beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


# Fetching


def test_a_fetch_brings_the_whole_file_and_reports_progress(server: Server, target: Path) -> None:
    reported: list[tuple[int, int | None]] = []
    assert fetch("toy", lambda done, total: reported.append((done, total))) == target
    assert target.read_bytes() == CONTENT
    assert files_beside(target) == ["toy.bin"]
    assert server.ranges == [""]
    assert [done for done, _ in reported] == sorted(done for done, _ in reported)
    assert len(reported) > 1 and reported[-1] == (2_500_000, 2_500_000)


def test_a_second_fetch_asks_the_server_for_nothing(server: Server, target: Path) -> None:
    fetch("toy")
    assert fetch("toy") == target
    assert server.ranges == [""]


def test_a_download_that_stops_early_goes_on_where_it_stopped(
    server: Server, target: Path, part: Path, refused: Refused
) -> None:
    server.stop_after = 1_000_003
    with refused(WeightsError, server.url, "1000003 of 2500000 bytes", target, "to resume the download here"):
        fetch("toy")
    assert not target.exists()
    assert part.read_bytes() == CONTENT[:1_000_003]

    server.stop_after = None
    reported: list[tuple[int, int | None]] = []
    fetch("toy", lambda done, total: reported.append((done, total)))
    assert server.ranges == ["", "bytes=1000003-"]
    assert server.bytes_sent == len(CONTENT)
    assert target.read_bytes() == CONTENT
    assert files_beside(target) == ["toy.bin"]
    assert reported[0][0] > 1_000_003 and reported[-1] == (2_500_000, 2_500_000)


def test_a_server_without_ranges_starts_over(server: Server, target: Path, part: Path) -> None:
    server.knows_ranges = False
    part.parent.mkdir()
    part.write_bytes(b"x" * 700_000)
    reported: list[tuple[int, int | None]] = []
    fetch("toy", lambda done, total: reported.append((done, total)))
    assert server.ranges == ["bytes=700000-"]
    assert target.read_bytes() == CONTENT
    assert reported[-1] == (2_500_000, 2_500_000)


def test_a_part_that_is_already_whole_only_takes_its_name(server: Server, target: Path, part: Path) -> None:
    part.parent.mkdir()
    part.write_bytes(CONTENT)
    fetch("toy")
    assert server.ranges == ["bytes=2500000-"]
    assert server.bytes_sent == 0
    assert target.read_bytes() == CONTENT
    assert files_beside(target) == ["toy.bin"]


def test_bytes_that_are_not_the_official_ones_are_removed(server: Server, target: Path, refused: Refused) -> None:
    server.content = CONTENT[:-1] + b"!"
    with refused(WeightsError, server.url, hashlib.sha256(server.content).hexdigest(), SHA256, "fetch again"):
        fetch("toy")
    assert files_beside(target) == []
    server.content = CONTENT
    fetch("toy")
    assert server.ranges == ["", ""]
    assert target.read_bytes() == CONTENT


def test_a_stale_part_that_does_not_fit_is_removed_too(
    server: Server, target: Path, part: Path, refused: Refused
) -> None:
    part.parent.mkdir()
    part.write_bytes(b"of another file")
    with refused(WeightsError, SHA256, "download was removed"):
        fetch("toy")
    assert files_beside(target) == []


def test_a_damaged_file_in_place_is_fetched_again(server: Server, target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(CONTENT[:-7])
    fetch("toy")
    assert server.ranges == [""]
    assert target.read_bytes() == CONTENT


def test_without_a_server_one_line_says_what_to_put_where(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as closed:
        port = closed.server_address[1]
    url = f"http://127.0.0.1:{port}/toy.bin"
    monkeypatch.setattr(weights, "REGISTRY", {"toy": Weights(url, SHA256, "a toy")})
    with refused(WeightsError, url, target, SHA256, "refused"):
        fetch("toy")


@pytest.mark.parametrize("status, reason", [(404, "Not Found"), (503, "Service Unavailable")])
def test_a_server_that_refuses_is_quoted(
    server: Server, target: Path, status: int, reason: str, refused: Refused
) -> None:
    server.status = status
    with refused(WeightsError, server.url, target, reason):
        fetch("toy")
    assert files_beside(target) == []


def test_a_server_that_fails_midway_does_not_cost_the_part(server: Server, part: Path, refused: Refused) -> None:
    part.parent.mkdir()
    part.write_bytes(CONTENT[:500])
    server.status = 503
    with refused(WeightsError, "Service Unavailable"):
        fetch("toy")
    assert part.read_bytes() == CONTENT[:500]


def test_a_weights_folder_that_cannot_be_made_is_said(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LABELGEN_WEIGHTS", str(tmp_path / "file" / "weights"))
    with refused(WeightsError, tmp_path / "file" / "weights" / "toy.bin", "Not a directory"):
        fetch("toy")
    assert server.ranges == []


def test_an_unknown_name_lists_the_known_ones(server: Server, refused: Refused) -> None:
    with refused(WeightsError, "'toys'", "known: toy"):
        fetch("toys")
    assert server.ranges == []


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_file_that_is_too_large_is_not_downloaded(
    server: Server, target: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch, tells_length: bool
) -> None:
    monkeypatch.setattr(weights, "REGISTRY", {"toy": Weights(server.url, SHA256, "a toy", largest_mib=3)})
    server.content, server.tells_length = bytes(50_000_000), tells_length
    reported: list[int] = []
    with refused(WeightsError, server.url, "more than 3 MiB", "was removed"):
        fetch("toy", lambda done, _: reported.append(done))
    assert max(reported, default=0) < 4_500_000
    assert files_beside(target) == []


def test_of_two_fetches_at_once_one_is_refused_and_the_file_is_whole(
    server: Server, target: Path, refused: Refused
) -> None:
    server.wait = threading.Event()
    first = threading.Thread(target=fetch, args=("toy",))
    first.start()
    while not server.ranges:
        time.sleep(0.01)
    with refused(WeightsError, "toy.bin.part", "another process is downloading toy", "labelgen weights fetch toy"):
        fetch("toy")
    server.wait.set()
    first.join()
    assert target.read_bytes() == CONTENT
    assert files_beside(target) == ["toy.bin"]
    assert server.ranges == [""]


def test_a_link_in_place_of_the_download_is_refused(
    server: Server, target: Path, part: Path, refused: Refused, tmp_path: Path
) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("mine")
    part.parent.mkdir()
    part.symlink_to(thesis)
    with refused(WeightsError, part, "a link in place of a download", "remove it"):
        fetch("toy")
    assert thesis.read_text() == "mine"


def test_a_file_system_without_locks_can_hold_weights(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    fetch("toy")
    assert target.read_bytes() == CONTENT


# Finding and checking


def test_verified_gives_path_and_digest_of_registered_weights(server: Server, target: Path) -> None:
    fetch("toy")
    assert verified("toy") == (target, SHA256)


def test_verified_refuses_a_damaged_registered_file(server: Server, target: Path, refused: Refused) -> None:
    target.parent.mkdir()
    target.write_bytes(b"damaged")
    digest = hashlib.sha256(b"damaged").hexdigest()
    with refused(WeightsError, target, digest, SHA256, "labelgen weights fetch toy"):
        verified("toy")


def test_absent_registered_weights_say_how_to_get_them(server: Server, target: Path, refused: Refused) -> None:
    with refused(WeightsError, target, "labelgen weights fetch toy", server.url):
        locate("toy")


def test_any_file_can_stand_for_weights_by_its_path(server: Server, tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(b"own weights")
    assert verified(str(own)) == (own, hashlib.sha256(b"own weights").hexdigest())


def test_neither_a_file_nor_a_name_is_refused(server: Server, tmp_path: Path, refused: Refused) -> None:
    with refused(WeightsError, "absent.pth", "neither a file nor registered (toy"):
        locate(str(tmp_path / "absent.pth"))


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("LABELGEN_WEIGHTS", raising=False)
    assert weights_folder() == tmp_path / "home" / ".cache" / "labelgen" / "weights"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert weights_folder() == tmp_path / "xdg" / "labelgen" / "weights"
    monkeypatch.setenv("LABELGEN_WEIGHTS", str(tmp_path / "mine"))
    assert weights_folder() == tmp_path / "mine"


def test_official_clip_urls_carry_the_digest_that_is_registered() -> None:
    official = {name: entry for name, entry in REGISTRY.items() if isinstance(entry, Weights)}
    assert sorted(official) == ["clip-rn50", "clip-vit-b-16", "sam-vit-b", "sam-vit-h", "sam-vit-l"]
    for name, entry in official.items():
        assert entry.url.startswith("https://") and len(entry.sha256) == 64
        if name.startswith("clip-"):
            assert entry.url.split("/")[-2] == entry.sha256


def test_shipped_weights_that_are_gone_say_to_install_again(monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    monkeypatch.setattr(weights, "REGISTRY", {"gone": ShippedWeights(Path("gone.safetensors"), "0" * 64, "gone")})
    with refused(WeightsError, "gone.safetensors", "install it again"):
        locate("gone")


# The commands


def test_weights_list_says_where_and_whether_they_are_there(server: Server, target: Path) -> None:
    before = CliRunner().invoke(main, ["weights", "list"])
    fetch("toy")
    after = CliRunner().invoke(main, ["weights", "list"])
    for result, word in ((before, "absent"), (after, "here")):
        assert result.exit_code == 0
        assert f"folder: {target.parent}" in result.output
        (line,) = (line for line in result.output.splitlines() if line.startswith("toy"))
        assert line.split()[1] == word
        assert server.url in result.output and SHA256 in result.output


def test_weights_fetch_prints_the_file_and_exits_with_0(server: Server, target: Path) -> None:
    result = CliRunner().invoke(main, ["weights", "fetch", "toy"])
    assert (result.exit_code, result.stdout) == (0, f"toy: {target}\n")
    assert target.read_bytes() == CONTENT


def test_weights_fetch_of_an_unknown_name_prints_one_line_and_exits_with_1(server: Server) -> None:
    result = CliRunner().invoke(main, ["weights", "fetch", "toys"])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("error: no weights 'toys'; known: toy")
    assert "Traceback" not in result.stderr


def test_weights_fetch_without_a_server_exits_with_1(server: Server, target: Path) -> None:
    server.status = 404
    result = CliRunner().invoke(main, ["weights", "fetch", "toy"])
    assert result.exit_code == 1
    message = result.stderr.splitlines()[-1]
    assert message.startswith(f"error: cannot download {server.url} (Not Found)")
    assert str(target) in message


def test_weights_fetch_without_a_name_is_wrong_usage() -> None:
    result = CliRunner().invoke(main, ["weights", "fetch"])
    assert result.exit_code == 2
    assert "Missing argument 'NAME'" in result.stderr
