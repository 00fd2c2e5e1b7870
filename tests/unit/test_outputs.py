"""The output folder: whose it is, and what is left of work that breaks off."""

from __future__ import annotations

import errno
import json
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from raylora.cli_output import reporting
from raylora.config import Experiment
from raylora.errors import AtWorkError, OutputError, RayloraError
from raylora.execution.cluster import Share
from raylora.execution.conclude import conclude
from raylora.execution.outputs import LOCK_NAME, OutFolder
from raylora.execution.underway import Search
from raylora.tracking.recorder import Listeners, TrialRecord
from tests.preparing import command_line

SEARCH = {"tracking_uri": "sqlite:///x.db", "parent_run_id": "0", "address": None}


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


@pytest.mark.parametrize("going_on", [{"holds_out": True}, SEARCH], ids=["training", "search"])
def test_going_on_beside_another_process_is_refused_in_a_line(
    going_on: dict[str, Any], out: OutFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with out.claimed():
        out.experiment.write_text("")
        out.space.write_text("")
        out.write_state("running", wall_s=0.0, **going_on)
        before = sorted(out.root.iterdir())
        told = command_line(monkeypatch, capsys, out.root)(f"resume {shlex.quote(str(out.root))}")
    assert told.status == 2
    assert told.stderr == f"raylora: error: {out.root}: another raylora works in it; wait for its end\n"
    assert sorted(out.root.iterdir()) == before


def test_no_page_is_written_for_another_process(out: OutFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """It may have begun since this one has looked."""
    out.root.mkdir()
    out.write_state("running", wall_s=0.0, holds_out=True)
    with pytest.raises(AtWorkError), reporting(out, pytest.fail):
        raise AtWorkError("another")
    assert capsys.readouterr().err == ""
    assert not out.report.exists()


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


def test_a_full_disk_is_told_with_how_to_go_on(out: OutFolder) -> None:
    begin_training(out)
    with pytest.raises(RayloraError) as told, out.working():
        raise OSError(errno.ENOSPC, "full", "x.csv")
    go_on = f"free some space, then go on by `raylora resume {out.root}`"
    assert str(told.value) == f"No space left on device: x.csv; {go_on}"


def test_a_state_that_cannot_be_written_hides_no_error(out: OutFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_training(out)
    error = ValueError("why")
    with pytest.raises(ValueError, match="why") as raised, out.working():
        monkeypatch.setattr(OutFolder, "write_state", full)
        raise error
    assert raised.value is error


def test_what_a_state_that_cannot_be_written_means_is_told(out: OutFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_training(out)
    with pytest.raises(RayloraError, match="No space left on device; free some space, then go on"), out.working():
        monkeypatch.setattr(OutFolder, "write_state", full)


def full(*arguments: object, **more: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def begin_training(out: OutFolder) -> None:
    out.root.mkdir()
    out.experiment.write_text("")
    out.write_state("running", holds_out=True, wall_s=0.0)


def test_a_folder_that_was_taken_since_it_was_looked_at_is_not_gone_on_with(out: OutFolder) -> None:
    out.check_free(1)
    with pytest.raises(ValueError, match="full"), out.claimed():
        out.write_state("failed", wall_s=0.0, holds_out=True)
        out.experiment.write_text("")
        raise ValueError("full")
    with pytest.raises(OutputError, match=r"is not empty; go on .*raylora resume"), out.claimed():
        out.write_state("running", wall_s=5.0)
    assert (state_of(out), out.experiment.is_file()) == ("failed", True)


def test_a_lock_that_was_left_takes_no_folder(out: OutFolder) -> None:
    out.root.mkdir()
    with out.locked():
        pass
    assert (out.root / LOCK_NAME).is_file()
    out.check_free(1)
    with out.claimed():
        pass


def failed_search(out: OutFolder, *reasons: str) -> tuple[Search, list[TrialRecord]]:
    begin_search(out)
    trials = [TrialRecord(f"t{at:03d}", at, {}, False, "", "failed", reason) for at, reason in enumerate(reasons)]
    job = cast(Any, SimpleNamespace(experiment=Experiment()))
    return Search(job, out, cast(Any, None), Listeners([]), print, Share(1, 0.0, 1, 1)), trials


def test_a_search_that_gave_up_says_so_and_names_a_cause_once(out: OutFolder) -> None:
    """Two causes, told of five trials; the numbers differ from trial to trial."""
    reasons = [f"out of GPU memory: tried {size} MiB" for size in (512, 64, 1.5, 2)]
    search, trials = failed_search(out, *reasons, "no weights")
    with pytest.raises(RayloraError) as told, out.working() as wall_s:
        conclude(search, trials, [], False, wall_s)
    message = str(told.value)
    assert "the first 5 of 20 trials failed, so it stopped there (search.max_failures 5): no weights; " in message
    assert message.count("out of GPU memory") == 1
    assert "(others alike, with other numbers: 3)" in message


def test_a_search_of_which_all_trials_failed_is_not_gone_on_with(out: OutFolder) -> None:
    search, trials = failed_search(out, "out of memory", "out of memory")
    with pytest.raises(RayloraError, match=r"all 2 failed: out of memory\. .*start anew"), out.working() as wall_s:
        conclude(search, trials, [], False, wall_s)
    assert state_of(out) == "failed"
    with pytest.raises(OutputError, match=r"\(out of memory\), so there is nothing to go on with; .*another --out"):
        out.read_unfinished()
    with pytest.raises(OutputError) as refused:
        out.check_free(1)
    assert "resume" not in str(refused.value)
    assert "no trial came to a result (out of memory); mend that and give another folder" in str(refused.value)


def begin_search(out: OutFolder) -> None:
    out.root.mkdir()
    out.space.write_text("")
    out.write_state("running", tracking_uri="", parent_run_id="", wall_s=0.0)


def test_a_name_that_no_disk_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="too long; give another folder"):
        OutFolder(tmp_path / ("x" * 300)).check_free(1)
    with pytest.raises(OutputError, match="no such folder"):
        OutFolder(tmp_path / ("x" * 300)).read_state()


def test_the_command_that_goes_on_can_be_pasted(tmp_path: Path) -> None:
    out = OutFolder(tmp_path / "it's mine")
    assert shlex.split(out.how_to_resume) == ["raylora", "resume", str(out.root)]
