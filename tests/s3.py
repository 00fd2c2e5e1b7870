"""A real S3 server on this machine: moto's, with its log of requests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from moto import settings
from moto.server import ThreadedMotoServer

from tests.ports import free_port

BUCKET = "photos"
SECRET = "nobody-may-see-this"


@dataclass
class S3:
    """The server, and what it was asked for."""

    port: int = field(default_factory=free_port)
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""

    @property
    def environment(self) -> dict[str, str]:
        """With which programs find it."""
        return {
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
        }

    def client(self) -> Any:
        return boto3.client(
            "s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1",
            aws_access_key_id="somebody", aws_secret_access_key=SECRET,
        )  # fmt: skip

    def put(self, key: str, content: bytes = b"x") -> None:
        self.client().put_object(Bucket=BUCKET, Key=key, Body=content)

    def keys(self, prefix: str = "") -> set[str]:
        """The names of all objects, those that stand for folders left out."""
        found = self.client().list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
        return {one["Key"] for one in found if not one["Key"].endswith("/")}

    @contextmanager
    def served(self) -> Iterator[None]:
        """The server while the block lasts; what it holds outlives it, as on a disk."""
        server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        server.start()
        try:
            yield
        finally:
            server.stop()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """The server knows nobody while the block lasts."""
        before, settings.INITIAL_NO_AUTH_ACTION_COUNT = settings.INITIAL_NO_AUTH_ACTION_COUNT, 0.0
        try:
            yield
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = before


class _Ears(logging.Handler):
    def __init__(self, asked: list[str]):
        super().__init__()
        self._asked = asked

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if '"' in text:
            self._asked.append(text.split('"')[1].rpartition(" ")[0].removeprefix("\x1b[35m\x1b[1m"))


@contextmanager
def s3_server() -> Iterator[S3]:
    """The server with a bucket."""
    s3, log = S3(), logging.getLogger("werkzeug")
    ears = _Ears(s3.asked)
    log.addHandler(ears)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        with s3.served():
            s3.client().create_bucket(Bucket=BUCKET)
            yield s3
    finally:
        log.removeHandler(ears)


@pytest.fixture(scope="module")
def s3_of_module() -> Iterator[S3]:
    with s3_server() as s3:
        yield s3


@pytest.fixture
def s3(s3_of_module: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """The server, as the environment names it. A test has what others of its file left there."""
    for name, value in s3_of_module.environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    s3_of_module.asked.clear()
    return s3_of_module
