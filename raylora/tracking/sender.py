"""The driver's side of MLflow: a process beside it does the sending, and is told which trials have changed.

MLflow's client takes seconds to import, and tens of milliseconds for whatever it sends; the loop that serves the trials
has neither. Records on disk are all that is sent, so that process may end at any time, and is then started again.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from raylora.errors import RayloraError
from raylora.tracking.pages import run_page
from raylora.tracking.recorder import TrialRecord
from raylora.tracking.stored import Stored

MOST_STARTS = 4
"""How often the process is started for a search: what ends it again and again is no accident."""


class MlflowSender:
    """Listens to a search and has MLflow told of it; see `mlflow_runs.MlflowTracker` for what that does.

    Args:
        uri: absolute tracking URI.
        experiment: name of the MLflow experiment.
        places: the folders in which trials have theirs.
        warn: told once when the store stops answering.
        stored: where trials' samples are, if not in their folders.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        places: Sequence[Path],
        warn: Callable[[str], None],
        stored: Stored | None = None,
    ):
        self.uri, self.parent_run_id = uri, ""
        self._experiment, self._experiment_id = experiment, ""
        self._places, self._warn, self._stored = list(places), warn, stored
        self._asked = self._starts = 0
        self._launch()

    def __enter__(self) -> MlflowSender:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    @property
    def page(self) -> str:
        """Where to see the search's run, once that has started."""
        return run_page(self.uri, self._experiment_id, self.parent_run_id)

    def check(self) -> None:
        """Ask the store whether it is there.

        Raises:
            TrackingError: it isn't.
        """
        self._ask("check")

    def start(self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], run_id: str | None = None) -> None:
        """Open the search's run, or go on with `run_id` and with all trials there are.

        Raises:
            TrackingError: the store can't be written, or the run is gone.
        """
        mark = uuid.uuid4().hex  # the same for whichever process answers
        self._experiment_id, self.parent_run_id = self._ask("start", name, dict(params), dict(tags), run_id, mark)
        if run_id:
            self._say("look_through", self._places)

    def trial_started(self, trial: TrialRecord) -> None:
        self._say("hear", Path(trial.folder))

    def trial_reported(self, trial: TrialRecord) -> None:
        self._say("hear", Path(trial.folder))

    def trial_ended(self, trial: TrialRecord) -> None:
        self._say("hear", Path(trial.folder))

    def catch_up(self) -> None:
        """Wait until MLflow has everything, or has failed a few times more."""
        self._ask("catch_up")

    def finish(self, metrics: Mapping[str, float], artifacts: Path | None) -> None:
        """Close the search's run with the winner's measures and the files of a folder."""
        self._ask("finish", dict(metrics), artifacts)

    def break_off(self, status: str) -> None:
        """Close every run of a search that ends before its time."""
        self._ask("break_off", status)

    def _launch(self) -> None:
        """Start the process, with this one's path to modules; Ctrl-C in a terminal is for this one alone."""
        self._starts += 1
        self._pipe, theirs = Pipe()
        modules = os.pathsep.join(map(os.path.abspath, sys.path))
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-W", "ignore", "-m", "raylora.tracking.sending", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": modules},
            )  # fmt: skip
        with suppress(OSError):  # one that has ended at once is found so at the next word
            self._pipe.send((self.uri, self._experiment, self._stored))
            if self.parent_run_id:  # the successor of one that has started
                self._pipe.send((0, "go_on", (self._experiment_id, self.parent_run_id)))
                self._pipe.send((0, "look_through", (self._places,)))

    def _end(self) -> None:
        """What it was asked it has answered; what else it might send is on disk."""
        self._pipe.close()
        self._process.kill()
        self._process.wait()

    def _launch_again(self) -> None:
        """Start a successor, which finds all trials by itself.

        Raises:
            RayloraError: they have ended too often.
        """
        self._end()
        if self._starts >= MOST_STARTS:
            raise RayloraError(f"the process that writes to MLflow ended {MOST_STARTS} times")
        self._launch()

    def _say(self, what: str, *arguments: object) -> None:
        """Tell the process something; a search goes on whatever becomes of that."""
        try:
            while self._pipe.poll():
                self._take()
            self._pipe.send((0, what, arguments))
        except (EOFError, OSError):
            self._go_on_without()

    def _go_on_without(self) -> None:
        """The process is gone; so may be all that there will be, which is told once."""
        try:
            self._launch_again()
        except RayloraError as error:
            if self._starts == MOST_STARTS:
                self._warn(f"{error}; the search goes on, and `raylora resume` sends what is missing")
            self._starts += 1

    def _ask(self, what: str, *arguments: object) -> Any:
        """Have the process do something, and wait for its answer.

        Raises:
            Exception: what was raised there, or it has ended too often.
        """
        while True:
            self._asked += 1
            try:
                self._pipe.send((self._asked, what, arguments))
                return self._answer(self._asked)
            except (EOFError, OSError):
                self._launch_again()

    def _answer(self, number: int) -> Any:
        """To the question of this number; others' may come first, where Ctrl-C was faster."""
        while True:
            answered, answer = self._take()
            if answered == number:
                if isinstance(answer, Exception):
                    raise answer
                return answer

    def _take(self) -> tuple[int, Any]:
        """The next answer, or a warning, which is passed on, as the answer to no question."""
        answered, answer = self._pipe.recv()
        if answered == 0:
            self._warn(answer)
        return answered, answer
