"""The process that writes to MLflow: `python -m raylora.tracking.sending`, started by `sender.MlflowSender`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any

from raylora.errors import RayloraError, first_line

Inbox = SimpleQueue[Any]


def receive(driver: Connection, inbox: Inbox) -> None:
    """Take whatever the driver says, so that it never waits; its end is this process's, whatever that is amid."""
    while True:
        try:
            inbox.put(driver.recv())
        except (EOFError, OSError):
            os._exit(0)


def serve(driver: Connection, inbox: Inbox) -> None:
    """Answer what is asked, and between that send what there is to send."""
    uri, experiment, stored = inbox.get()
    from raylora.tracking.mlflow_runs import MlflowTracker  # takes seconds, in which the driver may end

    tracker = MlflowTracker(uri, experiment, lambda text: driver.send((0, text)), stored)
    while True:
        try:
            number, what, arguments = inbox.get(timeout=tracker.rest_s)
        except Empty:
            tracker.send_next()
            continue
        answer = _answer(tracker, what, arguments)
        if number:
            driver.send((number, answer))


def _answer(tracker: Any, what: str, arguments: tuple[Any, ...]) -> Any:
    """What came of it. MLflow's own errors may not survive the way to the driver, and need MLflow there."""
    try:
        getattr(tracker, what)(*arguments)
    except RayloraError as error:
        return error
    except Exception as error:  # MLflow, requests and SQLAlchemy raise many kinds
        return RayloraError(first_line(error))
    return (tracker.experiment_id, tracker.parent_run_id) if what == "start" else None


def main() -> None:
    driver, inbox = Connection(int(sys.argv[1])), Inbox()
    Thread(target=receive, args=(driver, inbox), daemon=True).start()
    with suppress(BrokenPipeError):  # the driver ends while it is answered
        serve(driver, inbox)


if __name__ == "__main__":
    main()
