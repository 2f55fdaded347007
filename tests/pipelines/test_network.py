"""What a run opens to the network: nothing, unless it joins a cluster that is told otherwise."""

import ipaddress
import time
from pathlib import Path

import pytest

from tests.pipelines.processes import sockets_of, users_of

pytestmark = pytest.mark.ray

LISTENS = "0A"


def listening() -> dict[str, tuple[str, int]]:
    """Return the address and port of each listening TCP socket of this machine, by inode."""
    found = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENS:
                address, port = local.split(":")
                words = [bytes.fromhex(address[start : start + 8])[::-1] for start in range(0, len(address), 8)]
                found[inode] = str(ipaddress.ip_address(b"".join(words))), int(port, 16)
    return found


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback


def test_ray_listens_on_this_machine_only(made: Path, tmp_path: Path, temp: Path, labelgen) -> None:
    run = labelgen.start(made / "nuscenes", tmp_path / "cache.zarr", "--shards", "scene-0103-*")
    seen: dict[str, set[tuple[str, int]]] = {}
    while run.poll() is None:
        opened = listening()
        for process, named in users_of(temp).items():
            here = {opened[inode] for inode in sockets_of(process) if inode in opened}
            seen.setdefault(named.split()[0], set()).update(here)
        time.sleep(0.1)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    addresses = {address for found in seen.values() for address, _ in found}
    assert len(set().union(*seen.values())) > 5, "the raylet, its agents and workers all listen"
    assert any(named.endswith("gcs_server") and found for named, found in seen.items())
    assert all(map(is_loopback, addresses)), seen
