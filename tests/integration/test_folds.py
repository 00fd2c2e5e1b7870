"""Trials that are judged by several folds, on real trainers; and one whole small search through the command line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from torch import multiprocessing

from raylora.config import Experiment
from raylora.config_files import read_experiment
from raylora.diffusion.base import BaseModel
from raylora.errors import TrainingDivergedError
from raylora.evaluation import scorecard
from raylora.evaluation.scorecard import Evaluation, Evaluator
from raylora.execution.material import schedules
from raylora.execution.node_cache import read_folds
from raylora.execution.outputs import OutFolder
from raylora.execution.refit import run_refit
from raylora.execution.trial import TrialJob, run_trial
from raylora.execution.winner import adapter_of
from raylora.training.checkpoint import read_state, read_weights
from raylora.training.fit import BEST_NAME, STATE_NAME, Fit
from raylora.training.folds import joined
from raylora.training.trainer import Trainer
from raylora.world import World
from tests.conftest import Cli
from tests.integration.conftest import MakeJob
from tests.integration.test_run_trial import Reports, reports_of
from tests.integration.test_train_resume import without_costs

FOLDS = 2
RUNGS = 3
"""At 8, 16 and 24 images: 6 of 12 pictures are learned, four times."""


@pytest.fixture
def job(make_job: MakeJob) -> TrialJob:
    return make_job({"dataset.folds": FOLDS, "lora.dropout": 0.1})


def fold_of(job: TrialJob, number: int) -> Path:
    return job.folder(0) / f"fold_{number}"


def of_one_fold(job: TrialJob, number: int, root: Path) -> TrialJob:
    """A search that has this fold for its only split."""
    cache = OutFolder(job.out).cache
    shutil.copytree(cache / f"fold_{number}", OutFolder(root).cache)
    shutil.copytree(cache / "entries", OutFolder(root).cache / "entries")
    return replace(job, out=root, experiment=job.experiment.with_params({"dataset.folds": 1}))


class Scores:
    """Gives the evaluations of a trial the scores of a table, rung by rung and fold by fold, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, table: list[list[float]], interrupted_at: int | None = None):
        self.taken: list[float] = []
        scores, measure = [score for rung in table for score in rung], Evaluator.measure

        def measured(evaluator: Evaluator, *arguments: Any) -> Evaluation:
            if len(self.taken) == interrupted_at:
                raise KeyboardInterrupt
            evaluation = measure(evaluator, *arguments)
            self.taken.append(scores[len(self.taken)])
            return replace(evaluation, metrics={**evaluation.metrics, "score": self.taken[-1]})

        monkeypatch.setattr(Evaluator, "measure", measured)


def test_a_trial_reports_the_means_of_what_its_folds_report_alone(job: TrialJob, tmp_path: Path) -> None:
    reports = reports_of(job, {})
    alone = [reports_of(of_one_fold(job, fold, tmp_path / f"alone_{fold}"), {}) for fold in range(FOLDS)]
    assert [report["images_seen"] for report in reports] == [8, 16, 24]
    best = float("-inf")
    for report, *folds in zip(reports, *alone, strict=True):
        assert folds[0]["score"] != folds[1]["score"]
        for key in ("score", "holdout_loss", "sample_similarity", "train_probe_loss", "copying", "train_loss"):
            assert report[key] == fmean(fold[key] for fold in folds), key
        assert report["image_scores"] == folds[0]["image_scores"] + folds[1]["image_scores"]
        assert report["train_losses"] == [
            (one[0], fmean([one[1], other[1]]))
            for one, other in zip(folds[0]["train_losses"], folds[1]["train_losses"], strict=True)
        ]
        best = max(best, report["score"])
        assert report["best_score"] == best
        assert report["lora_mb"] == folds[0]["lora_mb"]
        assert {report["images_seen"]} == {fold["images_seen"] for fold in folds}
    assert [report["is_finished"] for report in reports] == [False, False, True]


def test_costs_are_those_of_all_folds() -> None:
    """Their seconds one after the other; their memory as if none was left when the next one began."""
    costs = [(3.0, 0.5), (4.0, 0.75)]
    reports: Reports = [
        {"score": 1.0, "train_s": seconds, "peak_memory_gib": memory, "lora_mb": 2.0, "image_scores": [1.0],
         "images_seen": 8, "is_finished": False, "train_losses": []}
        for seconds, memory in costs
    ]  # fmt: skip
    report = joined(reports, float("-inf"))
    assert [report[name] for name in ("train_s", "peak_memory_gib", "lora_mb")] == [7.0, 0.75, 2.0]


