"""What a base model predicts, by settings and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from raylora.config import ModelConfig
from raylora.diffusion.prediction import Prediction, prediction_of

V = "v_prediction"


def of(base: Path | str, wanted: str | None = None) -> Prediction:
    return prediction_of(ModelConfig(base_model=str(base), prediction_type=wanted))


@pytest.mark.parametrize(
    ("marks", "wanted", "prediction"),
    [
        ((), None, Prediction()),
        ((), V, Prediction(V)),
        (("v_pred",), None, Prediction(V, is_marked=True)),
        (("v_pred", "ztsnr"), None, Prediction(V, zero_snr=True, is_marked=True)),
        (("v_pred",), "epsilon", Prediction("epsilon", is_marked=True)),
    ],
)
def test_a_single_file_says_it_by_its_marks(
    marks: tuple[str, ...], wanted: str | None, prediction: Prediction, tmp_path: Path
) -> None:
    save_file({name: np.zeros(0, np.float32) for name in ("model.x", *marks)}, tmp_path / "m.safetensors")
    assert of(tmp_path / "m.safetensors", wanted) == prediction


def test_a_folder_says_it_in_its_schedulers_settings(tmp_path: Path) -> None:
    (tmp_path / "scheduler").mkdir()
    told = {"prediction_type": V, "rescale_betas_zero_snr": True}
    (tmp_path / "scheduler" / "scheduler_config.json").write_text(json.dumps(told))
    assert of(tmp_path) == Prediction(V, zero_snr=True)


def test_nothing_is_known_of_what_is_not_here(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_text("x")
    for base in ("some/base", tmp_path / "gone.safetensors", tmp_path / "bad.safetensors", tmp_path):
        assert of(base) == Prediction()
    assert of("demo") == Prediction("epsilon")
