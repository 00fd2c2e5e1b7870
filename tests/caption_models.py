"""Tiny captioners of the real kinds, made on the spot: a BLIP with random weights, a tagger that knows colours."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BLIP_SIDE, BLIP_WIDTH = 32, 16
LIVELY = 0.2
"""Spread of the weights: large enough that different pictures get different captions."""
SEED = 3
"""Whose weights find words for plain colours."""
TAGGER_SIDE = 16
SHARP = 20.0
"""How fast the tagger gets sure of a colour as its share grows past a half."""
WORDS = (
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[DEC]",
    "a",
    "photograph",
    "of",
    "drawing",
    "red",
    "blue",
    "cat",
)

ROWS = (
    ("rating:general", 9, None),
    ("blue_background", 0, 0),
    ("green_background", 0, 1),
    ("red_background", 0, 2),
    (">_<", 0, 0.9),
    ("simple_shape", 0, 0.7),
    ("blurry", 0, 0.5),
    ("some_name_(series)", 4, 0.9),
    ("other_name", 4, 0.7),
)
"""Name and category of each tag, and the channel of BGR that it is for, or how sure the tagger always is."""


def make_blip(folder: Path) -> Path:
    """Write a BLIP of 0.05 M random weights with its processor."""
    import torch  # seconds, and a tagger needs none of it
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    torch.manual_seed(SEED)
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"), bos_token="[DEC]")
    size = {"hidden_size": BLIP_WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={
            **size, "vocab_size": len(WORDS), "encoder_hidden_size": BLIP_WIDTH, "bos_token_id": 5, "sep_token_id": 3,
            "eos_token_id": 3, "pad_token_id": 0, "max_position_embeddings": 64, "projection_dim": BLIP_WIDTH,
            "initializer_range": LIVELY,
        },
        vision_config={
            **size, "image_size": BLIP_SIDE, "patch_size": 8, "projection_dim": BLIP_WIDTH,
            "initializer_range": LIVELY,
        },
        projection_dim=BLIP_WIDTH,
    )  # fmt: skip
    BlipForConditionalGeneration(config).save_pretrained(folder)
    pictures = BlipImageProcessor(size={"height": BLIP_SIDE, "width": BLIP_SIDE})
    BlipProcessor(pictures, tokenizer).save_pretrained(folder)
    return folder


def make_tagger(folder: Path, batch: int | str = "n", side: int | None = TAGGER_SIDE) -> Path:
    """Write a tagger that takes (batch, side, side, 3) and is sure of a colour by its mean over the square.

    Args:
        batch: how many pictures it takes at once; a name is any number.
    """
    weight = np.zeros((3, len(ROWS)), np.float32)
    bias = np.zeros(len(ROWS), np.float32)
    for column, (_, _, sure) in enumerate(ROWS):
        if isinstance(sure, int):
            weight[sure, column], bias[column] = SHARP / 255, -SHARP / 2
        elif sure:
            bias[column] = math.log(sure / (1 - sure))
    nodes = [
        helper.make_node("ReduceMean", ["pictures", "axes"], ["means"], keepdims=0),
        helper.make_node("Gemm", ["means", "weight", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["sure"]),
    ]
    tables = {"axes": np.array([1, 2]), "weight": weight, "bias": bias}
    graph = helper.make_graph(
        nodes,
        "tagger",
        [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, [batch, side or "side", side or "side", 3])],
        [helper.make_tensor_value_info("sure", TensorProto.FLOAT, [batch, len(ROWS)])],
        [numpy_helper.from_array(table, name) for name, table in tables.items()],
    )
    folder.mkdir(parents=True)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx"
    )
    lines = [f"{number},{name},{category},1" for number, (name, category, _) in enumerate(ROWS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines, ""]))
    return folder
