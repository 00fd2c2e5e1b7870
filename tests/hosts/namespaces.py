"""Machines out of Linux namespaces: each has processes, network, host name, IPC and mounts of its own.

A machine's network is there as long as its network's others: held by a sleeping process, a veth pair leads from it to
a bridge in a namespace for that alone. Its processes live in a PID namespace, whose first process's death is the death
of them all, at once, by the kernel. That first process ends with `unshare`, and `unshare` with the process that started
it: so even if that is killed, no process, interface, namespace or mount is left, since none has a name to keep it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from tests.hosts.programs import HostsError, Program, launch, own_folder, wait_until

TOOLS = ("ip", "nsenter", "unshare", "setpriv", "mount", "hostname")
NETWORK = "10.213"
"""The first half of all addresses; they are seen by this machine alone."""
OUTSIDE = 254
"""The last part of this machine's own address in the network."""
BOOT = (
    'mount --bind "$1" /etc/hosts; mkdir -p /tmp/ray; mount --bind "$2" /tmp/ray; hostname "$3"; '
    "trap '' CHLD; echo up; exec sleep infinity"
)
"""The first process: it never looks at those that it inherits, so the kernel clears them away."""
TRIAL = "ip link add br0 type bridge; ip link add port0 type veth peer name port1; mount --bind /tmp /mnt"


def why_no_namespaces() -> str | None:
    """Why machines can't be made here; None if they can."""
    if sys.platform != "linux":
        return "namespaces are Linux's"
    if os.geteuid() != 0:
        return "making network namespaces needs root"
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        return f"not installed: {', '.join(missing)}"
    tried = subprocess.run(
        ["unshare", *_own_all(), "--net", "sh", "-ec", TRIAL], capture_output=True, text=True, check=False
    )
    return f"namespaces can't be made: {tried.stderr.strip()}" if tried.returncode else None


def _own_all() -> list[str]:
    return ["--pid", "--fork", "--kill-child=KILL", "--mount", "--uts", "--ipc", "--mount-proc"]


