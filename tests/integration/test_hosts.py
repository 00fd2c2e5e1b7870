"""The machines that other tests stand on: apart from each other, mortal, and gone without a trace."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import psutil
import psycopg2
import pytest

from tests.hosts.loopback import loopback_hosts
from tests.hosts.namespaces import hosts, why_no_namespaces
from tests.hosts.programs import MARK, PATIENCE_S, HostsError, Machine, clear_leftovers, run, wait_until
from tests.hosts.services import Postgres, bring_back, crash

MakeHosts = Callable[[Sequence[str]], AbstractContextManager[Mapping[str, Machine]]]
WHY_NOT = why_no_namespaces()
needs_namespaces = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
BOTH = [pytest.param(hosts, marks=needs_namespaces), loopback_hosts]
LISTEN = """
import socket, sys
server = socket.create_server(("", 8000))
while True:
    server.accept()[0].sendall(b"here")
"""
ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], 8000), 10).recv(4).decode())"
OWNER = """
import sys, time
from tests.hosts.namespaces import hosts
from tests.hosts.loopback import loopback_hosts
with globals()[sys.argv[1]](["one", "two"]) as machines:
    for machine in machines.values():
        machine.start(["sh", "-c", "sleep 600 & sleep 600"], "sleeper")
    print(machines["one"].folder.parent, flush=True)
    time.sleep(600)
"""


@needs_namespaces
def test_machines_reach_each_other_and_this_one_until_their_power_is_cut() -> None:
    with hosts(["one", "two"]) as machines:
        one, two = machines["one"], machines["two"]
        one.start([sys.executable, "-c", LISTEN], "listen")
        wait_until(lambda: answers(one), "an answer")
        wait_until(lambda: asks(two, "one") == "here", "an answer to the other machine")
        one.start(["sleep", "600"], "sleep")
        one.power_off()
        assert not answers(one)
        assert asks(two, "one") is None
        one.power_on()
        assert one.processes() == []
        one.start([sys.executable, "-c", LISTEN], "listen-back")
        wait_until(lambda: answers(one), "an answer once it is back")


def answers(machine: Machine) -> bool:
    try:
        with socket.create_connection((machine.address, 8000), 10) as connection:
            return connection.recv(4) == b"here"
    except OSError:
        return False


def asks(machine: Machine, address: str) -> str | None:
    """What one machine is told by another, by name or address."""
    program = machine.start([sys.executable, "-c", ASK, address], "ask")
    return program.tail().split()[-1] if program.wait(PATIENCE_S) == 0 else None


@needs_namespaces
def test_a_machine_has_processes_name_and_ray_folder_of_its_own(tmp_path: Path) -> None:
    """And shares every other folder."""
    with hosts(["one", "two"]) as machines:
        machines["two"].start(["sleep", "600"], "sleep")
        look = f"hostname; ls /proc | grep -c '^[0-9]'; touch /tmp/ray/mine {tmp_path}/shared"
        run(machines["one"], ["sh", "-c", look], "look")
        name, processes = (machines["one"].folder / "look.log").read_text().split()
        assert name == "one"
        assert int(processes) < 10
        run(machines["two"], ["sh", "-c", f"test ! -e /tmp/ray/mine && test -e {tmp_path}/shared"], "look")
        assert not Path("/tmp/ray/mine").exists()


@pytest.mark.parametrize("make", BOTH)
def test_a_program_that_fails_says_how(make: MakeHosts) -> None:
    with make(["one"]) as machines, pytest.raises(HostsError, match=r"one: sh -c .* ended with 3: oh dear"):
        run(machines["one"], ["sh", "-c", "echo oh dear; exit 3"], "fail")


@pytest.mark.parametrize("make", BOTH)
def test_what_a_database_has_said_to_be_written_outlives_its_machine(make: MakeHosts, tmp_path: Path) -> None:
    with make(["database"]) as machines:
        database = Postgres(machines["database"], tmp_path)
        database.start()
        database.wait()
        with psycopg2.connect(plain(database)) as connection, connection.cursor() as cursor:
            cursor.execute("create table kept as select 7 as number")
        connection.close()
        crash(database)
        with pytest.raises(psycopg2.OperationalError):
            psycopg2.connect(plain(database))
        bring_back(database)
        with psycopg2.connect(plain(database)) as connection, connection.cursor() as cursor:
            cursor.execute("select number from kept")
            assert cursor.fetchall() == [(7,)]
        connection.close()


def plain(database: Postgres) -> str:
    return database.uri.replace("+psycopg2", "") + "?connect_timeout=2"


@pytest.mark.parametrize("make", BOTH)
def test_a_killed_owner_leaves_nothing_once_another_has_begun(make: MakeHosts) -> None:
    command = [sys.executable, "-c", OWNER, make.__name__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as owner:
        assert owner.stdout
        folder = Path(owner.stdout.readline().strip())
        wait_until(lambda: len(marked(folder)) >= 4, "the sleepers")
        clear_leftovers()
        assert folder.is_dir()  # its owner lives
        owner.kill()
    if make is hosts:  # by the kernel alone
        wait_until(lambda: not marked(folder), "the end of all processes")
        wait_until(lambda: f"rl{owner.pid}" not in psutil.net_if_addrs(), "the end of the network")
    clear_leftovers()
    wait_until(lambda: not marked(folder), "the end of all processes")
    assert not folder.exists()


def marked(folder: Path) -> list[psutil.Process]:
    """Processes that run on the machines of this folder's owner."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(folder):
                found.append(process)
    return found


def test_nothing_is_left_of_machines_whose_block_has_ended() -> None:
    """Nor of one that ends with an error."""
    with pytest.raises(ZeroDivisionError), loopback_hosts(["one"]) as machines:
        folder = machines["one"].folder.parent
        machines["one"].start(["sh", "-c", "sleep 600 & sleep 600"], "sleeper")
        wait_until(lambda: len(marked(folder)) >= 2, "the sleepers")
        _ = 1 / 0
    assert marked(folder) == []
    assert not folder.exists()
