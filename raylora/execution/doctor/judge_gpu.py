"""What is said of a node's GPUs, judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raylora.execution.doctor.rows import Finding, bad, gib, good, warning
from raylora.execution.doctor.wanted import Wanted

if TYPE_CHECKING:
    from raylora.execution.doctor.judge_node import NodeSaid

NEEDS_BITSANDBYTES = ("adamw8bit", "lion8bit")
PYTORCH = "https://pytorch.org/get-started/locally"


def judge_gpus(facts: Mapping[str, Any], node: NodeSaid, wanted: Wanted) -> list[Finding]:
    """A finding for each GPU that torch has, and for what stands between it and the others."""
    gpus, driver = facts["gpus"], facts["driver"]
    if not gpus:
        return [_none(facts, node)]
    build = f"torch for {_cuda(facts)}"
    told = f"driver {driver['version']} (CUDA {driver['cuda'] or '?'}), {build}" if driver["version"] else build
    findings = [finding for gpu in gpus for finding in _judge(gpu, told, wanted)]
    if driver["fault"]:
        findings.append(warning(f"{driver['fault']}, though torch finds GPUs", "load the driver anew, or restart"))
    return findings + _as_ray_has_them(len(gpus), node)


def _cuda(facts: Mapping[str, Any]) -> str:
    return f"CUDA {facts['torch_cuda']}" if facts["torch_cuda"] else f"ROCm {facts['torch_rocm']}"


def _none(facts: Mapping[str, Any], node: NodeSaid) -> Finding:
    """Why torch has no GPU. Without a driver there is none, which is told and not mended."""
    driver = facts["driver"]
    found = f"{len(driver['gpus'])} GPU ({driver['gpus'][0]['name']})" if driver["gpus"] else "a GPU driver"
    there = f"{found}, driver {driver['version'] or '?'}, CUDA {driver['cuda'] or '?'}"
    if driver["fault"]:
        return bad(f"torch finds no GPU, and {driver['fault']}", "install the driver anew, or restart the machine")
    if not driver["gpus"] and driver["version"] is None and driver["cuda"] is None:
        if node.ray_gpus:
            return bad(
                f"Ray gives {node.ray_gpus:g} GPUs away, and there is none", "start Ray there without --num-gpus"
            )
        if node.has_gpus_elsewhere:
            return good("none; trials run where there are some")
        return warning("none: trials share the processor cores", "use a machine with an NVIDIA GPU for more than the "
                       "demo; in a container give it one: `--gpus all` of docker")  # fmt: skip
    if facts["torch_cuda"] is None:
        return bad(f"{there}, but torch {facts['torch']} is built without CUDA", f"install the build for CUDA "
                   f"{driver['cuda'] or 'of your driver'} as {PYTORCH} says")  # fmt: skip
    if facts["visible"] is not None and driver["gpus"]:
        return bad(f"{there}, but CUDA_VISIBLE_DEVICES is {facts['visible']!r} and torch finds none",
                   "unset CUDA_VISIBLE_DEVICES, or name GPUs that are there")  # fmt: skip
    if _is_newer(facts["torch_cuda"], driver["cuda"]):
        return bad(f"{there}, but torch {facts['torch']} is built for CUDA {facts['torch_cuda']}", "install a newer "
                   f"driver, or the build for CUDA {driver['cuda']} as {PYTORCH} says")  # fmt: skip
    return bad(f"{there}, but torch finds none ({facts['fault'] or 'it says nothing'})", "run `nvidia-smi`; load the "
               "driver anew, or restart the machine")  # fmt: skip


def _is_newer(built_for: str, able: str | None) -> bool:
    """Whether torch's CUDA is of a later major version: within one, an older driver runs it too."""
    return able is not None and int(built_for.split(".")[0]) > int(able.split(".")[0])


def _judge(gpu: Mapping[str, Any], told: str, wanted: Wanted) -> list[Finding]:
    name = f"{gpu['name']}, {gib(gpu['memory'])}"
    if gpu["fault"]:
        return [bad(f"{name}, {told}: can't be used ({gpu['fault']})", "end what holds it (`nvidia-smi` names it); or "
                    f"install a torch that knows this GPU, as {PYTORCH} says")]  # fmt: skip
    number_format = "bf16" if gpu["bf16"] else "no bf16"
    about = f"{name}, {gib(gpu['free'])} free, {told}, {number_format}"
    return [_as_to_memory(gpu, about, wanted), *_as_to_format(gpu, wanted)]


def _as_to_memory(gpu: Mapping[str, Any], about: str, wanted: Wanted) -> Finding:
    weights = wanted.weight_bytes
    if gpu["free"] >= 2 * weights:
        return good(about)
    need = f"{about}; the model's weights alone are {gib(weights)} in {_named(wanted.mixed_precision)}"
    lighter = " --set training.mixed_precision=bf16," if wanted.mixed_precision == "no" else ""
    if gpu["free"] < weights:
        return bad(need, f"end what holds its memory (`nvidia-smi` names it),{lighter} or use a larger GPU")
    return warning(need, f"end what holds its memory (`nvidia-smi` names it),{lighter} or "
                   "--set training.gradient_checkpointing=true")  # fmt: skip


def _named(mixed_precision: str) -> str:
    return "float32" if mixed_precision == "no" else mixed_precision


def _as_to_format(gpu: Mapping[str, Any], wanted: Wanted) -> list[Finding]:
    if wanted.mixed_precision != "bf16" or gpu["bf16"]:
        return []
    return [warning(f"{gpu['name']}: training.mixed_precision bf16 is not what it computes in, so it is slow",
                    "--set training.mixed_precision=fp16")]  # fmt: skip


def _as_ray_has_them(count: int, node: NodeSaid) -> list[Finding]:
    """Ray gives away as many as it was told at its start."""
    given = node.ray_gpus
    if given is None or given == count:
        return []
    found = f"Ray gives {given:g} GPUs away, torch finds {count}"
    if given > count:
        return [
            bad(f"{found}: trials would wait for GPUs that aren't there", f"start Ray there with --num-gpus={count}")
        ]
    return [warning(f"{found}", f"start Ray there with --num-gpus={count}, if trials may use all")]


def judge_bitsandbytes(said: Mapping[str, str] | str, _: NodeSaid, wanted: Wanted) -> list[Finding]:
    """Where it took a step; or, as a text, why it didn't."""
    if not isinstance(said, str):
        return [good(f"8-bit optimizers step on {'the GPU' if said['device'] == 'cuda' else 'the processor'}")]
    judge = bad if wanted.optimizer in NEEDS_BITSANDBYTES else warning
    mend = "install a bitsandbytes for this machine's CUDA, or search without them: --set optimizer.name=adamw"
    return [judge(f"8-bit optimizers can't be used: {said}", mend)]
