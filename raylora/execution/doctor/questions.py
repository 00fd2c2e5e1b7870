"""What is asked of the processes that look at things; light, since the asker needs it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from raylora.config import Experiment

NODE, CLUSTER, SERVICES = (f"{__name__.rpartition('.')[0]}.{name}_facts" for name in ("node", "cluster", "service"))
"""The modules that answer."""
RAY_FACTS = ("ray", "nodes", "state", "guards")
"""What is to be found out of any Ray."""
CLUSTER_FACTS = (*RAY_FACTS, "facts", "versions", "clocks", "shared")
"""And of one of several machines."""


@dataclass(frozen=True)
class ClusterQuestion:
    """Which Ray is looked at, and what its nodes must share."""

    address: str | None
    out: Path
    reads: dict[str, Path]
    """What trials read from the disk, by what it is."""
    shares_out: bool = True
    """Whether all nodes write to the output folder: with `search.storage` the driver alone does."""
    keeps_copies: bool = False
    """Whether nodes bring what they work on from elsewhere."""


@dataclass(frozen=True)
class NodeQuestion:
    """What a node looks at on its disks."""

    folders: Mapping[str, str]
    """By what they are for."""
    keeps_copies: bool = False
    """Whether it has to have room for copies, where its own environment says."""


@dataclass(frozen=True)
class ServiceQuestion:
    """What a search would use beside its machines."""

    experiment: Experiment
    out: Path
