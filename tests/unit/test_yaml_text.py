"""YAML that settings never are."""

from __future__ import annotations

import pytest

from raylora.yaml_text import DEEPEST, load_yaml

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 12)
)


def test_plain_values_are_read() -> None:
    assert load_yaml("lora: {rank: 4, alpha: 1e-3}\nprompts: [a, 'b']\n") == {
        "lora": {"rank": 4, "alpha": "1e-3"},
        "prompts": ["a", "b"],
    }


def test_aliases_and_merged_keys_are_read() -> None:
    text = "base: &base {rank: 4, alpha: 2}\nlora: {<<: *base, alpha: 8}\nmore: [*base, *base]\n"
    assert load_yaml(text)["lora"] == {"rank": 4, "alpha": 8}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LAUGHS, "more than 100,000 values"),
        ("a: &a [*a]", "stands within itself"),
        ("a: &a {b: *a}", "stands within itself"),
        ("a: *b", "undefined alias"),
        ("[" * 5000 + "]" * 5000, f"more than {DEEPEST} deep"),
        ("{a: " * 5000 + "1" + "}" * 5000, f"more than {DEEPEST} deep"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice"),
        ("a: {b: 1, b: 2}", "the key 'b' stands twice"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: 2026-13-45", "month must be in 1..12"),
        ("a: [", "line 1, column 5: expected the node content"),
        ("a: 1\n  b: 2\n", "line 2, column 4: mapping values are not allowed here"),
        ("a: 1\nb: 2\n]", "line 3, column 1: expected <block end>, but found ']'"),
        ("a: 1\nb: \x07", "line 2: the character U+0007"),
        ("a: 1\n---\nb: 2", "expected a single document in the stream, but found another document"),
    ],
)
def test_what_can_be_no_settings_is_told_in_a_line(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{1,300}$") as caught:
        load_yaml(text)
    assert told in str(caught.value)
