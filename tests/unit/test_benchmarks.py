"""The benchmarks' arithmetic. What they measure is not tested here."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.against_diffusers import OUR_PROGRESS, PEER_PROGRESS, PeakUntil, Run, compare
from benchmarks.demo import seed_spread
from benchmarks.gpu_step import share_of_peak, targets_of
from benchmarks.train_step import summarize


def row(saved_s: float, step_ms: float, peak_mib: float, loss: float) -> dict[str, float]:
    return {"saved_s": saved_s, "step_ms": step_ms, "peak_mib": peak_mib, "holdout_loss": loss}


def test_a_pair_of_neighbouring_blocks_gives_one_ratio() -> None:
    found = summarize("case", [((2.0, 1.1), (1.0, 1.0)), ((3.3, 1.2), (3.0, 1.0)), ((1.0, 1.3), (1.0, 1.0))], steps=10)
    assert found["ratio"] == pytest.approx(1.1)
    assert found["processor_ratio"] == pytest.approx(1.2)
    assert found["trainer_ms"] == pytest.approx(200)


def test_the_spread_between_seeds_is_pooled_over_all_configurations() -> None:
    rows: list[dict[str, Any]] = [{"scores": {"winner": [1.0, 3.0], "baseline": [2.0, 2.0]}}]
    assert seed_spread([*rows, {"scores": {"winner": [0.0, 2.0], "baseline": [5.0, 5.0]}}]) == pytest.approx(1.0)


def test_steps_are_told_from_start_up() -> None:
    run = Run(30.0, 31.0, 28.0, 500.0, 600.0, [(0, 9.0), (10, 12.0), (20, 14.0), (30, 16.0), (30, 29.0)], Path("lora"))
    assert run.step_s(after=10) == pytest.approx(0.2)
    assert run.start_s(after=10) == pytest.approx(24)


def test_progress_is_read_from_what_both_print() -> None:
    assert OUR_PROGRESS.findall(b"40 of 800 images: training loss 0.17") == [b"40"]
    line = b"Steps:   5%|5         | 10/200 [00:02<00:20,  4.5it/s, lr=0.001]\rSteps:   6%|6  | 11/200 [00:02<00:20]"
    assert PEER_PROGRESS.findall(line) == [b"10", b"11"]


def test_ratios_are_the_peers_to_ours_save_for_memory_and_loss() -> None:
    found = compare([row(10, 50, 500, 0.1), row(20, 60, 400, 0.1)])
    assert {key: value["value"] for key, value in found.items()} == pytest.approx(
        {"wall_ratio": 2, "step_ratio": 1.2, "memory_ratio": 1.25, "holdout_loss_ratio": 1}
    )
    assert [key for key, value in found.items() if not value["met"]] == ["memory_ratio"]


def test_share_of_peak() -> None:
    assert share_of_peak(10.0, 1.73, 692.0) == pytest.approx(0.25)
    assert share_of_peak(10.0, None, 692.0) is None


def test_the_best_of_a_family_counts_and_nothing_without_a_gpu() -> None:
    rows: list[dict[str, Any]] = [
        {"family": "sd15", "batch": 1, "ms_image": 50.0},
        {"family": "sd15", "batch": 16, "ms_image": 12.0},
        {"family": "sdxl", "batch": 1, "note": "out of memory"},
        {"option": "bf16 matrix product"},
    ]
    found = targets_of(rows, on_gpu=True)
    assert (found["sd15_ms_batch1"]["value"], found["sd15_ms_batch1"]["met"]) == (50.0, True)
    assert (found["sd15_ms_best"]["value"], found["sd15_ms_best"]["met"]) == (12.0, False)
    assert found["sdxl_ms_best"]["value"] is None
    assert all(value["value"] is None for value in targets_of(rows, on_gpu=False).values())


def test_the_peak_is_read_until_the_file_is_there(tmp_path: Path) -> None:
    """100 MiB before the file, 300 after it."""
    file = tmp_path / "lora"
    code = (
        "import sys, time; a = b'x' * (100 << 20); input(); open(sys.argv[1], 'w').close(); time.sleep(0.2); "
        "b = b'x' * (200 << 20); time.sleep(0.3)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(file)], stdin=subprocess.PIPE) as child:
        peak, deadline = PeakUntil(child.pid, file), time.monotonic() + 300
        peak.start()
        while not peak.mib > 100 and time.monotonic() < deadline:
            time.sleep(0.05)
        child.communicate(b"\n")
        peak.join()
    assert 100 < peak.mib < 250
