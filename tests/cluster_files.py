"""The files of cluster/, as several tests read them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CLUSTER = ROOT / "cluster"
RAY_UP = sorted((CLUSTER / "ray-up").glob("*.yaml"))
KUBERAY = sorted((CLUSTER / "kuberay").glob("*.yaml"))
SHELL = sorted([*CLUSTER.rglob("*.sh"), *CLUSTER.rglob("*.sbatch")])
FILES = sorted(path for path in CLUSTER.rglob("*") if path.is_file() and path.name != ".env")
LAUNCHED = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
"""`ray up` runs these of its file, each with `_commands` behind it."""


def read_yaml(path: Path) -> Any:
    """The one document of a file."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def kubernetes_objects() -> list[dict[str, Any]]:
    """All that kuberay/ makes."""
    return [each for path in KUBERAY for each in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def pod_templates() -> dict[str, dict[str, Any]]:
    """What pods are made of, by a name for who reads of its faults."""
    found = {}
    for each in kubernetes_objects():
        name, spec = f"{each['kind']}/{each['metadata']['name']}", each.get("spec", {})
        cluster = spec.get("rayClusterSpec", spec)
        found |= {name: each} if each["kind"] == "Pod" else {}
        found |= {f"{name}/{key}": spec[key] for key in ("template", "submitterPodTemplate") if key in spec}
        if "headGroupSpec" in cluster:
            found[f"{name}/head"] = cluster["headGroupSpec"]["template"]
            found |= {f"{name}/{group['groupName']}": group["template"] for group in cluster["workerGroupSpecs"]}
    return found


def launched_commands(config: dict[str, Any]) -> list[str]:
    """Every shell command in a file of `ray up`."""
    return [command for kind in LAUNCHED for command in config.get(f"{kind}_commands", [])]


def readme_commands() -> list[str]:
    """The README's indented blocks, one command a line."""
    lines = (CLUSTER / "README.md").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if re.match(r" {4}\s*\S", line)]


def tool(name: str, *arguments: str, told: str | None = None) -> subprocess.CompletedProcess[str]:
    """A checker that was installed beside this Python, or is on the PATH."""
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert program, f"{name} is missing: `make install` brings it"
    return subprocess.run([program, *arguments], input=told, capture_output=True, text=True, check=False)
