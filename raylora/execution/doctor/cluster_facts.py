"""What Ray and its nodes say."""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, build_opener

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray.util.state import list_nodes

from raylora.errors import first_line
from raylora.execution.cluster import LOCAL, check_address, connected, living_nodes
from raylora.execution.doctor.asking import Probe, Said
from raylora.execution.doctor.node_facts import MOST_S, OUT, RAY_FOLDER, facts_here, nearest_there, version_facts
from raylora.execution.doctor.node_work import guards, remove_mark, tell_time, unreadable, unseen_marks, write_mark
from raylora.execution.doctor.questions import ClusterQuestion, NodeQuestion

TASK_S = 60
"""For a small task on each node: a process that is new there starts in seconds."""
FACTS_S = MOST_S + TASK_S
STATE_S = 30
KNOCKS = 3
HEAD = "node:__internal_head__"


@dataclass(frozen=True)
class Session:
    """Ray while it is looked at."""

    question: ClusterQuestion
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def is_own(self) -> bool:
        return self.question.address in (None, LOCAL)


@contextmanager
def opened(question: ClusterQuestion) -> Iterator[Session]:
    """Whatever a probe has started ends with the block."""
    session = Session(question)
    with session.stack:
        yield session


def on_nodes(work: Callable[[Any], Any], given: dict[str, Any], limit_s: float = TASK_S) -> dict[str, Said]:
    """Have each of these nodes, by their ids, do something with what it is given."""
    remote = ray.remote(num_cpus=0, max_retries=0)(work)
    tasks = {
        node: remote.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(argument)
        for node, argument in given.items()
    }
    until = time.monotonic() + limit_s
    return {node: _wait_for(task, until - time.monotonic(), limit_s) for node, task in tasks.items()}


def _wait_for(task: Any, left_s: float, limit_s: float) -> Said:
    try:
        return Said(ray.get(task, timeout=max(0.0, left_s)))
    except ray.exceptions.GetTimeoutError:
        ray.cancel(task, force=True)
        return Said(fault=f"gave no answer in {limit_s:.0f} s")
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        return Said(fault=f"{type(cause).__name__}: {first_line(cause)}")
    except Exception as error:  # a node that is lost on the way, or that lacks the module of the task
        return Said(fault=f"{type(error).__name__}: {_last_line(error)}")


def _last_line(error: Exception) -> str:
    """Ray puts a traceback into some of its messages, whose last line is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else ""


def connect(session: Session) -> str:
    """A cluster's address.

    Ray of this machine alone gets a token of its own, so that it writes none into the home folder, and lies with what
    else is temporary in this process.
    """
    address = session.question.address
    if session.is_own:
        os.environ |= {"RAY_TMPDIR": os.environ["TMPDIR"], "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    check_address(address)
    session.stack.enter_context(connected(address, with_state_api=True))
    return _address()


def _address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def ask_state(_: Session) -> int:
    """How many nodes the State API knows."""
    return len(list_nodes(_address(), timeout=STATE_S))  # by itself it asks whatever Ray it finds on this machine


def describe_nodes(_: Session) -> list[dict[str, Any]]:
    """The living nodes, the head first."""
    nodes = [
        {
            "id": node["NodeID"],
            "host": node["NodeManagerHostname"],
            "address": node["NodeManagerAddress"],
            "gpus": node["Resources"].get("GPU", 0),
            "is_head": HEAD in node["Resources"],
            "ray": str(Path(node["RayletSocketName"]).parents[2]),
        }
        for node in living_nodes()
    ]
    return sorted(nodes, key=lambda node: (not node["is_head"], node["host"]))


def ask_facts(session: Session) -> dict[str, Said]:
    """What each node says of itself."""
    question = session.question
    shared = {OUT: str(question.out)} if question.shares_out else {}
    given = {
        node["id"]: NodeQuestion({**shared, RAY_FOLDER: node["ray"]}, question.keeps_copies)
        for node in describe_nodes(session)
    }
    return on_nodes(facts_here, given, FACTS_S)


def ask_versions(_: Session) -> dict[str, str | None]:
    """What runs here, where the search would be started: it may be another environment than the nodes'."""
    return version_facts({})


