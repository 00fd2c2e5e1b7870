"""Output folders, tracking URIs, addresses, split files and the environment."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from benchmarks.bad_input.kinds import (
    CANARY,
    FINE,
    PLAN,
    REFUSED,
    TRAIN,
    Kind,
    Make,
    both,
    links,
    mode,
    nothing,
    writes,
)

DRY = "tune good.yaml --space small.yaml --dry-run"


def outs() -> list[Kind]:
    """Where a search should write."""
    table: list[tuple[str, str, Make, int]] = [
        ("a file", "good.yaml", nothing, REFUSED),
        ("through a file", "good.yaml/out", nothing, REFUSED),
        ("not empty", "pictures", nothing, REFUSED),
        ("/dev/null", "/dev/null", nothing, REFUSED),
        ("below /dev/null", "/dev/null/out", nothing, REFUSED),
        ("/proc", "/proc", nothing, REFUSED),
        ("below /proc", "/proc/raylora/out", nothing, REFUSED),
        ("below /sys", "/sys/raylora", nothing, REFUSED),
        ("a link that loops", "bad", links("bad", "bad"), REFUSED),
        ("below a link that loops", "bad/out", links("bad", "bad"), REFUSED),
        ("a link to nothing", "bad", links("bad", "gone"), FINE),
        ("a pipe", "bad", lambda folder: os.mkfifo(folder / "bad"), REFUSED),
        ("a name too long", "a" * 300, nothing, REFUSED),
        ("a path too long", "a/" * 3000, nothing, REFUSED),
        ("nothing", "''", nothing, REFUSED),
        ("a line break in it", "'out\nbad'", nothing, REFUSED),
        ("a percent sign", "out%20%s", nothing, FINE),
        ("a URL", "s3://bucket/bad", nothing, REFUSED),
        ("a file URL", "file:///tmp/bad", nothing, REFUSED),
        ("no UTF-8", "'out\udcff'", nothing, REFUSED),
    ]
    found = [
        Kind(f"out/{what}", f"{DRY} --out {place.replace('$', '')}", make, status)
        for what, place, make, status in table
    ]
    closed = both(lambda folder: (folder / "bad").mkdir(), mode("bad", 0o555))
    return [
        *found,
        Kind("out/without the right to write", f"{DRY} --out bad/out", closed, as_nobody=True),
        Kind("out/without the right to look", f"{DRY} --out bad/out", both(closed, mode("bad", 0)), as_nobody=True),
        Kind("out/of a user that isn't there", f"{DRY} --out '~nobody-at-all/out'", status=REFUSED),
    ]


URIS = [
    "",
    " ",
    "mlruns",
    "file:///mlruns",
    "ftp://127.0.0.1/bad",
    "http://",
    "http:///bad",
    "http://[::1",
    "http://[bad]:5000",
    "http://127.0.0.1:0",
    "http://127.0.0.1:99999",
    "http://127.0.0.1:bad",
    "http://127.0.0.1:9",
    "https://127.0.0.1:9",
    "http://bad.invalid",
    "HTTP://127.0.0.1:9",
    "http://127.0.0.1:9/?a=b#c",
    "nonsense://bad",
    "s3://bucket/bad",
    "://",
    "javascript://x",
    "sqlite://",
    "sqlite:///",
    "sqlite:///pictures",
    "sqlite:////dev/null",
    "sqlite:////proc/bad.db",
    "sqlite:///good.yaml",
    "sqlite:///missing/bad.db",
    "sqlite:///pictures/picture_00.png",
    "sqlite:///" + "a" * 300,
    "sqlite:///bad\udcff.db?mode=x",
    "postgresql://127.0.0.1:9/bad",
    "mysql://127.0.0.1:9/bad",
    "postgresql+psycopg2://127.0.0.1:9/bad",
    "mssql://127.0.0.1:9/bad",
    "databricks",
    "databricks://bad",
    "uc://bad",
    "dagshub://bad",
    "http://127.0.0.1:9/" + "a" * 10_000,
]
WITH_SECRETS = [
    f"http://user:{CANARY}@127.0.0.1:9",
    f"https://user:{CANARY}@127.0.0.1:9/path",
    f"http://{CANARY}@127.0.0.1:9",
    f"postgresql://user:{CANARY}@127.0.0.1:9/bad",
    f"mysql+pymysql://user:{CANARY}@127.0.0.1:9/bad",
    f"nonsense://user:{CANARY}@bad",
    f"http://user:{CANARY}@[::1",
    f"http://user:{CANARY}@127.0.0.1:bad",
    f"http://user:a@{CANARY}@127.0.0.1:9",
    f"http://127.0.0.1:9/?token={CANARY}",
    f"user:{CANARY}@bad/mlruns",
    f"postgresql://127.0.0.1:9/bad?user=a&password={CANARY}",
    f"postgresql://127.0.0.1:9/bad?sslpassword={CANARY}",
]


def uris() -> list[Kind]:
    """Tracking URIs, some with what nobody may see in them."""

    def quoted(uri: str) -> str:
        return shlex.quote(uri)

    found = [Kind(f"uri/{ascii(uri)[:60]}", f"{PLAN} --tracking-uri {quoted(uri)}", status=REFUSED) for uri in URIS]
    for uri in WITH_SECRETS:
        name = uri.replace(CANARY, "SECRET")
        found.append(Kind(f"secret uri/{name}", f"{PLAN} --tracking-uri {quoted(uri)}"))
        found.append(
            Kind(
                f"secret uri/{name}, searched",
                f"tune good.yaml --space small.yaml --out out --tracking-uri {quoted(uri)}",
            )
        )
    in_file = writes("bad.yaml", f"tracking: {{uri: 'http://user:{CANARY}@127.0.0.1:9'}}\n")
    wrong_beside = f"{PLAN} --tracking-uri http://user:{CANARY}@127.0.0.1:9 --set tracking.uri={{a: 1}}"
    return [
        *found,
        Kind(
            "secret uri/in a file",
            "tune bad.yaml --space small.yaml --dry-run --out out --dataset pictures --base-model @BASE@",
            in_file,
        ),
        Kind("secret uri/of no kind", f"{PLAN} --set 'tracking.uri=[http://user:{CANARY}@127.0.0.1:9]'"),
        Kind("secret uri/in a training", f"{TRAIN} --set tracking.uri=http://user:{CANARY}@127.0.0.1:9"),
        Kind("secret uri/in a wrong place", f"{PLAN} --set tracking.url=http://user:{CANARY}@127.0.0.1:9"),
        Kind("secret uri/that isn't text", wrong_beside),
        Kind(
            "secret uri/in the environment",
            f"{PLAN} --tracking-uri http://127.0.0.1:9",
            environment={"MLFLOW_TRACKING_USERNAME": "user", "MLFLOW_TRACKING_PASSWORD": CANARY},
        ),
        Kind(
            "secret uri/a token in the environment",
            f"{PLAN} --tracking-uri http://127.0.0.1:9",
            environment={"MLFLOW_TRACKING_TOKEN": CANARY},
        ),
        Kind("secret uri/a hub's token", f"{TRAIN} --base-model nobody/bad", environment={"HF_TOKEN": CANARY}),
    ]


def addresses() -> list[Kind]:
    """Ray's address."""
    bad = [
        "",
        " ",
        "bad",
        "127.0.0.1",
        "127.0.0.1:9",
        "127.0.0.1:0",
        "127.0.0.1:99999",
        "127.0.0.1:-1",
        ":6379",
        "127.0.0.1:",
        "ray://127.0.0.1:10001",
        "http://127.0.0.1:8265",
        "[::1]:9",
        "::1:9",
        "bad.invalid:6379",
        "LOCAL",
        "a" * 5000 + ":9",
        "a" * 10_000,
        "bad\udcff:9",
        "127.0.0.1:9\n",
        "$(touch pwned):9",
        "x:9" * 100,
    ]
    return [
        Kind(f"address/{ascii(address)[:30]}{len(address)}", f"{PLAN} --address {shlex.quote(address)}")
        for address in bad
    ]


