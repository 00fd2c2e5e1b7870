"""What webuis read in a prompt that are no words."""

from __future__ import annotations

import pytest

from raylora.diffusion.webui import signs_in, tag_name
from raylora.execution.how_to import lora_name


@pytest.mark.parametrize(
    ("prompt", "signs"),
    [
        ("(worst quality:1.4), bad", ["(worst quality:1.4)"]),
        ("a (b: .5) and (c:-2)", ["(b: .5)", "(c:-2)"]),
        ("((word)), (((more)))", ["((word))", "((more))"]),
        ("[less], [a:b:0.5], [x|y]", ["[less]", "[a:b:0.5]", "[x|y]"]),
        (r"hatsune \(series\)", [r"\(", r"\)"]),
        ("a BREAK b AND c", ["BREAK", "AND"]),
        ("<hypernet:x:1>", ["<hypernet:x:1>"]),
        ("hatsune (series), a: b, 1 < 2, break and BREAKFAST", []),
    ],
)
def test_signs_are_found(prompt: str, signs: list[str]) -> None:
    assert signs_in(prompt) == signs


@pytest.mark.parametrize("sign", ["(", "((", "[", "(a:", "\\", "<a:", "(:"])
def test_prompts_of_signs_alone_are_read_at_once(sign: str) -> None:
    """Of a pattern that tries each sign with each other, this would not come to an end."""
    assert len(signs_in(sign * 20_000)) <= 1


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("my lora v1", "my lora v1"),
        ("_mine", "_mine"),
        ("a:b,c", "a_b_c"),
        ('<x> "y"', "_x_ _y_"),
        ("señora", "señora"),
    ],
)
def test_a_file_keeps_the_name_that_a_webui_sees(stem: str, name: str) -> None:
    assert tag_name(stem) == name


def test_a_copy_gets_a_name_that_all_programs_take() -> None:
    assert lora_name("my lora, v1") == "my_lora_v1"
