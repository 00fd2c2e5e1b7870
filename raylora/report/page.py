"""`OUT/report.html`: one page that tells a search to the person who comes back to it. It needs nothing but itself."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from raylora import __version__
from raylora.errors import OutputError, first_line
from raylora.execution.outputs import OutFolder, write_text
from raylora.files import is_folder
from raylora.redaction import copied, shown
from raylora.report.answer import make_answer
from raylora.report.chart import SHAPES
from raylora.report.reading import Work, read_work
from raylora.report.samples import make_album
from raylora.report.search_charts import history, new_seeds, parallel, shape_of, slices, tradeoffs
from raylora.report.table import UNKNOWN
from raylora.report.training_charts import curves, loss_on_all
from raylora.report.usage import usages, what_it_learned
from raylora.report.words import MISSING, duration, measure, numbered, setting_name, setting_value, short_names
from raylora.search.importance import importance
from raylora.search.study import read_trials
from raylora.tracking.recorder import TrialRecord

MOST_CHOICES = 80


@dataclass(frozen=True)
class TableRow:
    """A trial in the table."""

    trial: TrialRecord
    verdict: Mapping[str, str]
    is_best: bool

    @property
    def shape(self) -> str:
        return shape_of(self.trial)

    @property
    def end(self) -> str:
        """How it ended."""
        how = self.trial.status.replace("_", " ")
        return f"{how}: {self.trial.stop_reason}" if self.trial.stop_reason else how

    @property
    def cures(self) -> list[str]:
        """Each a set of settings to try."""
        return [cure for cure in self.verdict["cure"].split(", or ") if cure]

    def best(self, name: str) -> float | None:
        """A measure at its best step; None where it has none."""
        return (self.trial.best or {}).get(name)

    def last(self, name: str) -> float | None:
        """A cost of all of it."""
        return (self.trial.last or {}).get(name)

    def value(self, path: str) -> Any:
        return self.trial.params.get(path, MISSING)


@dataclass(frozen=True)
class Part:
    """What one setting did, as `search.importance` found it."""

    name: str
    path: str
    verdict: str
    share: float | None
    low: float
    high: float
    best: str


def write_report(out: OutFolder, seconds: float = math.inf) -> str:
    """Write the page anew; returns its path.

    Args:
        seconds: to cut trials' samples in, which takes longest; see `make_album`.

    Raises:
        OutputError: the folder holds no search and no training, or a folder where the page has to be.
        OSError: it can't be written.
    """
    if is_folder(out.report):
        raise OutputError(f"{out.report}: is a folder where the page has to be; move it elsewhere")
    write_text(out.report, render(read_work(out), seconds))
    return str(out.report)


def render(work: Work, seconds: float = math.inf) -> str:
    """The page; `seconds` as of `write_report`."""
    parts, unclear = _importance(work)
    names = short_names(work.searched)
    told = {
        "work": work,
        "version": __version__,
        "written": datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        "notes": [*work.notes, *unclear],
        "answer": make_answer(work),
        "album": make_album(work, seconds),
        "usages": usages(work),
        "learned": what_it_learned(work),
        "resume": _resume(work),
        "again": f"raylora report {shlex.quote(str(work.out.root))}",
        "seeds_chart": new_seeds(work),
        "history": history(work),
        "parallel": parallel(work),
        "slices": slices(work),
        "tradeoffs": tradeoffs(work),
        "importance": parts,
        "curves": curves(work),
        "on_all": loss_on_all(work),
        "picked": {trial_id: place for place, trial_id in enumerate(work.outstanding)},
        "choices": sorted((trial for trial in work.trials if trial.history), key=lambda trial: -trial.score)[
            :MOST_CHOICES
        ],
        "rows": _rows(work),
        "settings": names,
        "space_name": str(work.space.get("name", "")),
    }
    page: str = _environment().get_template("report.html.j2").render(told)
    return page


def _resume(work: Work) -> str:
    """The command that goes on with it, if anything can."""
    if work.no_result or work.state["state"] in ("running", "finished"):
        return ""
    return work.out.how_to_resume


def _rows(work: Work) -> list[TableRow]:
    ranked = sorted(work.trials, key=lambda trial: -trial.score)
    return [TableRow(trial, work.verdicts.get(trial.trial_id, UNKNOWN), trial is work.best) for trial in ranked]


def _importance(work: Work) -> tuple[list[Part], list[str]]:
    """Each searched setting's part in the score: as the summary has it, or of the trials so far; and why not."""
    found: Sequence[Mapping[str, Any]] = work.summary.get("importance", ())
    try:
        if not work.summary and not work.is_training and work.out.study.is_file():
            fixed = work.space.get("fixed", {})
            so_far = importance(read_trials(work.out.study), work.experiment.seed, leave_out=fixed)
            found = [asdict(one) for one in so_far]
    except Exception as error:  # a look back, over whatever a user's own space function did
        return [], [f"Which settings mattered can’t be told ({first_line(error)})."]
    return [
        Part(setting_name(one["setting"]), one["setting"], one["verdict"], one["share"], one["low"], one["high"],
             one.get("best", ""))
        for one in found
    ], []  # fmt: skip


@lru_cache(maxsize=1)
def _environment() -> Environment:
    """Everything that a page shows is escaped, and nothing of it holds a password or steers a browser's line."""
    made = Environment(
        autoescape=True,
        loader=PackageLoader("raylora.report"),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "measure": lambda value, name: measure(name, value),
        "duration": duration,
        "setting": setting_value,
        "copied": lambda text: escape(copied(text)),
    }
    made.globals |= {
        "SHAPES": SHAPES,
        "numbered": numbered,
        "file": _own_file,
    }
    return made


def _shown(value: Any) -> Any:
    """Texts from outside as messages show them; what is the page's own stays."""
    return shown(value) if type(value) is str else value


def _own_file(name: str) -> Markup:
    """A style sheet or a script that is part of the page."""
    source, _, _ = PackageLoader("raylora.report").get_source(Environment(autoescape=True), name)
    return Markup(source)
