"""What an interrupted search has kept, looked at before it goes on: it may have been edited, damaged, or made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raylora.config import NO_SECRETS, Experiment
from raylora.config_files import check_complete
from raylora.errors import ConfigError, OutputError
from raylora.execution.outputs import OutFolder
from raylora.redaction import holds_secret
from raylora.search.study import damage_of
from raylora.tracking.recorder import read_records

AGAIN = "put back a copy of it, or begin anew with another --out"


def check_kept(out: OutFolder, state: Mapping[str, Any], experiment: Experiment) -> None:
    """Whether everything that going on reads is whole.

    Raises:
        UserError: it isn't, or the tracking URI holds a password.
    """
    if holds_secret(state["tracking_uri"]):
        raise OutputError(f"{out.state_file}: tracking_uri {NO_SECRETS} (in this file)")
    try:
        check_complete(experiment)
    except ConfigError as error:
        raise OutputError(f"{out.experiment}: {error}; {AGAIN}") from None
    records = [*read_records(out.trials), *read_records(out.confirmations)]
    for record in records:
        try:
            experiment.with_params(record.params)
        except (ConfigError, ValueError):
            raise OutputError(f"{record.folder}: its record has settings that can't be; {AGAIN}") from None
    if damage := damage_of(out.study, has_trials=bool(records)):
        raise OutputError(f"{out.study}: {damage}; {AGAIN}")