def splits() -> list[Kind]:
    """`--split` and `--warm-start`."""
    deep = "[" * 100_000
    texts = {
        "empty": "",
        "binary": "\0\1",
        "a list": "[]",
        "a number": "5",
        "deep": deep,
        "null": '{"holdout": null}',
        "text": '{"holdout": "all"}',
        "digests of no kind": '{"holdout": [{"digest": [1]}, {"digest": 5}]}',
        "folds of no kind": '{"folds": 5}',
        "folds that are a table": '{"folds": {"a": 1}}',
        "counts of no kind": '{"holdout": [], "train_images": "many"}',
        "infinite counts": '{"holdout": [], "train_images": Infinity}',
        "a number of 5,000 digits": '{"holdout": [], "train_images": ' + "9" * 5000 + "}",
        "files outside": '{"holdout": [{"file": "../../etc/passwd", "digest": "00"}]}',
    }
    found = [
        Kind(f"split/{what}", f"{PLAN} --split bad.json", writes("bad.json", text), tells=("bad.json",))
        for what, text in texts.items()
    ]
    odd: list[tuple[str, Make]] = [
        ("a folder", lambda folder: (folder / "bad.json").mkdir()),
        ("a pipe", lambda folder: os.mkfifo(folder / "bad.json")),
        ("an endless device", links("bad.json", "/dev/zero")),
        ("a link that loops", links("bad.json", "bad.json")),
    ]
    found += [Kind(f"split/{what}", f"{PLAN} --split bad.json", make) for what, make in odd]
    return [*found, Kind("split/a path of 5,000 letters", f"{PLAN} --split {'a' * 5000}")]


def environments() -> list[Kind]:
    """What the shell has left."""

    def gone(folder: Path) -> None:
        (folder / "bad").write_text("")

    strange = {
        "no home": {"HOME": ""},
        "a home that is gone": {"HOME": "/nonexistent"},
        "a home that is a file": {"HOME": "SANDBOX/work/bad"},
        "columns of no kind": {"COLUMNS": "many"},
        "columns of 0": {"COLUMNS": "0"},
        "no terminal": {"TERM": ""},
        "a proxy of no kind": {"http_proxy": "bad", "https_proxy": "bad"},
        "threads of no kind": {"OMP_NUM_THREADS": "many"},
        "no GPU": {"CUDA_VISIBLE_DEVICES": "99"},
        "a store of MLflow's": {"MLFLOW_TRACKING_URI": "nonsense://bad"},
    }
    fresh = {
        "ASCII alone": {"LANG": "bad", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"},
        "a temporary folder that is gone": {"TMPDIR": "/nonexistent", "HF_HOME": "SANDBOX/work/bad"},
        "warnings as errors": {"PYTHONWARNINGS": "error", "OMP_NUM_THREADS": "many"},
    }
    found = [Kind(f"environment/{what}", TRAIN, gone, FINE, environment=values) for what, values in strange.items()]
    return found + [
        Kind(f"environment, from the start/{what}", TRAIN, gone, FINE, environment=values, is_fresh=True)
        for what, values in fresh.items()
    ]


def kinds() -> list[Kind]:
    """All of them."""
    return [*outs(), *uris(), *addresses(), *splits(), *environments()]
