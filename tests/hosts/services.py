"""What a search on a cluster has beside it: a database, an object store, and MLflow on both."""

from __future__ import annotations

import importlib.util
import os
import secrets
import sys
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import boto3
import psycopg2
from botocore.config import Config

from tests.hosts.programs import HostsError, Machine, Program, run, wait_until

KEYS = {"AWS_ACCESS_KEY_ID": "raylora", "AWS_SECRET_ACCESS_KEY": "raylora-secret", "AWS_DEFAULT_REGION": "us-east-1"}
NOT_ROOT = ("unshare", "--user", "--map-user=1000", "--map-group=1000")
"""PostgreSQL refuses to run as root: in a user namespace it isn't, and yet its files are whose they were."""
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Service(Protocol):
    """Something that runs on a machine of its own and dies with it."""

    machine: Machine

    def start(self) -> None:
        """Begin to start it."""

    def wait(self) -> None:
        """Wait until it answers."""


def crash(service: Service) -> None:
    """Cut the power of a service's machine."""
    service.machine.power_off()


def bring_back(service: Service) -> None:
    """Start a service again, on the data that it had, and wait until it answers."""
    service.machine.power_on()
    service.start()
    service.wait()


def _wait(program: Program | None, answers: Callable[[], bool], what: str) -> None:
    """Wait until a service answers; whatever it raises before is no answer.

    Raises:
        HostsError: it ended, or doesn't answer.
    """
    assert program

    def is_up() -> bool:
        if program.status is not None:
            raise HostsError(f"{what} ended with {program.status}: {program.tail()}")
        with suppress(Exception):
            return answers()
        return False

    try:
        wait_until(is_up, f"{what} to answer", every_s=0.1)
    except HostsError as error:
        raise HostsError(f"{error}; its log ends: {program.tail()}") from None


class Postgres:
    """A PostgreSQL server with an empty database `mlflow`; its password is made up anew each time.

    Args:
        folder: for its data.
    """

    def __init__(self, machine: Machine, folder: Path):
        self.machine, self._data = machine, folder / "postgres"
        self._port, self._password = machine.port(5432), secrets.token_hex(8)
        self._program: Program | None = None
        self.uri = f"postgresql+psycopg2://raylora:{self._password}@{machine.address}:{self._port}/mlflow"

    def start(self) -> None:
        if not self._data.is_dir():
            self._make()
        (self._data / "postmaster.pid").unlink(missing_ok=True)  # whoever wrote it is dead; its pid may be another's
        options = {"listen_addresses": self.machine.address, "port": self._port, "unix_socket_directories": ""}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._program = self.machine.start(_postgres("postgres", "-D", self._data, *settings), "postgres")

    def wait(self) -> None:
        """Wait until it answers, and make the database if there is none."""
        _wait(self._program, self._answers, "PostgreSQL")

    def _make(self) -> None:
        password = self._data.with_suffix(".password")
        password.write_text(self._password)
        how = ["--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8", "--no-sync"]
        run(self.machine, _postgres("initdb", "-D", self._data, "-U", "raylora", *how), "initdb")
        with (self._data / "pg_hba.conf").open("a") as file:
            file.write("host all all 0.0.0.0/0 scram-sha-256\n")

    def _answers(self) -> bool:
        connection = psycopg2.connect(
            host=self.machine.address, port=self._port, user="raylora", password=self._password, dbname="postgres"
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("select 1 from pg_database where datname = 'mlflow'")
                if not cursor.fetchone():
                    cursor.execute("create database mlflow")
        finally:
            connection.close()
        return True


def _postgres(program: str, *arguments: object) -> list[str]:
    """A command of PostgreSQL's own, out of the package that brings it."""
    found = importlib.util.find_spec("pgserver")
    assert found and found.origin
    command = [str(Path(found.origin).parent / "pginstall" / "bin" / program), *map(str, arguments)]
    return [*NOT_ROOT, *command] if os.geteuid() == 0 else command


class S3:
    """An S3-compatible server, which is moto's, with a bucket `mlflow`. It keeps all in memory."""

    bucket = "mlflow"

    def __init__(self, machine: Machine):
        self.machine, self._port = machine, machine.port(9000)
        self.endpoint = f"http://{machine.address}:{self._port}"
        self._program: Program | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "moto.server", "-H", self.machine.address, "-p", str(self._port)]
        self._program = self.machine.start(command, "s3")

    def wait(self) -> None:
        """Wait until the bucket is there."""
        _wait(self._program, lambda: bool(self.client().create_bucket(Bucket=self.bucket)), "the S3 server")

    def client(self) -> Any:
        """boto3's client of it."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
            region_name=KEYS["AWS_DEFAULT_REGION"],
            config=Config(connect_timeout=2, read_timeout=10, retries={"max_attempts": 1}, proxies={}),
        )

    def keys(self) -> list[str]:
        """The names of all objects in the bucket."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return [row["Key"] for page in pages for row in page.get("Contents", [])]


class MlflowServer:
    """An MLflow server whose runs are in PostgreSQL and whose files, passed on by itself, are in S3."""

    def __init__(self, machine: Machine, database: Postgres, store: S3):
        self.machine, self._database, self._store = machine, database, store
        self._port = machine.port(5000)
        self.uri = f"http://{machine.address}:{self._port}"
        self._program: Program | None = None

    def start(self) -> None:
        options = {
            "host": self.machine.address,
            "port": self._port,
            "workers": 1,
            "backend-store-uri": self._database.uri,
            "artifacts-destination": f"s3://{self._store.bucket}/artifacts",
            "allowed-hosts": f"{self.machine.address}:{self._port}",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        env = {
            **KEYS,
            "MLFLOW_S3_ENDPOINT_URL": self._store.endpoint,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "NO_PROXY": "*",
        }
        self._program = self.machine.start([sys.executable, "-m", "mlflow", "server", *words], "mlflow", env)

    def wait(self) -> None:
        """Wait until it finds experiments in its database; `/health` would answer without one."""
        _wait(self._program, self._answers, "MLflow")

    def _answers(self) -> bool:
        request = urllib.request.Request(
            f"{self.uri}/api/2.0/mlflow/experiments/search",
            data=b'{"max_results": 1}',
            headers={"Content-Type": "application/json"},
        )
        with DIRECT.open(request, timeout=5) as answer:
            return bool(answer.status == 200)
