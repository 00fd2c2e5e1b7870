"""What Ray's and its nodes' answers mean for a search on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from raylora.execution.doctor.asking import Heard, Said
from raylora.execution.doctor.node_facts import PACKAGES
from raylora.execution.doctor.rows import Finding, Row, bad, failed, good, row, unchecked, warning

MOST_AHEAD_S, FAR_AHEAD_S = 3.0, 60.0
"""Of a node's clock: beyond the first, times in records mislead; beyond the second, other services may refuse it."""
HERE = "this program"
LIBRARIES = ("python", "raylora", *PACKAGES)
SHARE = "put it on storage that all nodes have at the same path, such as NFS"


def names(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Each node by what people call it: its host, with the address or a part of its id where several share that."""
    hosts = Counter(node["host"] for node in nodes)
    places = Counter((node["host"], node["address"]) for node in nodes)
    named = {}
    for node in nodes:
        more = node["address"] if places[node["host"], node["address"]] == 1 else node["id"][:8]
        named[node["id"]] = node["host"] if hosts[node["host"]] == 1 else f"{node['host']} ({more})"
    return named


def judge_ray(heard: Heard, address: str | None) -> list[Row]:
    """Whether Ray is there, its State API, and whom it lets in."""
    mend = "start the cluster, mend the address, or leave --address out" if address else "install ray anew"
    if "ray" in heard.faults:
        return [row("Ray", failed(heard.faults["ray"], mend))]
    if "nodes" not in heard.values:
        return [row("Ray", failed(heard.faults.get("nodes", "its nodes are not told"), "restart the cluster"))]
    count = len(heard.values["nodes"])
    found = f"answers at {heard.values['ray']}, {count} node{'s' * (count != 1)}" if address else "starts here"
    return [row("Ray", good(found)), row("State API", _state(heard)), row("access", _guards(heard))]


def _state(heard: Heard) -> Finding:
    if "state" in heard.values:
        return good("answers")
    found = f"doesn't answer ({heard.faults.get('state', 'not asked')})"
    return warning(
        f"{found}: trials of several GPUs that are stopped give them back late",
        "install ray[default] on the head, and start it with its dashboard",
    )


def _guards(heard: Heard) -> Finding:
    """Who reaches an open door without a token can run any program there."""
    if "guards" not in heard.values:
        return unchecked(heard.faults.get("guards", "Ray was not asked"))
    doors = heard.values["guards"]
    exposed = " and ".join(doors["exposed"])
    if doors["wants_token"]:
        return good(f"Ray asks for a token{f'; other machines reach {exposed}' if exposed else ''}")
    if not exposed:
        return good("Ray listens to this machine alone")
    return warning(
        f"other machines reach {exposed}, and Ray asks for no token: whoever reaches them can run programs there",
        "stop Ray, run `ray get-auth-token --generate`, copy ~/.ray/auth_token to all nodes, and start it with "
        "RAY_AUTH_MODE=token everywhere; or close its ports to others",
    )


def judge_versions(by_node: Mapping[str, Mapping[str, str | None]]) -> list[Row]:
    """Whether all have what raylora needs, in the same versions; by the names of nodes."""
    findings: list[Row] = []
    for library in LIBRARIES:
        having = {node: versions.get(library) for node, versions in by_node.items()}
        for node in (node for node, version in having.items() if version is None):
            findings.append(row("versions", bad(f"{library} is not installed", "install raylora there"), node))
        known = Counter(version for version in having.values() if version)
        if len(known) > 1:
            usual = known.most_common(1)[0][0]
            findings += [_differs(library, node, version, usual) for node, version in having.items()
                         if version not in (None, usual)]  # fmt: skip
    if findings or not by_node:
        return findings
    versions = next(iter(by_node.values()))
    told = ", ".join(f"{library} {versions[library]}" for library in LIBRARIES)
    return [row("versions", good(told if len(by_node) == 1 else f"the same everywhere: {told}"))]


def _differs(library: str, node: str, version: str | None, usual: str) -> Row:
    found = f"{library} {version}, and {usual} on most others"
    return row("versions", bad(found, f"install {library} {usual} there, or the same everywhere"), node)


def judge_clocks(clocks: Mapping[str, Said], named: Mapping[str, str]) -> list[Row]:
    """Whether nodes agree on the time, as far as that can be said: an answer may have come at once or late."""
    return [row("clock", _clock(said), named[node]) for node, said in clocks.items()]


def _clock(said: Said) -> Finding:
    if said.fault is not None:
        return unchecked(said.fault)
    ahead, doubt = said.value
    surely = abs(ahead) - doubt
    if surely <= MOST_AHEAD_S:
        return good("agrees with this machine's" if doubt <= MOST_AHEAD_S else f"agrees within {doubt:.0f} s")
    judge = bad if surely > FAR_AHEAD_S else warning
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} this machine's"
    return judge(found, "let both set their clocks by a time server: `timedatectl set-ntp true`")


def judge_shared(shared: Mapping[str, Any], named: Mapping[str, str]) -> list[Row]:
    """Whether all nodes write to one place, if they have to, and read the same files."""
    if "place" not in shared:
        read = "trials work from search.storage, and what else they read is seen by all nodes"
        return _unreadable(shared["unreadable"], named) or [row("shared folder", good(f"none is needed: {read}"))]
    place, faults = shared["place"], []
    for node, said in shared["written"].items():
        if said.fault:
            finding = bad(f"{place} can't be written ({said.fault})", f"let your user write there, and {SHARE}")
            faults.append(row("shared folder", finding, named[node]))
    for node, said in shared["unseen"].items():
        if said.fault or said.value:
            others = ", ".join(named[other] for other in said.value or ())
            found = f"doesn't see what {others} wrote to {place}" if others else f"{place}: {said.fault}"
            faults.append(row("shared folder", bad(found, SHARE), named[node]))
    faults += _unreadable(shared["unreadable"], named)
    return faults or [row("shared folder", good(f"{place} is written and seen by all nodes"))]


def _unreadable(by_node: Mapping[str, Said], named: Mapping[str, str]) -> list[Row]:
    rows = []
    for node, said in by_node.items():
        missing = said.value or ([f"nothing ({said.fault})"] if said.fault else [])
        rows += [row("shared folder", bad(f"{what} isn't seen there", SHARE), named[node]) for what in missing]
    return rows
