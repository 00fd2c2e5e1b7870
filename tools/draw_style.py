#!/usr/bin/env python
"""Draws a style of DiceBear as a data set and a judge, as the demo's are: 40 and 64 captioned avatars.

    python tools/draw_style.py lorelei benchmarks/styles/lorelei

Needs Node.js 18 or newer, with npm; its packages are put into WORK.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from demo.assemble import write_sets
from demo.drawings import draw_style, install_node_packages
from demo.settings import DATASET_SIZE, JUDGE_SIZE, NEW_LABEL


def main() -> None:
    parser = argparse.ArgumentParser(description="Draws a style of DiceBear as a data set and a judge.")
    parser.add_argument("style", help="as DiceBear exports it, such as lorelei")
    parser.add_argument("out", type=Path, help="folder to write dataset/ and judge/ to")
    parser.add_argument("--work", type=Path, default=Path("build/styles"), help="node packages and drawings")
    options = parser.parse_args()
    drawn = options.work / options.style
    shutil.rmtree(drawn, ignore_errors=True)
    node = install_node_packages(options.work / "node")
    draw_style(node, options.style, NEW_LABEL, DATASET_SIZE + JUDGE_SIZE, drawn)
    write_sets(drawn, options.out)


if __name__ == "__main__":
    main()
