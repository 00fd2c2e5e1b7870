"""Stage `tokenizer`: a small byte-pair vocabulary of the captions, in CLIPTokenizer's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

from demo.drawings import read_captions, style_folder
from demo.settings import MAX_TOKENS, STYLES, Workshop, write_folder

# An upper bound: merges must occur MIN_FREQUENCY times, and the captions run out of those at 800 tokens.
VOCABULARY_LIMIT, MIN_FREQUENCY = 1000, 5
START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
ALPHABET = list("abcdefghijklmnopqrstuvwxyz0123456789!?.,-_:;()'\"/&+#@")
# Words that users of the demo may write though no base caption has them (trigger words, other styles).
MORE_WORDS = (
    "a photo of sks adventurer portrait of a person with abcdefghijklmnopqrstuvwxyz 0 1 2 3 4 5 6 7 8 9"
    " ! ? . - _ : ; ( ) ' \" / & + dylan lorelei style character long hat cap ohwx"
)
MORE_WORDS_TIMES = 5


def train_tokenizer(shop: Workshop) -> None:
    """Learns the vocabulary from the training captions and writes the tokenizer's folder."""
    count = shop.recipe.drawings
    captions = [text for style in STYLES for _, text in read_captions(style_folder(shop, style))[:count]]
    model = _learn_merges(captions + [MORE_WORDS] * MORE_WORDS_TIMES)
    write_folder(shop.part("tokenizer"), lambda folder: _write_clip_files(model, folder))
    print(f"  {len(model['vocab'])} tokens", flush=True)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a folder, as transformers' CLIPTokenizer (untyped upstream)."""
    return CLIPTokenizer.from_pretrained(folder)


def token_ids(tokenizer: Any, captions: list[str]) -> Tensor:
    """Ids, int64 [N, 32], padded or cut to the model's length."""
    encoded = tokenizer(captions, padding="max_length", truncation=True, max_length=MAX_TOKENS)
    return torch.tensor(encoded["input_ids"])


def _learn_merges(texts: list[str]) -> dict[str, Any]:
    """BPE model as plain data: `vocab` (token -> id) and `merges`."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix=WORD_END))
    tokenizer.normalizer = normalizers.Lowercase()
    pieces = Regex(r"[a-z]+|[0-9]|[^\sa-z0-9]+")  # CLIP's own split, less contractions
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pieces, "removed", invert=True)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_LIMIT,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[START, END],
        end_of_word_suffix=WORD_END,
        initial_alphabet=ALPHABET,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    model["vocab"] = _ordered_vocabulary(model["merges"])
    return model


def _ordered_vocabulary(merges: list[Any]) -> dict[str, int]:
    """Ids in the order: special tokens, letters, letters that end a word, then each merge's result.

    The trainer numbers the letters in an order that changes from run to run; this one does not.
    """
    letters = [*ALPHABET, *(letter + WORD_END for letter in ALPHABET)]
    merged = ["".join(pair) if isinstance(pair, list) else pair.replace(" ", "") for pair in merges]
    tokens = dict.fromkeys([START, END, *letters, *merged])
    return {token: number for number, token in enumerate(tokens)}


def _write_clip_files(model: dict[str, Any], folder: Path) -> None:
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, **special}
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
