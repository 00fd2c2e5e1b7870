"""What a search foretells of its trials, proposes by it, and hands over."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from raylora.config import Experiment
from raylora.search.encoding import Encoder
from raylora.search.forecast import CostForecast, Forecast
from raylora.search.proposing import Forecaster
from raylora.search.seen import POINTS_KEY, Seen, paired_noise
from raylora.search.space import Parameter, Params, SearchSpace
from raylora.search.study import Outcome, SearchStudy, read_trials
from tests.reports import same_length

SPACE = SearchSpace(
    name="rates",
    parameters={
        "optimizer.name": Parameter(choices=("adamw", "lion")),
        "optimizer.unet_lr": Parameter(low=1e-5, high=1e-2, log=True),
        "lora.rank": Parameter(choices=(4, 8, 16, 32)),
    },
)
EXPERIMENT = Experiment().with_params({"search.startup_trials": 6})
WEIGHT = EXPERIMENT.evaluation.score.loss_weight
BEST_RATE = 1e-3
POINTS = (100, 200, 400, 800, 1200)
"""Images at which the recorded trainings were measured."""
IMAGE_SD = 0.09
"""Between a training's held-out images: the mean of three then has a noise of 0.05."""


def open_study(folder: Path, experiment: Experiment = EXPERIMENT) -> SearchStudy:
    return SearchStudy(folder / "study.journal", SPACE, experiment, same_length)


def distance(params: Params) -> float:
    """From the best rate, in powers of ten; Lion is a power off anyway."""
    return abs(math.log10(params["optimizer.unet_lr"] / BEST_RATE)) + (params["optimizer.name"] == "lion")


def report(params: Params, images: int, luck: float = 0.0) -> dict[str, Any]:
    """Losses fall with images, the more the nearer the rate; similarity only adds luck."""
    loss_part = (1 - 0.4 * distance(params)) * math.log(images) / math.log(1200)
    score = loss_part + luck
    apart = np.random.default_rng(int(1e6 * params["optimizer.unet_lr"]) + images).normal(0, IMAGE_SD, 3)
    return {"images_seen": images, "score": score, "best_score": score, "holdout_loss_ratio": 1 - loss_part / WEIGHT,
            "train_s": images / 100, "image_scores": (score + apart - apart.mean()).tolist()}  # fmt: skip


def train(study: SearchStudy, number: int, params: Params, points: tuple[int, ...], luck: float = 0.0) -> None:
    """A trial to the last of these points, which is its own end at 1,200 images; luck is what it has there alone."""
    for images in points:
        told = report(params, images, luck if images == points[-1] else 0.0)
        study.report(number, images, told["best_score"])
        study.learn(number, told)
    outcome = Outcome.FINISHED if points[-1] == 1200 else Outcome.STOPPED_EARLY
    study.tell(number, outcome, told["best_score"])


def whole(setting: float, luck: float = 0.0, points: Sequence[int] = POINTS, loss: float = 0.0) -> Seen:
    """A trial that came to its end, of one setting that moves nothing, lucky at each of its reports."""
    generator = np.random.default_rng(round(100 * setting) + len(points) + points[0])
    told = [{"images": images, "seconds": 1.0, "loss": loss, "rest": luck,
             "image_scores": generator.normal(luck, IMAGE_SD, 3).tolist()} for images in points]  # fmt: skip
    trial = create_trial(value=luck)
    trial.number = round(100 * setting) + 1000 * len(points) + points[0]
    return Seen(trial, [setting], told, 1200)


def test_proposals_find_the_best_rate_in_few_trials(tmp_path: Path) -> None:
    study, far = open_study(tmp_path), []
    for _ in range(16):
        number, params = study.ask()
        train(study, number, params, (100, 400, 1200))
        far.append(distance(params))
    assert np.mean(far[:6]) > 0.8
    assert np.median(far[-6:]) < 0.2


def test_what_was_stopped_early_teaches_too(tmp_path: Path) -> None:
    """One trial came to its end, the others to a tenth of it; the next is where losses fell most."""
    study = open_study(tmp_path)
    for place in range(10):
        number, params = study.ask()
        train(study, number, params, (100, 400, 1200) if place == 0 else (100,))
    assert distance(study.ask()[1]) < 0.5


