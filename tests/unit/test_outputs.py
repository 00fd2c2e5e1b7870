"""The output folder: whose it is, and what is left of work that breaks off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raylora.errors import OutputError
from raylora.execution.outputs import OutFolder


@pytest.fixture
def out(tmp_path: Path) -> OutFolder:
    return OutFolder(tmp_path / "out")


def state_of(out: OutFolder) -> str:
    return str(json.loads(out.state_file.read_text())["state"])


HOLDER = """
import sys
from pathlib import Path
from raylora.execution.outputs import OutFolder
with OutFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_another_process_is_kept_out_until_the_first_ends(out: OutFolder) -> None:
    out.root.mkdir()
    command = [sys.executable, "-c", HOLDER, str(out.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for taking in (out.locked, out.claimed):
            with pytest.raises(OutputError, match="another raylora works in it"), taking():
                pass
        assert out.root.is_dir()  # the one that was refused cleared nothing away
        holder.kill()
    with out.locked():
        pass


@pytest.mark.parametrize("was_there", [False, True])
def test_work_that_breaks_off_before_its_state_is_written_leaves_nothing(out: OutFolder, was_there: bool) -> None:
    if was_there:
        out.root.mkdir()
    with pytest.raises(ValueError, match="no server"), out.claimed():
        out.cache.mkdir()
        out.split.write_text("{}")
        raise ValueError("no server")
    assert out.root.exists() == was_there
    out.check_free(1)


def test_work_that_breaks_off_later_can_go_on(out: OutFolder) -> None:
    with pytest.raises(ValueError, match="full"), out.claimed():
        out.write_state("running", wall_s=0.0, holds_out=True)
        out.experiment.write_text("")
        raise ValueError("full")
    assert out.read_unfinished()["holds_out"]


@pytest.mark.parametrize(
    ("error", "state"), [(None, "finished"), (KeyboardInterrupt(), "interrupted"), (ValueError(), "failed")]
)
def test_the_state_tells_how_work_ended_and_its_seconds_add_up(
    out: OutFolder, error: BaseException | None, state: str
) -> None:
    out.root.mkdir()
    out.experiment.write_text("")
    out.write_state("interrupted", holds_out=True, wall_s=1000.0)
    try:
        with out.working() as wall_s:
            assert state_of(out) == "running"
            assert wall_s() >= 1000
            if error:
                raise error
    except (KeyboardInterrupt, ValueError) as raised:
        assert raised is error
    assert state_of(out) == state
    assert json.loads(out.state_file.read_text())["wall_s"] >= 1000


def test_a_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long; give another folder"):
        OutFolder(tmp_path / ("x" * 300)).check_free(1)
    with pytest.raises(OutputError, match="holds no search"):
        OutFolder(tmp_path / ("x" * 300)).read_state()
