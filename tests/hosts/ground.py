"""Everything that a search on a cluster meets, up and running, and the ways in which each part of it can fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from types import MappingProxyType

from tests.hosts.loopback import loopback_hosts
from tests.hosts.namespaces import hosts, why_no_namespaces
from tests.hosts.programs import Machine
from tests.hosts.ray_cluster import FakeNodes, RayHosts, fake_nodes
from tests.hosts.services import S3, MlflowServer, Postgres, Service, bring_back, crash

SERVICES = ("database", "s3", "mlflow")


@dataclass(frozen=True)
class Services:
    """MLflow, and what it stands on."""

    database: Postgres
    s3: S3
    mlflow: MlflowServer

    def wait(self) -> None:
        """Wait until all answer."""
        for service in (self.database, self.s3, self.mlflow):
            service.wait()


@dataclass(frozen=True)
class Ground:
    """A Ray cluster and services, each machine apart from the others."""

    ray: RayHosts
    services: Services


@dataclass(frozen=True)
class FakeGround:
    """The same where no namespaces can be made: nothing in it can be broken but the services."""

    ray: FakeNodes
    services: Services


@contextmanager
def ground(workers: int, env: Mapping[str, str] = MappingProxyType({})) -> Iterator[Ground]:
    """A head without work, so many workers with a CPU each, and the services: seven machines in all for three workers.

    Args:
        env: what else Ray's processes find in their environment.

    Raises:
        HostsError: something didn't come up; see `why_no_namespaces`.
    """
    names = [f"worker{number}" for number in range(1, workers + 1)]
    with hosts(["head", *names, *SERVICES]) as machines:
        ray = RayHosts(machines["head"], [machines[name] for name in names], env)
        ray.start()
        services = _start_services(machines, machines["database"].folder)
        ray.join()
        services.wait()
        ray.wait()
        yield Ground(ray, services)


@contextmanager
def fake_ground(workers: int) -> Iterator[FakeGround]:
    """As `ground`, out of Ray's own pretence of nodes and of services on loopback."""
    with loopback_hosts(["head", *SERVICES]) as machines:
        services = _start_services(machines, machines["database"].folder)
        with fake_nodes(machines["head"], workers) as ray:
            services.wait()
            yield FakeGround(ray, services)


@contextmanager
def best_ground(workers: int) -> Iterator[Ground | FakeGround]:
    """`ground` where namespaces can be made, else `fake_ground`."""
    with fake_ground(workers) if why_no_namespaces() else ground(workers) as made:
        yield made


def _start_services(machines: Mapping[str, Machine], folder: Path) -> Services:
    """MLflow needs its database when it starts, and its object store not before a file comes."""
    database, store = Postgres(machines["database"], folder), S3(machines["s3"])
    mlflow = MlflowServer(machines["mlflow"], database, store)
    database.start()
    store.start()
    database.wait()
    mlflow.start()
    return Services(database, store, mlflow)


Mend = Callable[[], None]
"""Brings back what a fault took; it may take seconds."""
Fault = Callable[[Ground, Random], Mend | None]
"""Breaks something, chosen by the random numbers where there is a choice; None if there was nothing to break."""


def _kill_worker(ground: Ground, random: Random) -> Mend | None:
    """Kill a process that runs a trial; Ray starts others by itself."""
    running = [process for name in ground.ray.workers for process in ground.ray.trial_processes(name)]
    if not running:
        return None
    random.choice(sorted(running, key=lambda process: process.pid)).kill()
    return lambda: None


def _kill_node(ground: Ground, random: Random) -> Mend:
    name = random.choice(sorted(ground.ray.workers))
    ground.ray.kill_node(name)

    def mend() -> None:
        ground.ray.restart_node(name)
        ground.ray.wait()

    return mend


def _kill_mlflow(ground: Ground, random: Random) -> Mend:
    return _kill_service(ground.services.mlflow)


def _kill_database(ground: Ground, random: Random) -> Mend:
    return _kill_service(ground.services.database)


def _kill_service(service: Service) -> Mend:
    crash(service)
    return lambda: bring_back(service)


FAULTS: dict[str, Fault] = {
    "worker": _kill_worker,
    "node": _kill_node,
    "mlflow": _kill_mlflow,
    "database": _kill_database,
}
"""What may fail besides the driver, which is in the hands of whoever started it."""
