"""The shell scripts of cluster/, run. Scripts that say what they were called with stand in for Slurm, Ray and raylora:
what is tested is what is done with them. The clouds' metadata come from a real server on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.cluster_files import CLUSTER

LONG_S = 300
"""Far longer than anything here takes; only a broken script waits so long."""
Run = Callable[..., "subprocess.Popen[str]"]

STAND_INS = {
    "srun": """
while [[ ${1:-} == -* ]]; do shift; done
exec "$@"
""",
    "scontrol": """
if [[ $1 == show ]]; then echo "node1"; echo "node2"; else echo "scontrol $*" >> "$CALLS"; fi
""",
    "hostname": "echo 127.0.0.1 10.0.0.7",
    "ray": """
trap 'echo "ray ended" >> "$CALLS"; exit 0' TERM
echo "ray $*" >> "$CALLS"
while [[ $1 == start ]]; do sleep 0.1; done
""",
    "python": """
until [[ $(grep -c '^ray start' "$CALLS") == "$SLURM_JOB_NUM_NODES" ]]; do sleep 0.05; done
""",
    "pgrep": "exit 1",
    "raylora": """
trap 'echo "raylora was interrupted" >> "$CALLS"; exit 130' INT
echo "raylora $*" >> "$CALLS"
while [[ -n ${SEARCHES:-} ]] && kill -0 $PPID; do sleep 0.1; done  # Slurm ends what a script leaves behind
""",
}


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    """Where the stand-ins are; `calls` beside it is what they were called with."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    for name, script in STAND_INS.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{script}")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def run(bin_folder: Path, tmp_path: Path) -> Iterator[Run]:
    """Starts a script of cluster/ among the stand-ins; none outlives its test."""
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        known = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "CALLS": str(tmp_path / "calls"), "HOME": str(tmp_path)}
        known["RAYLORA_NOTICE_FILE"] = str(tmp_path / "notice")
        command = ["bash", str(CLUSTER / script), *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=known | variables, start_new_session=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def calls(folder: Path) -> list[str]:
    """What the stand-ins were called with so far."""
    file = folder / "calls"
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def await_(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def output(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=LONG_S)
    return said


# tune-or-resume


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([], ["raylora tune --out {out} --dataset my photos --trials 3"]),
        (["state.json"], ["raylora resume {out}"]),
        (["state.json", "summary.json"], []),
    ],
)
def test_a_search_is_begun_gone_on_with_or_left_alone(
    there: list[str], expected: list[str], run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in there:
        (out / name).write_text("{}")
    process = run("tune-or-resume.sh", str(out), "--dataset", "my photos", "--trials", "3")
    said = output(process)
    assert process.returncode == 0
    assert calls(tmp_path) == [line.format(out=out) for line in expected]
    assert bool(expected) or f"{out}/summary.json" in said


def test_without_an_output_folder_nothing_is_begun(run: Run, tmp_path: Path) -> None:
    process = run("tune-or-resume.sh")
    assert "output folder" in output(process)
    assert process.returncode != 0 and not calls(tmp_path)


# give-notice


def test_notice_is_given_and_an_idle_node_not_waited_for(run: Run, bin_folder: Path, tmp_path: Path) -> None:
    idle = (
        "echo '7 ray::IDLE'; echo '8 ray::DashboardAgent'; echo '9 ray::RuntimeEnvAgent'; echo '10 ray::ImplicitFunc'; "
        "echo '11 ray::trainable'; echo '12 ray::ResourceTrainable  '"
    )
    (bin_folder / "pgrep").write_text(f"#!/usr/bin/env bash\n{idle}\n")
    process = run("give-notice.sh", str(10 * LONG_S))
    output(process)
    assert process.returncode == 0 and (tmp_path / "notice").is_file()


def test_a_trial_gets_time_to_write_its_checkpoint(run: Run, bin_folder: Path, tmp_path: Path) -> None:
    looks = tmp_path / "looks"
    (bin_folder / "pgrep").write_text(f"#!/usr/bin/env bash\necho >> {looks}\necho '7 ray::ResourceTrainable.train'\n")
    process = run("give-notice.sh", "2")
    output(process)
    assert process.returncode == 0 and len(looks.read_text()) == 2


# spot-notice


class Metadata(BaseHTTPRequestHandler):
    """What a cloud tells a machine about itself, as far as the script asks."""

    takes_it_back = False
    token = "a-token-of-the-machine"
    asked: list[str] = []  # noqa: RUF012

    def do_PUT(self) -> None:
        self._answer(200, self.token if self.path == "/latest/api/token" else "")

    def do_GET(self) -> None:
        self.asked.append(self.path)
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers["X-aws-ec2-metadata-token"] != self.token:
                self._answer(401, "")
            else:
                self._answer(*((200, '{"action": "terminate"}') if self.takes_it_back else (404, "")))
        elif self.path == "/computeMetadata/v1/instance/preempted" and self.headers["Metadata-Flavor"] == "Google":
            self._answer(200, "TRUE" if self.takes_it_back else "FALSE")
        else:
            self._answer(403, "")

    def _answer(self, status: int, body: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cloud's metadata; `Metadata.takes_it_back` says what they tell."""
    monkeypatch.setattr(Metadata, "asked", [])
    monkeypatch.setattr(Metadata, "takes_it_back", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Metadata)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_notice_is_given_when_the_cloud_takes_a_machine_back(
    cloud: str, metadata: str, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "notice").write_text("of an earlier life")
    process = run("ray-up/spot-notice.sh", cloud, SPOT_METADATA=metadata, SPOT_EVERY_S="0.05")
    await_(lambda: len(Metadata.asked) > 2)
    assert process.poll() is None and not (tmp_path / "notice").exists()
    Metadata.takes_it_back = True
    output(process)
    assert process.returncode == 0 and (tmp_path / "notice").is_file()


def test_a_second_watcher_leaves_at_once(metadata: str, run: Run) -> None:
    first = run("ray-up/spot-notice.sh", "aws", SPOT_METADATA=metadata, SPOT_EVERY_S="0.05")
    await_(lambda: Metadata.asked)
    second = run("ray-up/spot-notice.sh", "aws", SPOT_METADATA=metadata)
    output(second)
    assert second.returncode == 0 and first.poll() is None


# Slurm


@pytest.fixture
def job(run: Run, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs the job's script as Slurm would on two nodes; its folder in /tmp is this test's own."""
    number = str(os.getpid() * 1000 + id(tmp_path) % 1000)
    slurm = {"SLURM_JOB_ID": number, "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_NODELIST": "node[1-2]"}
    slurm |= {"SLURM_CPUS_PER_TASK": "4", "SLURM_SUBMIT_DIR": str(CLUSTER.parent), "VENV": str(tmp_path / "venv")}
    slurm |= {"OUT": str(tmp_path / "out"), "RAYLORA_NOTICE_FILE": ""}
    yield lambda *options, **more: run("slurm/raylora.sbatch", *options, **(slurm | more))
    assert not Path(f"/tmp/raylora-{number}").exists()


def test_a_job_starts_ray_on_its_nodes_and_ends_it(job: Callable[..., Any], tmp_path: Path) -> None:
    process = job("--dataset", "/shared/my_photos")
    said = output(process)
    assert process.returncode == 0, said
    heard = calls(tmp_path)
    starts = [line.split() for line in heard if line.startswith("ray start")]
    assert len(starts) == 2
    head, worker = sorted(starts, key=lambda words: "--head" not in words)
    port = next(word for word in head if word.startswith("--port=")).partition("=")[2]
    assert f"--address=127.0.0.1:{port}" in worker and "--dashboard-host=127.0.0.1" in head
    assert f"raylora tune --out {tmp_path / 'out'} --address auto --dataset /shared/my_photos" in heard
    assert heard.count("ray ended") == 2 and not any("ray stop" in line for line in heard)
    assert not list((tmp_path / ".raylora").iterdir())  # no token is left


def test_a_job_that_runs_again_goes_on(job: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "state.json").write_text("{}")
    assert job("--dataset", "/shared/my_photos").wait(LONG_S) == 0
    assert f"raylora resume {tmp_path / 'out'}" in calls(tmp_path)


def test_a_search_that_fails_fails_the_job(job: Callable[..., Any], bin_folder: Path, tmp_path: Path) -> None:
    (bin_folder / "raylora").write_text("#!/usr/bin/env bash\nexit 2\n")
    process = job()
    output(process)
    heard = calls(tmp_path)
    subprocess.run(["rm", "-rf", *_local_folders(heard)], check=True)
    assert process.returncode == 2 and heard.count("ray ended") == 2


def test_a_job_whose_time_is_nearly_over_saves_stops_and_queues_again(job: Callable[..., Any], tmp_path: Path) -> None:
    process = job(SEARCHES="for long")
    await_(lambda: any(line.startswith("raylora tune") for line in calls(tmp_path)))
    process.send_signal(signal.SIGUSR1)
    output(process)
    heard = calls(tmp_path)
    (folder,) = _local_folders(heard)
    assert (Path(folder) / "notice").is_file()
    subprocess.run(["rm", "-rf", folder], check=True)
    after = heard[heard.index("raylora was interrupted") :]
    assert after.count("ray ended") == 2 and after[-1].startswith("scontrol requeue ")


def test_a_signal_right_after_the_search_was_started_stops_it_too(job: Callable[..., Any], tmp_path: Path) -> None:
    """Before the script knows of what it has started; bash tells each command before it runs it."""
    at_that_moment = """
await_and_signal() { until grep -q '^raylora tune' "$CALLS"; do sleep 0.05; done; kill -USR1 $$; }
trap '[[ $BASH_COMMAND != "search=\\$!" ]] || await_and_signal' DEBUG
"""
    (tmp_path / "at_that_moment").write_text(at_that_moment)
    process = job(SEARCHES="for long", BASH_ENV=str(tmp_path / "at_that_moment"))
    assert process.wait(LONG_S) == 0
    heard = calls(tmp_path)
    subprocess.run(["rm", "-rf", *_local_folders(heard)], check=True)
    after = heard[heard.index("raylora was interrupted") :]
    assert after.count("ray ended") == 2 and after[-1].startswith("scontrol requeue ")
    assert output(process).count("Time is nearly over") == 1


def test_a_search_that_ends_by_itself_after_the_notice_fails_no_job(
    job: Callable[..., Any], bin_folder: Path, tmp_path: Path
) -> None:
    ends = 'echo $$ > "$CALLS.pid"; echo "raylora $*" >> "$CALLS"; until [[ -f $CALLS.noticed ]]; do sleep 0.05; done'
    sees_it_end = 'touch "$CALLS.noticed"; while kill -0 "$(cat "$CALLS.pid")"; do sleep 0.05; done; exit 1'
    (bin_folder / "raylora").write_text(f"#!/usr/bin/env bash\n{ends}\n")
    (bin_folder / "pgrep").write_text(f"#!/usr/bin/env bash\n{sees_it_end}\n")
    process = job()
    await_(lambda: any(line.startswith("raylora tune") for line in calls(tmp_path)))
    process.send_signal(signal.SIGUSR1)
    said, heard = output(process), calls(tmp_path)
    subprocess.run(["rm", "-rf", *_local_folders(heard)], check=True)
    assert process.returncode == 0, said
    assert heard[-1].startswith("scontrol requeue ")


def _local_folders(heard: list[str]) -> set[str]:
    """Where Ray was told to put what is a node's own."""
    starts = [word for line in heard if line.startswith("ray start") for word in line.split()]
    return {word.partition("=")[2] for word in starts if word.startswith("--temp-dir=/tmp/raylora-")}