def test_the_weights_kept_are_those_of_the_rung_with_the_best_mean(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first fold alone was best at the first rung."""
    states: list[list[dict[str, Any]]] = []

    def hear(_: Reports) -> None:
        states.append([read_state(fold_of(job, fold) / STATE_NAME)["trainer"]["adapter"] for fold in range(FOLDS)])

    Scores(monkeypatch, [[3, 0], [1, 4], [0, 4]])
    reports = reports_of(job, {}, hear)
    assert [report["score"] for report in reports] == [1.5, 2.5, 2]
    assert [report["best_score"] for report in reports] == [1.5, 2.5, 2.5]
    for fold in range(FOLDS):
        best = read_weights(fold_of(job, fold) / BEST_NAME)
        for part, weights in states[1][fold].items():
            assert all(torch.equal(best[part][key], weight) for key, weight in weights.items())
    assert not list(job.folder(0).glob(BEST_NAME))


@pytest.mark.parametrize("after", [2, 3])
def test_one_that_was_broken_off_goes_on_with_nothing_lost_or_doubled(
    job: TrialJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Between two folds of a rung, and between two rungs: no LoRA is measured twice, or learns anything again."""
    whole = replace(job, out=tmp_path / "whole")
    shutil.copytree(OutFolder(job.out).cache, OutFolder(whole.out).cache)
    table = [[1.0, 2.0], [5.0, 3.0], [4.0, 1.0]]
    with monkeypatch.context() as patch:
        Scores(patch, table)
        wanted = reports_of(whole, {})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Scores(patch, table, interrupted_at=after)
        reports_of(job, {})
    with monkeypatch.context() as patch:
        left = Scores(patch, [[score for rung in table for score in rung][after:]])
        resumed = reports_of(job, {})
    assert len(left.taken) == FOLDS * RUNGS - after
    assert [*map(without_costs, resumed)] == [*map(without_costs, wanted)]
    for fold in range(FOLDS):
        mine, theirs = load_file(fold_of(job, fold) / BEST_NAME), load_file(fold_of(whole, fold) / BEST_NAME)
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_best_weights_that_a_kill_kept_from_being_written_are_written_when_it_goes_on(
    job: TrialJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_best = Fit.keep_best

    def killed_at_the_second(fit: Fit) -> None:
        if fit.folder.name == "fold_1":
            raise KeyboardInterrupt
        keep_best(fit)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Fit, "keep_best", killed_at_the_second)
        reports_of(job, {})
    assert not (fold_of(job, 1) / BEST_NAME).exists()
    states = [read_state(fold_of(job, fold) / STATE_NAME)["trainer"]["adapter"]["unet"] for fold in range(FOLDS)]
    Scores(monkeypatch, [[-9, -9], [-9, -9]])
    reports_of(job, {})
    for fold, weights in enumerate(states):
        best = read_weights(fold_of(job, fold) / BEST_NAME)["unet"]
        assert all(torch.equal(best[key], weight) for key, weight in weights.items())


def test_one_fold_that_diverges_fails_the_trial(job: TrialJob, monkeypatch: pytest.MonkeyPatch) -> None:
    Scores(monkeypatch, [[1, float("nan")]])
    with pytest.raises(TrainingDivergedError, match="a measure stopped being a number at 8 images"):
        reports_of(job, {})


def test_a_trial_trained_again_is_measured_once_by_all_folds(job: TrialJob, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it was broken off between two of them."""
    _, second, _ = reports_of(job, {})
    again, settings = replace(job, is_confirming=True), {"training.stop_at": 16}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        Scores(patch, [[0, 0]], interrupted_at=1)
        reports_of(again, settings)
    (report,) = reports_of(again, settings)
    assert (report["images_seen"], report["is_finished"], len(report["train_losses"])) == (16, True, 8)
    assert report["holdout_loss"] == second["holdout_loss"]


def test_folds_of_unlike_sizes_all_train_as_long_as_the_shortest(make_job: MakeJob) -> None:
    """12 pictures in 5 folds: 3 or 2 held out, 9 or 10 learned, four times."""
    job = make_job({"dataset.folds": 5, "search.grace_period": 100})
    materials = [shared.material for shared in read_folds(OutFolder(job.out).cache, job.experiment)]
    assert sorted(len(material.train) for material in materials) == [9, 9, 10, 10, 10]
    assert {schedule.images_total for schedule in schedules(materials, job.experiment)} == {36}
    (report,) = reports_of(job, {})
    assert (report["images_seen"], report["is_finished"], len(report["image_scores"])) == (36, True, 12)


def test_the_refit_learns_all_images_for_the_folds_share_of_their_schedule(job: TrialJob) -> None:
    run_refit({"number": 0, "params": {}, "images": 12}, job, list[dict[str, Any]]().append)
    assert read_experiment(OutFolder(job.out).best / "experiment.yaml").training.stop_at == 24  # 12 of 24, so 24 of 48
    shutil.rmtree(OutFolder(job.out).refit)
    run_refit({"number": 0, "params": {}, "images": 24}, job, list[dict[str, Any]]().append)
    assert read_experiment(OutFolder(job.out).best / "experiment.yaml").training.stop_at is None


def test_what_is_shown_of_a_trial_is_its_first_folds(job: TrialJob, tiny_base: BaseModel) -> None:
    reports_of(job, {})
    with adapter_of(tiny_base, job.experiment, job.folder(0)) as adapter:
        shown = adapter.state_dict()
    first, second = (read_weights(fold_of(job, fold) / BEST_NAME) for fold in range(FOLDS))
    assert all(torch.equal(shown["unet"][key], weight) for key, weight in first["unet"].items())
    assert not all(torch.equal(shown["unet"][key], weight) for key, weight in second["unet"].items())


class Counted:
    """Replaces a function by one that counts what its second argument holds: in a process of its own, for good."""

    def __init__(self, owner: Any, name: str):
        self.things, function = 0, getattr(owner, name)

        def counting(*arguments: Any) -> Any:
            self.things += len(getattr(arguments[1], "weights", arguments[1]))
            return function(*arguments)

        setattr(owner, name, counting)


def _worker(rank: int, size: int, job: TrialJob, rendezvous: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=size)
    reports: Reports = []
    learned, drawn = Counted(Trainer, "_losses"), Counted(scorecard, "generate")
    run_trial({"number": 0, "params": {}, "is_baseline": False}, job, reports.append, World(rank, size))
    Path(f"{rendezvous}.{rank}").write_text(json.dumps([learned.things, drawn.things, reports]))
    torch.distributed.destroy_process_group()


def test_two_workers_train_the_folds_of_one(make_job: MakeJob, tmp_path: Path) -> None:
    """Each does half of the work: a picture of each batch of two, and every second sample."""
    job = make_job({"dataset.folds": FOLDS})
    whole = replace(job, out=tmp_path / "whole")
    shutil.copytree(OutFolder(job.out).cache, OutFolder(whole.out).cache)
    alone = reports_of(whole, {})
    multiprocessing.spawn(_worker, (2, job, tmp_path / "rendezvous"), nprocs=2)
    for rank in range(2):
        learned, drawn, together = json.loads(Path(f"{tmp_path / 'rendezvous'}.{rank}").read_text())
        assert (learned, drawn) == (FOLDS * 24 / 2, FOLDS * RUNGS * 6 / 2)
        for ours, theirs in zip(together, alone, strict=True):
            assert [loss for _, loss in ours["train_losses"]] == pytest.approx(
                [loss for _, loss in theirs["train_losses"]], abs=1e-5
            )
            assert ours["score"] == pytest.approx(theirs["score"], abs=1e-2)
    assert {path.parent.name for path in job.folder(0).glob(f"*/{BEST_NAME}")} == {"fold_0", "fold_1"}


def test_a_whole_search_by_folds_hands_over_a_lora_of_all_images(
    tmp_path: Path, tiny_experiment: Experiment, cli: Cli
) -> None:
    """Its samples, in `best/` and in MLflow, are the first fold's."""
    settings = {"dataset.folds": FOLDS, "search.trials": 1, "search.confirm_trials": 1, "search.confirm_seeds": 1}
    tree = tiny_experiment.with_params(settings).model_dump(mode="json", exclude_none=True)
    del tree["lora"]["dropout"]  # it is searched
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "space.yaml").write_text("parameters: {lora.dropout: {choices: [0, 0.1]}}\n")
    done = cli("tune", "experiment.yaml", "--space", "space.yaml", "--out", "out", "--json", timeout_s=1200)
    assert done.returncode == 0, done.stderr
    summary, out = json.loads(done.stdout), OutFolder(tmp_path / "out")
    assert (summary["refit"], summary["images_seen"]) == (True, FOLDS * 24)
    with safe_open(out.best / "lora.safetensors", "pt") as file:
        assert file.metadata()["ss_num_train_images"] == "12"
    assert {path.relative_to(out.root).as_posix() for path in out.root.glob(f"*/*/*/{BEST_NAME}")} == {
        f"{trial}/fold_{fold}/{BEST_NAME}" for trial in ("trials/t000", "confirmations/c000") for fold in range(FOLDS)
    }
    assert len(list((out.best / "samples").glob("sample_*.png"))) == 6
    assert len(list((out.root / "mlartifacts").rglob("samples+step+*.png"))) == RUNGS + 1
    folds = json.loads(out.split.read_text())["folds"]
    assert [(len(fold["holdout"]), fold["train_images"]) for fold in folds] == [(6, 6)] * FOLDS
