"""What runs, LoRAs and stores in MLflow are called by a user; told without MLflow, whose import takes seconds."""

from __future__ import annotations

import re

REGISTRY = "models:/"
"""Begins what names a registered LoRA; all else is a path or a run."""
URI_VARIABLE = "MLFLOW_TRACKING_URI"
RUN_ID = re.compile(r"[0-9a-f]{32}")
