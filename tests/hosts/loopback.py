"""Machines where namespaces can't be made: plain processes of this one, told apart by nothing but who started them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil

from tests.hosts.programs import PATIENCE_S, Program, launch, own_folder
from tests.ports import free_port

LOOPBACK = "127.0.0.1"


class LoopbackMachine:
    """Some processes on loopback, which die together."""

    def __init__(self, name: str, folder: Path, owner: Path):
        self.name, self.address, self.folder, self._owner = name, LOOPBACK, folder, owner
        self._programs: list[Program] = []
        folder.mkdir()

    def start(self, command: Sequence[str], log: str, env: Mapping[str, str] | None = None) -> Program:
        """Start a program; its working directory is this process's."""
        program = launch(command, self.folder / f"{log}.log", env, self._owner, is_wrapped=False)
        self._programs.append(program)
        return program

    def port(self, wanted: int) -> int:
        """One that is free now."""
        return free_port()

    def processes(self) -> list[psutil.Process]:
        """Its programs and all their children."""
        found: list[psutil.Process] = []
        for program in self._programs:
            with suppress(psutil.NoSuchProcess):
                if program.status is None:
                    parent = psutil.Process(program.pid)
                    found += [parent, *parent.children(recursive=True)]
        return found

    def power_off(self) -> None:
        """End all its processes."""
        ending = self.processes()
        for process in ending:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for program in self._programs:
            program.wait(PATIENCE_S)
        psutil.wait_procs(ending, PATIENCE_S)
        self._programs.clear()

    def power_on(self) -> None:
        """Nothing to do: what it is made of never went."""


@contextmanager
def loopback_hosts(names: Sequence[str]) -> Iterator[dict[str, LoopbackMachine]]:
    """Machines of these names, for as long as the block lasts."""
    with own_folder() as folder, ExitStack() as held:
        machines = {name: LoopbackMachine(name, folder / name, folder) for name in names}
        for machine in machines.values():
            held.callback(machine.power_off)
        yield machines
