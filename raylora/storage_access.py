"""How the storages of `storage.py` are reached, and what their errors mean.

Credentials and endpoints come from where their programs have them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_PROFILE, AWS_REGION, AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, the files in ~/.aws and a machine's own role;
GOOGLE_APPLICATION_CREDENTIALS and STORAGE_EMULATOR_HOST. None of them is ever part of a URI or a message.
"""

from __future__ import annotations

import errno
import os
import re
from datetime import timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs  # type: ignore[import-untyped]

from raylora.errors import first_line

CONNECT_S, SILENCE_S, TRIES = 5, 15, 2
"""How long a server may take to be reached and to say anything, and how often each call is tried in that."""
KEYS_OF_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE")
PLACES_OF_AWS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")
GS_EMULATOR = "STORAGE_EMULATOR_HOST"
ENVIRONMENT = (*KEYS_OF_AWS, *PLACES_OF_AWS, GS_EMULATOR)

PASSES = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH)
"""What a mounted disk says whose server is away."""
_S3_KEYS = "give credentials that may read and write there, as in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_GS_KEYS = "give credentials that may read and write there, as by GOOGLE_APPLICATION_CREDENTIALS"
_REASONS = {
    "NO_SUCH_BUCKET": "there is no such bucket; make it, or mend the name",
    "ACCESS_DENIED": f"access is denied; {_S3_KEYS}",
    "INVALID_ACCESS_KEY_ID": f"the access key is not known there; {_S3_KEYS}",
    "INVALID_CLIENT_TOKEN_ID": f"the access key is not known there; {_S3_KEYS}",
    "MISSING_AUTHENTICATION_TOKEN": f"there are no credentials; {_S3_KEYS}",
    "SIGNATURE_DOES_NOT_MATCH": f"the secret key does not fit the access key; {_S3_KEYS}",
    "INVALID_SIGNATURE": f"the secret key does not fit the access key; {_S3_KEYS}",
    "UNRECOGNIZED_CLIENT": f"the credentials are not known there; {_S3_KEYS}",
    "PERMISSION_DENIED": f"access is denied; {_GS_KEYS}",
    "UNAUTHENTICATED": f"there are no credentials, or wrong ones; {_GS_KEYS}",
}
"""What will not mend itself, by the names that pyarrow's error texts give it, and how to mend it."""


def filesystem(scheme: str, bucket: str) -> Any:
    """pyarrow's file system for a storage, as the environment has it now; connections are kept."""
    return _open(scheme, bucket, tuple(os.environ.get(name) for name in ENVIRONMENT))


@lru_cache(maxsize=8)
def _open(scheme: str, bucket: str, environment: tuple[str | None, ...]) -> Any:
    known = dict(zip(ENVIRONMENT, environment, strict=True))
    if scheme == "file":
        return fs.LocalFileSystem()
    if scheme == "gs":
        local = _endpoint(known[GS_EMULATOR])
        return fs.GcsFileSystem(retry_time_limit=timedelta(seconds=CONNECT_S), anonymous=bool(local), **local)
    endpoint = _endpoint(known["AWS_ENDPOINT_URL_S3"] or known["AWS_ENDPOINT_URL"])
    return fs.S3FileSystem(
        region=known["AWS_REGION"] or known["AWS_DEFAULT_REGION"] or (None if endpoint else _region_of(bucket)),
        connect_timeout=CONNECT_S,
        request_timeout=SILENCE_S,
        allow_delayed_open=True,  # a small file is then one call, and not three
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=TRIES),
        **endpoint,
    )


def _endpoint(place: str | None) -> dict[str, str]:
    """Another server than the maker's own; pyarrow reads no such variable itself."""
    if not place:
        return {}
    return {"endpoint_override": _host_of(place), "scheme": "https" if place.startswith("https://") else "http"}


def _host_of(endpoint: str) -> str:
    """Host and port alone, without a name or password in front of them."""
    return urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").netloc.rpartition("@")[2]


def _region_of(bucket: str) -> str | None:
    """Where Amazon keeps a bucket; None where it doesn't say, and then the next call is told why."""
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError:
        return None


def reason_of(error: OSError, scheme: str) -> tuple[str, bool]:
    """Why something failed and what to do; and whether that will stay so. pyarrow has one kind of error for most."""
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such file or bucket; mend the name", True
    if scheme == "file":
        return (os.strerror(error.errno) if error.errno else first_line(error)), error.errno not in PASSES
    if "OAuth2 access token" in text:
        return f"there are no credentials, or nobody to ask for them; {_GS_KEYS}", True
    found = re.search(r"AWS Error (\w+) during|Status\((\w+):", text)
    kind = (found[1] or found[2]) if found else ""
    if kind in ("NETWORK_CONNECTION", "UNAVAILABLE"):
        return f"nothing answers{_place(scheme)}; mend the endpoint, or wait until it is back", False
    if kind in _REASONS:
        return _REASONS[kind], True
    return f"fails ({_without_keys(first_line(error))}); mend that there", False


def _place(scheme: str) -> str:
    names = (GS_EMULATOR,) if scheme == "gs" else PLACES_OF_AWS[:2]
    named = next((name for name in names if os.environ.get(name)), None)
    return f" at {_host_of(os.environ[named])} ({named})" if named else ""


def _without_keys(text: str) -> str:
    """Servers may quote what they were sent."""
    for secret in filter(None, map(os.environ.get, KEYS_OF_AWS[:3])):
        text = text.replace(secret, "…")
    return text
