"""A cluster that raylora starts by itself: nobody else can reach it, and nobody without its token can use it."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from raylora.execution.cluster import connected, node_resources
from raylora.execution.usage import usage

LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with connected(None, with_state_api=True):
        ray.get(ray.remote(num_cpus=0)(lambda: None).remote())  # a worker listens too
        yield


def listening() -> dict[int, str]:
    """The address of each port that Ray's processes of this one listen at."""
    here = psutil.Process()
    pids = {here.pid, *(child.pid for child in here.children(recursive=True))}
    found = [socket for socket in psutil.net_connections("inet") if socket.pid in pids]
    return {socket.laddr.port: socket.laddr.ip for socket in found if socket.status == psutil.CONN_LISTEN}


def dashboard() -> str:
    return str(ray._private.worker._global_node.webui_url)


def test_all_ports_are_on_loopback(cluster: None) -> None:
    found = listening()
    assert len(found) > 5
    assert {port: ip for port, ip in found.items() if ip not in LOOPBACK} == {}
    assert node_resources()[0]["CPU"] >= 1


def test_what_is_given_away_is_told(cluster: None) -> None:
    kind, count = next((kind, node_resources()[0][kind]) for kind in ("GPU", "CPU") if node_resources()[0].get(kind))
    assert usage().startswith(f"0 of {count:g} {kind}")


@pytest.mark.parametrize("path", ["/api/version", "/api/jobs/", "/nodes?view=summary"])
def test_the_dashboard_wants_a_token(cluster: None, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        urllib.request.urlopen(f"http://{dashboard()}{path}", timeout=120)
    refused.value.close()


def test_the_token_is_its_owners_alone(cluster: None) -> None:
    token = Path.home() / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    request = urllib.request.Request(
        f"http://{dashboard()}/api/version", headers={"Authorization": f"Bearer {token.read_text()}"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.status == 200


def test_what_is_started_later_is_as_ray_has_it(cluster: None) -> None:
    """A cluster of several machines, which somebody starts beside, needs their addresses in the network."""
    from ray._private import ray_constants

    assert ray_constants.ENABLE_RAY_CLUSTER
    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR not in os.environ
