"""Real Ray clusters: `RayHosts` on machines of their own, `fake_nodes` where there are none."""

from __future__ import annotations

import json
import secrets
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psutil

from tests.hosts.programs import PATIENCE_S, HostsError, Machine, Program, run, wait_until

PORT = 6379
STORE_BYTES = 100 * 2**20
"""Of a node's object store: Ray's least is 75 MiB."""
NO_WORKERS = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
"""What Ray calls processes of a node that run nothing of a user's."""
TOO_SLOW = "timed out during startup"
"""What `ray start` says of a node that wasn't there within the 30 s that it gives it."""
AWAIT_NODES = """
import logging, sys, time, ray
ray.init(address=sys.argv[1], logging_level=logging.ERROR, log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) != int(sys.argv[2]):
    time.sleep(0.2)
"""

STARTED = "started at "
FAKE_NODES = f"""
import json, signal, sys, threading
from tests.clusters import cluster_of
cluster = cluster_of(*json.loads(sys.argv[1]))
ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
print("{STARTED}" + cluster.address, flush=True)
ended.wait()
cluster.shutdown()
"""
"""In a process of its own: Ray reads once, as it is imported, whether it asks for a token."""


def ray_environment() -> dict[str, str]:
    """What every process of a cluster needs: this checkout as its modules, and a token made up anew each time."""
    return {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(16),
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "*",
    }


class RayHosts:
    """A Ray node on each machine: a head that no trial runs on, and workers with a CPU each.

    Ray's files are in each machine's own `/tmp/ray`, as they would be on real ones; paths of sockets must be short.

    Args:
        head: also where drivers run.
        workers: with a CPU each.
        env: what else all processes of the cluster find in their environment.
    """

    def __init__(self, head: Machine, workers: Sequence[Machine], env: Mapping[str, str] = MappingProxyType({})):
        self.head, self.workers = head, {worker.name: worker for worker in workers}
        self.address, self.environment = f"{head.address}:{PORT}", ray_environment() | dict(env)
        self._starting: list[Callable[[], Program]] = []

    def start(self) -> None:
        """Begin to start the head."""
        head = ["--head", f"--port={PORT}", "--num-cpus=0", "--include-dashboard=false"]
        self._begin(self.head, head)

    def join(self, *names: str) -> None:
        """Begin to start workers, of these names or all, once what starts already has."""
        self._settle()
        for name in names or self.workers:
            node = [f"--address={self.address}", "--num-cpus=1"]
            self._begin(self.workers[name], node)

    def wait(self) -> None:
        """Wait until what starts has: `ray start` ends when its node is known to the head."""
        self._settle()

    def wait_for(self, alive: int) -> None:
        """Wait until the head takes so many nodes for alive, itself included: it hears of a death seconds later."""
        run(self.head, [sys.executable, "-c", AWAIT_NODES, self.address, str(alive)], "await-nodes", self.environment)

    def kill_node(self, name: str) -> None:
        """Cut the power of a worker's machine."""
        self.workers[name].power_off()

    def restart_node(self, name: str) -> None:
        """Switch the machine on again, and begin to start its node."""
        self.workers[name].power_on()
        self.join(name)

    def trial_processes(self, name: str) -> list[psutil.Process]:
        """Processes on a worker that run something: Ray gives them its name."""
        return [process for process in self.workers[name].processes() if is_at_work(process)]

    def drive(self, *arguments: object, log: str = "driver") -> Program:
        """Start `raylora` on the head."""
        return _drive(self.head, arguments, log, self.environment)

    def _begin(self, machine: Machine, options: Sequence[str]) -> None:
        """Start a node; once more, on an empty machine, where this one is so busy that Ray gives the first up."""
        first = self._start_node(machine, options)

        def settled() -> Program:
            if not first.wait(PATIENCE_S) or TOO_SLOW not in first.tail():
                return first
            machine.power_off()
            machine.power_on()
            second = self._start_node(machine, options)
            second.wait(PATIENCE_S)
            return second

        self._starting.append(settled)

    def _start_node(self, machine: Machine, options: Sequence[str]) -> Program:
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", f"--node-ip-address={machine.address}"]
        common = [f"--object-store-memory={STORE_BYTES}", "--disable-usage-stats"]
        return machine.start([*ray, *options, *common], "ray-start", self.environment)

    def _settle(self) -> None:
        for settled in self._starting:
            if (node := settled()).status:
                raise HostsError(f"a Ray node can't be started: {node.tail()}")
        self._starting.clear()


def is_at_work(process: psutil.Process) -> bool:
    """Whether a process is a Ray worker that has been given something to do."""
    try:
        title = "".join(process.cmdline()[:1])
    except psutil.Error:
        return False
    return title.startswith("ray::") and title not in NO_WORKERS


@dataclass(frozen=True)
class FakeNodes:
    """A cluster of Ray's own pretended nodes."""

    head: Machine
    address: str
    environment: Mapping[str, str]

    def drive(self, *arguments: object, log: str = "driver") -> Program:
        """Start `raylora`."""
        return _drive(self.head, arguments, log, self.environment)


def _drive(head: Machine, arguments: Sequence[object], log: str, env: Mapping[str, str]) -> Program:
    return head.start([sys.executable, "-m", "raylora", *map(str, arguments)], log, env)


@contextmanager
def fake_nodes(head: Machine, workers: int) -> Iterator[FakeNodes]:
    """A head that no trial runs on and workers with a CPU each, on loopback addresses of their own.

    The head is at this machine's address in the network: Ray takes a loopback address of a head for that one.
    """
    nodes = [{"num_cpus": 0}, *({"num_cpus": 1, "node_ip_address": f"127.0.0.{place + 2}"} for place in range(workers))]
    environment = ray_environment()
    cluster = head.start([sys.executable, "-c", FAKE_NODES, json.dumps(nodes)], "fake-nodes", environment)
    try:
        wait_until(lambda: cluster.status is not None or STARTED in cluster.tail(), "Ray's nodes")
        if cluster.status is not None:
            raise HostsError(f"Ray's nodes can't be started: {cluster.tail()}")
        yield FakeNodes(head, cluster.tail().rpartition(STARTED)[2].split()[0], environment)
    finally:
        cluster.send(signal.SIGTERM)
        cluster.wait(PATIENCE_S)
