"""Runs a training script of another project: `python run_peer.py SCRIPT [ARGUMENTS…]`.

Such scripts import torchvision, whose wheels for GPUs name operators that a CPU build of torch has not heard of
(https://github.com/pytorch/vision/blob/main/torchvision/_meta_registrations.py); declared first, it imports.
"""

from __future__ import annotations

import runpy
import sys

import torch

OPERATORS = (
    "nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align",
    "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward",
)  # fmt: skip


def main() -> None:
    script, *arguments = sys.argv[1:]
    if not torch.version.cuda:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for operator in OPERATORS:
            library.define(f"{operator}(Tensor x) -> Tensor")  # type: ignore[no-untyped-call]
    sys.argv = [script, *arguments]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