def ask_clocks(session: Session) -> dict[str, Said]:
    """How many seconds each node's clock is ahead of this machine's, and by how much that may be wrong."""
    ids = _ids()
    rounds = []
    for _ in range(KNOCKS):
        answers = {}
        for node in ids:
            asked = time.time()
            said = on_nodes(tell_time, {node: None})[node]
            half = (time.time() - asked) / 2
            answers[node] = Said((said.value - asked - half, half)) if said.fault is None else said
        rounds.append(answers)
    return {node: min((one[node] for one in rounds), key=_doubt) for node in ids}


def _doubt(said: Said) -> float:
    return said.value[1] if said.value else float("inf")


def ask_shared(session: Session) -> dict[str, Any]:
    """Whether each node can write where the output goes, sees what others wrote there, and what trials read."""
    seen = on_nodes(unreadable, dict.fromkeys(_ids(), session.question.reads))
    return {"unreadable": seen} | (_ask_marks(session.question.out) if session.question.shares_out else {})


def _ask_marks(out: Path) -> dict[str, Any]:
    place = nearest_there(out)
    name = f".raylora-doctor-{uuid.uuid4().hex}"
    marks = {node: place / f"{name}-{number}" for number, node in enumerate(_ids())}
    try:
        written = on_nodes(write_mark, dict(marks))
        there = [marks[node] for node, said in written.items() if said.fault is None]
        unseen = on_nodes(unseen_marks, dict.fromkeys(marks, there))
    finally:
        on_nodes(remove_mark, dict(marks))
    owners = {mark: node for node, mark in marks.items()}
    return {
        "place": str(place),
        "written": written,
        "unseen": {
            node: Said([owners[mark] for mark in said.value] if said.value else said.value, said.fault)
            for node, said in unseen.items()
        },
    }


def ask_guards(session: Session) -> dict[str, Any]:
    """Whom Ray lets in: which of its doors are open to other machines, and whether it asks for a token there."""
    doors = {"its main port": _port(_address())}
    dashboard = ray._private.worker._global_node.webui_url  # no public function tells it
    if dashboard:
        doors["its dashboard"] = _port(dashboard)
    head = next(node["id"] for node in describe_nodes(session) if node["is_head"])
    said = on_nodes(guards, {head: list(doors.values())})[head]
    if said.fault:
        raise RuntimeError(said.fault)
    exposed, mode = said.value
    asks = _asks_strangers(dashboard) if dashboard else None
    return {
        "exposed": [f"{name} ({port})" for name, port in doors.items() if port in exposed],
        "wants_token": mode == "token" if asks is None else asks,
    }


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def _asks_strangers(dashboard: str) -> bool | None:
    """Whether it turns those away who bring no token; None where it says neither."""
    try:
        build_opener(ProxyHandler({})).open(f"http://{dashboard}/api/version", timeout=STATE_S).close()
    except HTTPError as error:
        return True if error.code in (401, 403) else None
    except OSError:
        return None
    return False


def _ids() -> Sequence[str]:
    return [node["NodeID"] for node in living_nodes()]


FACTS: dict[str, Probe] = {
    "ray": Probe(connect, limit_s=300, is_vital=True),
    "nodes": Probe(describe_nodes, is_vital=True),
    "state": Probe(ask_state, limit_s=3 * STATE_S),
    "guards": Probe(ask_guards, limit_s=TASK_S + 3 * STATE_S),
    "facts": Probe(ask_facts, limit_s=FACTS_S + TASK_S),
    "versions": Probe(ask_versions),
    "clocks": Probe(ask_clocks, limit_s=3 * TASK_S),
    "shared": Probe(ask_shared, limit_s=5 * TASK_S),
}
