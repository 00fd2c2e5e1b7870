"""The Optuna study: what to try next, and what came of what was tried. Knows nothing of Ray."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from raylora.config import Experiment, SearchConfig
from raylora.files import exists, is_file
from raylora.search.proposing import Forecaster
from raylora.search.ranking import COSTS_KEY, PARAMS_KEY, by_share, excess_of
from raylora.search.seen import POINTS_KEY, ImagesOf, point_of
from raylora.search.space import Params, SearchSpace

STUDY_NAME = "raylora"
EARLIER_NAME = "earlier searches"
"""Beside the search's own study in its journal: what it was told of searches before it."""
SEED_STRIDE = 1_000_003
SOURCE_KEY, COMPARES_KEY = "source", "compares"
"""User attributes of an earlier search's trial: that search's folder; whether its scores are on this one's scale."""


class Outcome(Enum):
    """How a trial ended, and what Optuna is told of it."""

    FINISHED = TrialState.COMPLETE
    STOPPED_EARLY = TrialState.PRUNED
    """Its value belongs to fewer images: TPE ranks pruned trials by how far they came, then by value."""
    FAILED = TrialState.FAIL


def _tpe(config: SearchConfig, seed: int) -> BaseSampler:
    """TPE (Bergstra et al. 2011; multivariate: Falkner et al. 2018). The constant liar keeps parallel trials apart.

    Optuna's puts trials that broke limits below all others, by how far they went over.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", FutureWarning)  # Optuna 5 wants Trial.set_constraint, which Optuna 4 lacks
        return TPESampler(
            seed=seed, n_startup_trials=config.startup_trials, multivariate=True, group=True, constant_liar=True,
            constraints_func=lambda trial: (excess_of(trial, config.limits),),
        )  # fmt: skip


def _random(config: SearchConfig, seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


OPTUNA_SAMPLERS: dict[str, Callable[[SearchConfig, int], BaseSampler]] = {
    "forecast": _random,  # until enough is known for `proposing.Forecaster`
    "tpe": _tpe,
    "random": _random,
}


def storage_of(journal: Path) -> JournalStorage:
    """Optuna's storage in a file, which is made if it isn't there."""
    return JournalStorage(JournalFileBackend(str(journal)))


def read_trials(journal: Path, name: str = STUDY_NAME) -> list[FrozenTrial]:
    """All trials of a study in a journal file; none if it holds no such study."""
    return _trials_in(storage_of(journal), name)


def _trials_in(storage: JournalStorage, name: str) -> list[FrozenTrial]:
    is_there = name in (study.study_name for study in storage.get_all_studies())
    return optuna.load_study(study_name=name, storage=storage).get_trials() if is_there else []


def damage_of(journal: Path, has_trials: bool) -> str | None:
    """Why a search can't go on with its journal, if so.

    Args:
        has_trials: whether trials have begun: then there must be a study. Before the first one there may not be one
            yet: what the search was told of earlier ones stands in its journal before its images are encoded.
    """
    try:
        if exists(journal) and not is_file(journal):
            return "is no ordinary file"
        if not is_file(journal) or b"\n" not in journal.read_bytes():
            return "is gone or empty, though trials have begun" if has_trials else None
        names = {study.study_name for study in storage_of(journal).get_all_studies()}
        if STUDY_NAME not in names and (has_trials or names != {EARLIER_NAME}):
            return "holds no study of raylora's"
        for name in names:
            read_trials(journal, name)
    except Exception as error:  # Optuna replays what the lines say, whatever that comes to
        return f"is damaged or of another program ({type(error).__name__})"
    return None


def drop_torn_line(journal: Path) -> None:
    """Take away the part of a last line that a full disk or a power loss left.

    Optuna skips such a line, but appends to it, and can then read neither. Only for whoever writes to the journal.
    """
    if journal.is_file():
        with journal.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)


def keep_earlier(journal: Path, trials: Sequence[FrozenTrial]) -> None:
    """Put trials of earlier searches into a new search's journal, whose study will learn from them."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(study_name=EARLIER_NAME, storage=storage_of(journal), direction="maximize").add_trials(trials)


