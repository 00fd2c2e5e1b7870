"""Where a person finds a search's run in MLflow."""

from __future__ import annotations

import shlex


def run_page(uri: str, experiment_id: str, run_id: str) -> str:
    """A link where the tracking URI is a server's; else the command that starts one, and the link on that."""
    page = f"/#/experiments/{experiment_id}/runs/{run_id}"
    if uri.startswith(("http://", "https://")):
        return uri.rstrip("/") + page
    return f"http://127.0.0.1:5000{page} once this runs: mlflow ui --backend-store-uri {shlex.quote(uri)}"
