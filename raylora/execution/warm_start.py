"""`--warm-start`: earlier searches' output folders, read and matched with a new search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from raylora.config import Experiment
from raylora.config_files import read_experiment
from raylora.dataset.split import digests_of_split
from raylora.errors import ConfigError, OutputError
from raylora.execution.outputs import OutFolder
from raylora.files import is_file, is_folder, resolved
from raylora.search.study import STUDY_NAME, read_trials, storage_of
from raylora.search.warm_start import EarlierSearch, Taken, take

if TYPE_CHECKING:
    from raylora.execution.job import Job

Warn = Callable[[str], None]
OPTION = "--warm-start"
MEND = f"give the --out folder of an earlier search, or leave {OPTION} out"
DATASET, BASE_MODEL = "the dataset's pictures", "model.base_model"


def warm_started(job: Job, folders: Sequence[Path], warn: Warn, force: bool = False) -> Job:
    """The same job, with what it takes from the searches in these folders; nothing is written.

    Args:
        force: take searches of another base model too.

    Raises:
        OutputError: a folder holds no search that anything can be learned from, or one of another base model.
    """
    taken = [_taken_from(out, job, force) for out in _outputs(folders)]
    for each in taken:
        if each.differing:
            warn(
                f"{OPTION} {each.source}: {_shortened(each.differing)} differ{'s' * (len(each.differing) == 1)} from "
                "this search's, so its scores don't compare; its trials count by their order among themselves"
            )
    if taken and job.experiment.search.optuna_sampler == "random":
        warn(f"{OPTION} has no effect, since search.optuna_sampler is random; leave one of them out")
    return replace(job, warm_start=tuple(taken))


def check_earlier(folders: Sequence[Path], force: bool = False) -> None:
    """Whether these folders hold searches, before anything is read of them; without torch.

    Raises:
        ConfigError: there are none, and one of another base model is to be taken.
        OutputError: one holds no search with trials.
    """
    if force and not folders:
        raise ConfigError(f"--force: there is no {OPTION} that it could take; leave it out")
    for out in _outputs(folders):
        _check_holds_search(out)


def _outputs(folders: Sequence[Path]) -> list[OutFolder]:
    """Each once."""
    return [OutFolder(root) for root in dict.fromkeys(resolved(root) for root in folders)]


def _taken_from(out: OutFolder, job: Job, force: bool) -> Taken:
    from raylora.execution.checked_job import absolute

    assert job.space is not None
    earlier, experiment = read_search(out), absolute(job.experiment)
    differing = [] if _same_pictures(out.split, job) else [DATASET]
    here, there = experiment.model.base_model, earlier.experiment.model.base_model
    is_same, others = _same_weights(out, experiment), ""
    if is_same:
        earlier = replace(earlier, experiment=earlier.experiment.with_params({BASE_MODEL: here}))
    elif is_same is False and here == there:
        differing, others = [*differing, BASE_MODEL], " with other weights than those that are there now"
    taken = take(earlier, job.space, experiment, differing)
    if BASE_MODEL in taken.differing and not force:
        raise OutputError(
            f"{OPTION} {out.root}: searched for {there}{others}, and this search is for {here}; where one's good "
            f"settings serve the other, add --force, else leave {OPTION} out"
        )
    if not taken.trials:
        raise OutputError(
            f"{OPTION} {out.root}: none of its trials fits this search ({taken}); "
            f"widen the search space, set less by hand, or leave {OPTION} out"
        )
    return taken


def read_search(out: OutFolder) -> EarlierSearch:
    """A search with one ended trial or more, finished or not.

    Raises:
        OutputError: there is none.
    """
    _check_holds_search(out)
    try:
        trials = read_trials(out.study)
    except Exception:  # Optuna replays what the lines say, whatever that comes to
        raise _broken(out) from None
    if not trials and out.study.stat().st_size and not _holds_study(out):
        raise _broken(out)
    if not any(trial.state.is_finished() and trial.value is not None for trial in trials):
        raise OutputError(
            f"{OPTION} {out.root}: no trial of that search has ended with a score; "
            f"go on with it by `{out.how_to_resume}` first, or leave {OPTION} out"
        )
    return EarlierSearch(str(out.root), read_experiment(out.experiment), trials)


def _check_holds_search(out: OutFolder) -> None:
    if not is_folder(out.root):
        raise OutputError(f"{OPTION} {out.root}: there is no such folder; {MEND}")
    if not is_file(out.study) and _holds_training(out):
        raise OutputError(f"{OPTION} {out.root}: holds a training, which has no trials to learn from; {MEND}")
    if not (is_file(out.study) and is_file(out.experiment)):
        raise OutputError(f"{OPTION} {out.root}: holds no search with trials; {MEND}")


def _holds_study(out: OutFolder) -> bool:
    """Optuna passes over a line that was cut off, and so over a file that is nothing else."""
    return STUDY_NAME in (study.study_name for study in storage_of(out.study).get_all_studies())


def _broken(out: OutFolder) -> OutputError:
    return OutputError(
        f"{OPTION} {out.root}: its {out.study.name} is damaged or of another program, so its trials can't be read; put "
        f"back a copy of it, give another search's folder, or leave {OPTION} out"
    )


def _holds_training(out: OutFolder) -> bool:
    try:
        return out.holds_training
    except OutputError:
        return False


def _same_weights(out: OutFolder, experiment: Experiment) -> bool | None:
    """Whether the base model had the same weights there, wherever they lay; None where that isn't known.

    Folders from before digests were kept, and models on the hub, are known by their names alone.
    """
    try:
        there = out.read_state().get("base_digest")
    except OutputError:
        return None
    from raylora.execution.checked_job import digest_of_base

    here = digest_of_base(experiment)
    return there == here if there and here else None


def _same_pictures(split_file: Path, job: Job) -> bool:
    """Whether the same pictures were held out there, of as many, in the same folds."""
    try:
        return digests_of_split(split_file) == [
            ({picture.digest for picture in split.holdout}, len(split.train)) for split in job.splits
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return False


def _shortened(paths: Sequence[str], most: int = 4) -> str:
    """The first few, and how many more."""
    more = f" and {len(paths) - most} more" if len(paths) > most else ""
    return ", ".join(paths[:most]) + more