class SearchStudy:
    """Ask for the next trial, tell what came of it; everything is kept in a journal file.

    Opening a journal that exists goes on with it: first points aren't queued twice, and trials that were
    running when the search died are found by `orphans`. Trials of earlier searches that `keep_earlier` put into
    the journal are learned from and nothing else: they have no number here, and are never asked, told or counted.
    """

    def __init__(self, journal: Path, space: SearchSpace, experiment: Experiment, images_of: ImagesOf):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._experiment = space, experiment
        drop_torn_line(journal)
        storage = storage_of(journal)  # one for both studies: each reads the whole file
        self._study = optuna.create_study(
            study_name=STUDY_NAME, storage=storage, direction="maximize", load_if_exists=True
        )
        self._earlier = _trials_in(storage, EARLIER_NAME)
        self._study.sampler = RandomSampler() if self._earlier else self._new_sampler()  # `_learned` asks elsewhere
        self._running: dict[int, optuna.Trial] = {}
        self._forecaster = Forecaster(space, experiment, images_of)
        if not self._study.get_trials(deepcopy=False):
            for point in space.first_points:
                self._study.enqueue_trial(space.to_optuna(point, experiment))

    def _new_sampler(self) -> BaseSampler:
        """Seeded by the trials so far: one that begins anew must not draw the same again."""
        search = self._experiment.search
        seed = self._experiment.seed + SEED_STRIDE * self.asked
        name = "tpe" if self._earlier and search.optuna_sampler == "forecast" else search.optuna_sampler
        return OPTUNA_SAMPLERS[name](search, seed % 2**32)

    @property
    def has_baseline(self) -> bool:
        """Whether trial 0 is the space's first point, the guide's own configuration, and no random draw."""
        return bool(self._space.first_points)

    @property
    def asked(self) -> int:
        """Trials that were begun, whatever came of them."""
        return sum(trial.state != TrialState.WAITING for trial in self._study.get_trials(deepcopy=False))

    @property
    def ended(self) -> dict[int, Outcome]:
        """How each trial ended that has, by number."""
        trials = self._study.get_trials(deepcopy=False)
        return {trial.number: Outcome(trial.state) for trial in trials if trial.state.is_finished()}

    @property
    def is_hopeless(self) -> bool:
        """Whether `search.max_failures` trials have failed, and none was ever measured: they may share a cause."""
        trials = self._study.get_trials(deepcopy=False)
        failures = sum(trial.state is TrialState.FAIL for trial in trials)
        return failures >= self._experiment.search.max_failures and not any(
            trial.intermediate_values for trial in trials
        )

    def ask(self) -> tuple[int, Params]:
        """The next trial's number and settings."""
        waiting = self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
        if not waiting and (proposal := self._proposal()) is not None:
            self._study.enqueue_trial(proposal)
        trial = self._study.ask()
        return trial.number, self._begin(trial)

    def _proposal(self) -> Params | None:
        """What to try next, in Optuna's parameters; None where that is the study's own sampler's to say."""
        search = self._experiment.search
        if self._earlier:
            return self._learned()
        if search.optuna_sampler != "forecast" or self.asked < search.startup_trials:
            return None
        return self._forecaster.propose(self._study.get_trials(deepcopy=False))

    def _begin(self, trial: optuna.Trial) -> Params:
        """The trial's settings, written down. One that was killed amid this keeps the values that it has."""
        params: Params | None = trial.user_attrs.get(PARAMS_KEY)
        if params is None:
            params = self._space.suggest(trial, self._experiment)
            trial.set_user_attr(PARAMS_KEY, params)
        self._running[trial.number] = trial
        return params

    def _learned(self) -> Params:
        """A proposal from all trials there are, in Optuna's parameters: asked of a study that holds them together.

        Trials are ranked among those whose scores are on one scale: this search's own with the earlier ones that
        compare, and each other search by itself.
        """
        own = self._study.get_trials(deepcopy=False)
        groups: defaultdict[str, list[FrozenTrial]] = defaultdict(list)
        for trial in self._earlier:
            groups["" if trial.user_attrs[COMPARES_KEY] else trial.user_attrs[SOURCE_KEY]].append(trial)
        groups[""] += own
        together = optuna.create_study(direction="maximize", sampler=self._new_sampler())
        for group in groups.values():
            together.add_trials(by_share(group, self._experiment.search.limits))
        together.add_trials([trial for trial in own if trial.state is TrialState.RUNNING])
        proposal = together.ask()
        self._space.suggest(proposal, self._experiment)
        return proposal.params

    def went_on_at(self, number: int) -> int:
        """Images at the trial's last report that was no reason to stop it; 0 before any."""
        return max(self._study.get_trials(deepcopy=False)[number].intermediate_values, default=0)

    def report(self, number: int, images_seen: int, best_score: float) -> None:
        """An intermediate value, by images seen, so that trials compare at equal work. Saying it twice is harmless."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The reported value is ignored")
            self._running[number].report(best_score, images_seen)

    def learn(self, number: int, report: Mapping[str, Any]) -> None:
        """What a report says of the trial's end. Saying it twice is harmless."""
        trial = self._running[number]
        points = trial.user_attrs.get(POINTS_KEY, [])
        if report["images_seen"] not in [point["images"] for point in points]:
            trial.set_user_attr(POINTS_KEY, [*points, point_of(report, self._experiment.evaluation.score.loss_weight)])

    def is_worth_going_on(self, number: int) -> bool | None:
        """Whether a trial is to be trained further, by what its settings can be expected to reach and what it still
        costs; None while that can't be told.
        """
        return self._forecaster.is_worth_going_on(number, self._study.get_trials(deepcopy=False))

    def expected(self) -> dict[int, float]:
        """What the settings of trials that came to their end can be expected to reach, by number; empty if unknown."""
        return self._forecaster.expected(self._study.get_trials(deepcopy=False))

    def tell(
        self, number: int, outcome: Outcome, best_score: float | None, costs: Mapping[str, float] | None = None
    ) -> None:
        """The end of a trial, and what it cost (`limits.COSTS`)."""
        trial = self._running.pop(number)
        trial.set_user_attr(COSTS_KEY, dict(costs or {}))
        value = best_score if outcome is Outcome.FINISHED else None
        self._study.tell(trial, value, state=outcome.value)

    def orphans(self) -> list[tuple[int, Params]]:
        """Take over trials that an earlier search left running; they can be reported and told again."""
        left = self._study.get_trials(states=(TrialState.RUNNING,))
        trials = [optuna.Trial(self._study, trial._trial_id) for trial in left if trial.number not in self._running]
        return [(trial.number, self._begin(trial)) for trial in trials]
