"""Jobs of a Ray cluster: sent, followed, listed and stopped through its dashboard (Ray's Jobs API)."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import ray
import requests
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from ray.util.state import list_nodes

from raylora.errors import ConfigError, RayloraError, first_line
from raylora.execution.packing import files_of, named_by, pack

DASHBOARD = "http://127.0.0.1:8265"
KNOCK_S = 5
STOP_S = 120
"""A job that is stopped has so long to end resumable: Ray kills it then, by default after 3 seconds
(`RAY_JOB_STOP_WAIT_TIME_S`, ray/dashboard/modules/job/job_supervisor.py). A slow MLflow server takes most of it."""
LOST_S = 60
"""So long a dashboard may be away while its job is followed."""
POLL_S = 0.5
INTERRUPTED = 130
STATUSES = (0, 1, 2, INTERRUPTED)
"""That a raylora command ends with."""

TALKERS = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Ray's loggers that tell of each upload and each connection; each has a level of its own."""

Write = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """A raylora command for a cluster."""

    words: Sequence[str]
    """Of the command line there."""
    package: Path | None
    """A zip with the files that it names, if it names any of this machine's."""
    out: Path | None
    gpus: float
    environment: Mapping[str, str]

    @property
    def entrypoint(self) -> str:
        """The shell's command line. Its shell gives way to raylora, so that signals and exit status are raylora's."""
        module = ["raylora"] if self.out is None else ["raylora.execution.inputs", str(self.out)]
        return f"exec {shlex.join(['python', '-m', *module, *self.words])}"


@contextmanager
def jobs_at(address: str) -> Iterator[JobSubmissionClient]:
    """The jobs of the cluster whose dashboard is at an address; whatever Ray says is said in raylora's words.

    Raises:
        ConfigError: no dashboard answers there, it wants another token, or there is no such job.
    """
    _knock(address)
    for talker in TALKERS:
        logging.getLogger(talker).setLevel(logging.ERROR)
    try:
        yield JobSubmissionClient(address)
    except ray.exceptions.AuthenticationError:
        raise ConfigError(
            f"--address {address}: the cluster wants a token, or another one; set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        ) from None
    except (ConnectionError, requests.RequestException, aiohttp.ClientError) as error:
        raise ConfigError(f"--address {address}: no Ray dashboard answers there ({first_line(error)})") from None
    except RuntimeError as error:
        raise ConfigError(f"--address {address}: {_in_a_line(error)}") from None


def _knock(address: str) -> None:
    """Ray itself waits for minutes, and takes an address from the environment without a word."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--address {address}: give the cluster's dashboard, such as {DASHBOARD}")
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        os.environ.pop(name, None)
    if urllib.request.getproxies().get(parts.scheme):
        return
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname, port), timeout=KNOCK_S).close()
    except (OSError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"--address {address}: no Ray dashboard answers there ({error}); start the cluster with its dashboard, "
            "forward its port (`ray dashboard CLUSTER.yaml`, `kubectl port-forward`), or mend the address"
        ) from None


def _in_a_line(error: Exception) -> str:
    """The reason in an answer of the dashboard, which may be a traceback."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def has_gpus(address: str) -> bool:
    """Whether any node of the cluster has one now."""
    return any(
        (node.resources_total or {}).get("GPU") for node in list_nodes(address=address, raise_on_missing_output=False)
    )


def send(client: JobSubmissionClient, order: Order) -> str:
    """Start a command as a job; returns the job's id."""
    packed = {"working_dir": str(order.package)} if order.package else {}
    job_id: str = client.submit_job(
        entrypoint=order.entrypoint,
        runtime_env={**packed, "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), **order.environment}},
        entrypoint_num_gpus=order.gpus or None,
    )
    return job_id


@contextmanager
def packed(params: Mapping[str, object], working_dir: Path) -> Iterator[Path | None]:
    """A package of what a command names of this machine, for as long as the block lasts; None where that is nothing.

    Raises:
        ConfigError: something isn't there, or it is too much.
    """
    files = files_of(named_by(params, working_dir), working_dir)
    with tempfile.TemporaryDirectory(prefix="raylora-") as folder:
        target = Path(folder) / "package.zip"
        if files:
            pack(files, working_dir, target)
        yield target if files else None


def follow(client: JobSubmissionClient, job_id: str, write: Write) -> int:
    """Write a job's log as it comes, to the job's end; returns the exit status of its command.

    A dashboard that is away is waited for.

    Raises:
        RayloraError: it stayed away.
    """
    heard, lost_at = 0, None
    while True:
        try:
            heard = asyncio.run(_tail(client, job_id, write, heard))
            if (job := client.get_job_info(job_id)).status.is_terminal():
                return status_of(job)
            lost_at = None
        except _Lost as lost:
            heard, lost_at = lost.heard, lost_at or time.monotonic()
        except (ConnectionError, requests.RequestException):
            lost_at = lost_at or time.monotonic()
        if lost_at and time.monotonic() - lost_at > LOST_S:
            raise RayloraError(
                f"the cluster's dashboard is gone; job {job_id} may go on there: raylora jobs logs {job_id} --follow"
            )
        time.sleep(POLL_S)


class _Lost(Exception):  # noqa: N818  # no error: it is waited for
    """The connection broke after so many characters of a log."""

    def __init__(self, heard: int):
        self.heard = heard


async def _tail(client: JobSubmissionClient, job_id: str, write: Write, skip: int) -> int:
    """Write a log but for its beginning; returns how many characters there are by now."""
    heard = 0
    try:
        async for text in client.tail_job_logs(job_id):
            if heard + len(text) > skip:
                write(text[max(0, skip - heard) :])
            heard += len(text)
    except (aiohttp.ClientError, ConnectionError, RuntimeError):
        raise _Lost(max(heard, skip)) from None
    return max(heard, skip)


def status_of(job: JobDetails) -> int:
    """The exit status of a job's command; of one that never got so far, or was killed, 1."""
    if job.status == JobStatus.STOPPED:
        return INTERRUPTED
    return job.driver_exit_code if job.driver_exit_code in STATUSES else 1


def stop(client: JobSubmissionClient, job_id: str) -> JobDetails:
    """Stop a job and wait until it has ended."""
    client.stop_job(job_id)
    while not (job := client.get_job_info(job_id)).status.is_terminal():
        time.sleep(POLL_S)
    return job


def command_of(job: JobDetails) -> str:
    """What a job runs, as it was typed."""
    words = shlex.split(job.entrypoint or "")
    if words[:3] == ["exec", "python", "-m"]:
        words = ["raylora", *words[5 if words[3].endswith(".inputs") else 4 :]]
    return shlex.join(words)


def why_it_failed(job: JobDetails) -> str:
    """What its log doesn't say of a job that ended before its command did, or by another hand."""
    if job.status != JobStatus.FAILED or job.driver_exit_code in STATUSES:
        return ""
    if job.driver_exit_code == 127:
        return "the head node's PATH has no `python`; start Ray there from the environment that raylora is in"
    if job.driver_exit_code is not None:
        return f"its process was killed (status {job.driver_exit_code})"
    return _in_a_line(RuntimeError(job.message or "no reason given"))