def test_two_proposals_at_once_are_not_the_same(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for _ in range(8):
        number, params = study.ask()
        train(study, number, params, (100, 400, 1200))
    (_, first), (_, second) = study.ask(), study.ask()
    assert first != second


def test_a_lucky_trial_is_not_expected_to_be_the_best(tmp_path: Path) -> None:
    """Its samples happened to be good and its loss is not."""
    study, scores = open_study(tmp_path), {}
    generator = np.random.default_rng(0)
    for place in range(12):
        number, params = study.ask()
        luck = 0.5 if place == 3 else 0.05 * generator.standard_normal()
        train(study, number, params, (100, 400, 1200), luck)
        scores[number] = (report(params, 1200, luck)["score"], report(params, 1200)["score"])
    assert max(scores, key=lambda number: scores[number][0]) == 3
    expected = study.expected()
    assert max(expected, key=lambda number: expected[number]) != 3
    assert expected[3] < scores[3][0] - 0.25


def test_five_reports_of_one_lucky_training_say_less_than_five_lucky_trainings() -> None:
    """What made the samples come out well at one report does so at the next."""
    others = [whole(place / 10, luck) for place, luck in zip(range(10), (0.05, -0.05) * 5, strict=True)]
    usual, once, often = (
        Forecast([*others, *lucky], np.ones(1)).worth([whole(0.55)])[0][0]
        for lucky in ([], [whole(0.55, 0.2)], [whole(0.55, 0.2, (images,)) for images in POINTS])
    )
    assert often - usual > 2 * (once - usual) > 0


@pytest.mark.parametrize("part", ["loss", "luck"])
def test_a_report_that_is_heard_later_counts_as_if_it_had_been_there(part: str) -> None:
    """But for scales and centre, which are those of before."""
    known = [whole(place / 20, 0.05 * (-1) ** place, loss=0.001 * (-1) ** place) for place in range(20)]
    better: dict[str, Any] = {part: 0.2 if part == "luck" else 0.01}
    lucky = [whole(0.56, points=(images,), **better) for images in POINTS]
    forecast, asked = Forecast(known, np.ones(1)), [whole(0.56)]
    before = forecast.mean_worth(asked)
    at_once = Forecast([*known, *lucky], np.ones(1), forecast).mean_worth(asked)
    for count in (2, 5, 5):  # nothing new the last time
        forecast.hear([*known, *lucky[:count]])
    assert at_once > before + 0.002
    assert forecast.mean_worth(asked) == pytest.approx(at_once, abs=(at_once[0] - before[0]) / 4)


def test_a_training_heard_report_by_report_is_one_training() -> None:
    known = [whole(place / 20, 0.05 * (-1) ** place) for place in range(20)]
    asked, lifts = [whole(0.56)], []
    one = whole(0.56, 0.2)
    others = [whole(0.56, 0.2, (images,)) for images in POINTS]
    for told in ([[replace(one, points=one.points[: place + 1])] for place in range(5)],
                 [others[: place + 1] for place in range(5)]):  # fmt: skip
        forecast = Forecast(known, np.ones(1))
        before = forecast.mean_worth(asked)[0]
        for lucky in told:
            forecast.hear([*known, *lucky])
        lifts.append(forecast.mean_worth(asked)[0] - before)
    assert 0 < lifts[0] < 0.7 * lifts[1]


def test_noise_is_believed_to_be_what_held_out_images_say() -> None:
    """A dozen scores that happen to lie on a line."""
    forecast = Forecast([whole(place / 12, place / 12) for place in range(12)], np.ones(1))
    assert forecast.noise_sd > 0.03


def test_what_a_trial_under_way_reports_next_counts_too(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for _ in range(8):
        number, params = study.ask()
        train(study, number, params, (100, 400, 1200))
    number, params = study.ask()
    study.learn(number, report(params, 100))
    assert study.is_worth_going_on(number) is True
    study.learn(number, report({**params, "optimizer.unet_lr": 1e-5}, 400))
    assert study.is_worth_going_on(number) is False


def test_trials_are_measured_by_the_best_ones_however_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("raylora.search.proposing.LEADERS", 3)
    study = open_study(tmp_path)
    for _ in range(14):
        number, params = study.ask()
        train(study, number, params, (100, 400, 1200))
    number, params = study.ask()
    study.learn(number, report({**params, "optimizer.unet_lr": 1e-2}, 100))
    assert study.is_worth_going_on(number) is False


def test_nothing_is_proposed_that_was_tried(tmp_path: Path) -> None:
    """Training is repeatable: the same again teaches nothing."""
    parameters = {name: SPACE.parameters[name] for name in ("optimizer.name", "lora.rank")}
    space = SearchSpace(name="few", parameters=parameters)
    experiment = EXPERIMENT.with_params({"search.startup_trials": 2})
    study, tried = SearchStudy(tmp_path / "study.journal", space, experiment, same_length), []
    for _ in range(7):
        number, params = study.ask()
        train(study, number, {**params, "optimizer.unet_lr": BEST_RATE}, (100, 400, 1200))
        tried.append(tuple(params.values()))
    assert len(set(tried[1:])) == 6


def test_a_trial_that_learns_badly_is_stopped_and_one_with_a_good_rate_goes_on(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    assert study.is_worth_going_on(0) is None  # nothing is known
    for _ in range(8):
        number, params = study.ask()
        train(study, number, params, (100, 400, 1200))
    known = {trial.number: distance(trial.params) for trial in read_trials(tmp_path / "study.journal")}
    good, params = study.ask()
    assert distance(params) < min(known.values()) + 0.1
    study.learn(good, report(params, 100))
    assert study.is_worth_going_on(good) is True
    bad, params = study.ask()
    study.learn(bad, report({**params, "optimizer.unet_lr": 1e-5}, 100))
    assert study.is_worth_going_on(bad) is False


def test_a_trial_without_much_chance_goes_on_where_it_costs_little(tmp_path: Path) -> None:
    """The same reports of the same settings; one took a third of the others' time, one a hundred times."""
    answers = {}
    for seconds in (0.3, 100.0):
        (tmp_path / str(seconds)).mkdir()
        study = open_study(tmp_path / str(seconds))
        for _ in range(12):
            number, params = study.ask()
            train(study, number, params, (100, 400, 1200))
        while number < 12 or distance(params) > 0.2:
            number, params = study.ask()
        poor = report({**params, "optimizer.unet_lr": 1.5 * params["optimizer.unet_lr"]}, 100)
        study.learn(number, {**poor, "train_s": seconds})
        answers[seconds] = study.is_worth_going_on(number)
    assert answers == {0.3: True, 100.0: False}


def test_in_a_long_search_what_a_trial_under_way_reports_still_counts() -> None:
    """There are far more reports of trials that ended than a regression takes."""

    def seen(number: int, state: TrialState, loss: float) -> Seen:
        points = [{"images": images, "seconds": 1.0, "loss": loss, "rest": 0.0, "image_scores": [loss, loss + 0.1]}
                  for images in ((100, 400, 1200) if state is TrialState.COMPLETE else (100,))]  # fmt: skip
        trial = create_trial(state=state, value=loss if state is TrialState.COMPLETE else None)
        trial.number = number
        return Seen(trial, [number % 10 / 10 if number < 400 else 3.0], points, 1200)

    ended = [seen(number, TrialState.COMPLETE, number % 10 / 10) for number in range(200)]
    stopped = [seen(200 + number, TrialState.PRUNED, 0.1) for number in range(100)]
    worths = []
    for loss in (0.0, -3.0):
        asked = seen(400, TrialState.RUNNING, loss)
        worths.append(Forecast([*ended, *stopped, asked], np.array([1.0])).worth([asked])[0][0])
    assert worths[1] < worths[0] - 0.3


def test_a_study_without_seconds_goes_on(tmp_path: Path) -> None:
    """Earlier versions kept none."""
    study = open_study(tmp_path)
    for _ in range(8):
        number, params = study.ask()
        train(study, number, params, (100, 400, 1200))
    trials = read_trials(tmp_path / "study.journal")
    for trial in trials:
        for point in trial.user_attrs[POINTS_KEY]:
            del point["seconds"]
    forecaster = Forecaster(SPACE, EXPERIMENT, same_length)
    assert forecaster.propose(trials)
    assert forecaster.is_worth_going_on(0, trials) is not None


def test_settings_that_do_not_go_together_are_passed_over(tmp_path: Path) -> None:
    """Such a trial fails as it begins; the next are proposed all the same."""

    def images_of(params: Mapping[str, Any]) -> int:
        Experiment().with_params({"lora.rank": 0 if params["lora.rank"] == 4 else 8})
        return 1200

    study, ranks = SearchStudy(tmp_path / "study.journal", SPACE, EXPERIMENT, images_of), []
    for _ in range(12):
        number, params = study.ask()
        ranks.append(params["lora.rank"])
        if ranks[-1] == 4:
            study.tell(number, Outcome.FAILED, None)
        else:
            train(study, number, params, (100, 400, 1200))
    assert 4 in ranks[:6]
    assert 4 not in ranks[6:]


def test_limits_keep_proposals_from_what_costs_too_much(tmp_path: Path) -> None:
    """Files grow with the rank; those above 16 MB can't win."""
    limited = EXPERIMENT.with_params({"search.limits.lora_mb": 10})
    study = open_study(tmp_path, limited)
    for _ in range(12):
        number, params = study.ask()
        told = report(params, 1200)
        study.report(number, 1200, told["best_score"])
        study.learn(number, told)
        study.tell(number, Outcome.FINISHED, told["best_score"], {"lora_mb": float(params["lora.rank"])})
    assert study.ask()[1]["lora.rank"] <= 8
    expected = study.expected()
    ranks = {trial.number: trial.params["lora.rank"] for trial in read_trials(tmp_path / "study.journal")}
    assert all(ranks[number] <= 8 for number in expected)


def test_a_search_that_goes_on_expects_the_same(tmp_path: Path) -> None:
    study = open_study(tmp_path)
    for _ in range(7):
        number, params = study.ask()
        train(study, number, params, (100, 1200))
    assert open_study(tmp_path).expected() == open_study(tmp_path).expected() != {}


def test_paired_noise_is_what_differs_from_image_to_image() -> None:
    """Images differ alike in all trials, which is no noise; what is left scatters by 0.3, over 9 images."""
    generator = np.random.default_rng(0)
    images = generator.normal(0, 5.0, 9)

    def seen(scores: list[float]) -> Seen:
        point: Mapping[str, Any] = {"images": 100, "loss": 0.0, "rest": 0.0, "image_scores": scores}
        return Seen(None, [], [dict(point)], 1200)  # type: ignore[arg-type]

    trials = [seen((images + generator.normal(0, 0.3, 9)).tolist()) for _ in range(200)]
    assert math.sqrt(paired_noise(trials)) == pytest.approx(0.3 / 3, rel=0.1)
    assert math.isnan(paired_noise(trials[:1]))


def test_what_was_too_large_to_be_trained_teaches_what_is_too_large(tmp_path: Path) -> None:
    """Such a trial has costs and no report."""
    study = open_study(tmp_path, EXPERIMENT.with_params({"search.limits.lora_mb": 10}))
    for place in range(12):
        number, params = study.ask()
        costs = {"lora_mb": 1000.0 if params["optimizer.name"] == "adamw" else 1.0}
        if costs["lora_mb"] > 10:
            study.tell(number, Outcome.STOPPED_EARLY, None, costs)
        else:
            told = report(params, 1200, luck=0.01 * place)
            study.report(number, 1200, told["best_score"])
            study.learn(number, told)
            study.tell(number, Outcome.FINISHED, told["best_score"], costs)
    assert study.ask()[1]["optimizer.name"] == "lion"


def test_choices_that_differ_from_trial_to_trial_have_one_order() -> None:
    """As a user's function may have them. Names get a column each; what nobody has drawn, and what is missing, is 0."""
    drawn = [ended({"lora.rank": 8, "optimizer.name": "lion"}, ranks=(4, 8)), ended({"lora.rank": 8}, ranks=(8, 16))]
    encoder = Encoder(drawn)
    assert encoder.row(drawn[0]) == [0.5, 0.0, 1.0]
    assert encoder.row(ended({"lora.rank": 16}, ranks=(16,))) == [1.0, 0.0, 0.0]
    assert encoder.row(ended({"lora.rank": 64}, ranks=(64,))) == [0.0, 0.0, 0.0]


def ended(params: Params, ranks: tuple[int, ...]) -> FrozenTrial:
    known = {"lora.rank": CategoricalDistribution(ranks), "optimizer.name": CategoricalDistribution(("adamw", "lion"))}
    return create_trial(value=1.0, params=params, distributions={name: known[name] for name in params})


def test_what_trainings_take_is_learned_from_those_that_told_of_it() -> None:
    """Sixty-four begin at once; scales that were fitted to the first four, all alike, don't do for all."""

    def begun(place: int, has_told: bool) -> Seen:
        points = [{"images": 100, "seconds": math.exp(3 * math.sin(place / 3))}] if has_told else []
        return Seen(create_trial(value=0.0), [place / 64], points, 1200)

    lengths, limits = np.ones(1), EXPERIMENT.search.limits
    early = CostForecast([begun(place, place % 19 == 0) for place in range(64)], lengths, limits)
    late = CostForecast([begun(place, place % 2 == 0) for place in range(64)], lengths, limits, early)
    odd = list(range(1, 63, 2))
    found = np.log(late.seconds(np.array([[place / 64] for place in odd]), [100] * len(odd)))
    assert found == pytest.approx([3 * math.sin(place / 3) for place in odd], abs=0.05)