class NamespaceMachine:
    """A machine of a network.

    Args:
        name: its host name.
        network: pid of the process that holds its network namespace.
        folder: for its logs, and for Ray's files: a new folder at each start is its `/tmp/ray`.
        hosts_file: names and addresses of all machines.
        owner: the folder of all machines.
    """

    def __init__(self, name: str, address: str, network: int, folder: Path, hosts_file: Path, owner: Path):
        self.name, self.address, self.folder = name, address, folder
        self._network, self._hosts_file, self._owner = network, hosts_file, owner
        self._starts = 0
        self._kernel: Program | None = None
        self._first = 0
        self.power_on()

    def start(self, command: Sequence[str], log: str, env: Mapping[str, str] | None = None) -> Program:
        """Start a program; its working directory is this process's."""
        inside = ["nsenter", f"--target={self._first}", "--net", "--pid", "--mount", "--uts", "--ipc", "--"]
        place = ["env", f"--chdir={Path.cwd()}"]
        return launch([*inside, *place, *command], self._log(log), env, self._owner, is_wrapped=True)

    def port(self, wanted: int) -> int:
        return wanted

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on it, its first process left out."""
        mine = self._space_of(self._first)
        everyone = (process for process in psutil.process_iter() if process.pid != self._first)
        return [process for process in everyone if mine and self._space_of(process.pid) == mine]

    def power_off(self) -> None:
        """End all its processes. Their connections are closed by the kernel, so others may hear of it at once."""
        if self._kernel:
            self._kernel.kill()
            self._kernel, self._first = None, 0

    def power_on(self) -> None:
        if self._kernel:
            return
        self._starts += 1
        ray = self.folder / f"ray-{self._starts}"
        ray.mkdir(parents=True)
        outer = ["nsenter", f"--net=/proc/{self._network}/ns/net", "unshare", *_own_all()]
        boot = ["sh", "-ec", BOOT, "boot", str(self._hosts_file), str(ray), self.name]
        log = self._log(f"boot-{self._starts}")
        self._kernel = launch([*outer, *boot], log, None, self._owner, is_wrapped=True)
        wait_until(self._is_up, f"{self.name} to start; see its log: {self._kernel.tail()}")
        first = self._kernel.inner()
        assert first
        self._first = first.pid

    def _is_up(self) -> bool:
        assert self._kernel
        if self._kernel.status is not None:
            raise HostsError(f"{self.name} can't be started: {self._kernel.tail()}")
        return self._kernel.tail().endswith("up\n")

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    @staticmethod
    def _space_of(pid: int) -> str:
        try:
            return str(Path(f"/proc/{pid}/ns/pid").readlink())
        except OSError:  # it has ended
            return ""


@contextmanager
def hosts(names: Sequence[str]) -> Iterator[dict[str, NamespaceMachine]]:
    """Machines of these names, joined by a bridge, for as long as the block lasts.

    This process has an address in their network too, so it reaches them, and they reach it; nothing leads further.

    Raises:
        HostsError: one can't be made.
    """
    with own_folder() as folder, ExitStack() as held:
        network = _free_network()
        addresses = {name: f"{network}.{place}" for place, name in enumerate(names, 1)}
        hosts_file = folder / "hosts"
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in addresses.items())]
        hosts_file.write_text("\n".join(lines) + "\n")
        switch = _hold_network(folder, "switch", held)
        _ip(switch, "link add br0 type bridge", "link set br0 up")
        _join(switch, os.getpid(), f"rl{os.getpid()}", f"{network}.{OUTSIDE}", "outside")
        held.callback(_ip, switch, "link delete outside")  # the kernel would, but only a moment later
        machines = {}
        for place, (name, address) in enumerate(addresses.items()):
            held_by = _hold_network(folder, name, held)
            _join(switch, held_by, "eth0", address, f"port{place}")
            _ip(held_by, "link set lo up")
            machine = NamespaceMachine(name, address, held_by, folder / name, hosts_file, folder)
            held.callback(machine.power_off)
            machines[name] = machine
        yield machines


def _free_network() -> str:
    """A /24 that no interface of this machine is in; the search for one begins where the pid says."""
    told = subprocess.run(["ip", "-4", "-oneline", "address"], capture_output=True, text=True, check=True).stdout
    candidates = (f"{NETWORK}.{(os.getpid() + step) % 255}" for step in range(255))
    found = next((network for network in candidates if f" {network}." not in told), None)
    if found is None:
        raise HostsError(f"all networks of {NETWORK}.0.0/16 are in use")
    return found


def _hold_network(folder: Path, name: str, held: ExitStack) -> int:
    """A process that does nothing but hold a new network namespace; returns its pid."""
    holder = launch(["unshare", "--net", "sleep", "infinity"], folder / f"{name}-net.log", None, folder, False)
    held.callback(holder.kill)
    ours, theirs = Path("/proc/self/ns/net"), Path(f"/proc/{holder.pid}/ns/net")
    wait_until(lambda: theirs.readlink() != ours.readlink(), f"{name}'s network: {holder.tail()}")
    return holder.pid


def _join(switch: int, machine: int, interface: str, address: str, port: str) -> None:
    """A cable from the bridge to a network namespace, whose end has the address there."""
    _ip(
        switch,
        f"link add {port} type veth peer name {interface} netns {machine}",
        f"link set {port} master br0",
        f"link set {port} up",
    )
    _ip(machine, f"address add {address}/24 dev {interface}", f"link set {interface} up")


def _ip(network: int, *lines: str) -> None:
    """Run `ip` in the network namespace of a process.

    Raises:
        HostsError: it refused.
    """
    command = ["nsenter", f"--net=/proc/{network}/ns/net", "ip", "-batch", "-"]
    done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostsError(f"ip can't set the network up: {done.stderr.strip()}")
