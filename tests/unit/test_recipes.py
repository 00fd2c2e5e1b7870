"""From options and files of prompts to a recipe for each picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raylora.config import Experiment
from raylora.diffusion.infotext import Recipe
from raylora.errors import ConfigError
from raylora.execution.recipes import Wish, recipes_of

SETTINGS = Experiment().with_params(
    {"dataset.trigger": "sks", "sampling.seeds": (3, 4), "sampling.steps": 9, "sampling.negative_prompt": "dull"}
)


def made(wish: Wish, strength: float = 1.0, experiment: Experiment = SETTINGS) -> list[Recipe]:
    return recipes_of(wish, experiment, strength)


def seeds_of(**wish: Any) -> list[int]:
    return [recipe.seed for recipe in made(Wish(prompts=["a"], **wish))]


def test_settings_say_what_options_do_not() -> None:
    first, second = made(Wish(prompts=["{trigger}, hat"]), strength=0.6)
    assert first == Recipe("sks, hat", "dull", 3, (512, 512), 9, 7.0, 0.6)
    assert second.seed == 4


def test_every_prompt_has_the_same_seeds_at_every_strength() -> None:
    recipes = made(Wish(prompts=["a", "b"], seeds=[7, 8], strengths=[0.0, 1.0]))
    told = [(recipe.strength, recipe.prompt, recipe.seed) for recipe in recipes]
    assert told == [(at, prompt, seed) for at in (0.0, 1.0) for prompt in "ab" for seed in (7, 8)]


def test_a_count_goes_on_from_the_seeds() -> None:
    assert seeds_of() == [3, 4]
    assert seeds_of(count=3) == [3, 4, 5]
    assert seeds_of(count=2, seeds=[10, 20]) == [10, 11, 20, 21]
    assert seeds_of(count=2, seeds=[10, 11]) == [10, 11, 12]


def test_the_settings_prompts_serve_where_none_are_given() -> None:
    experiment = SETTINGS.with_params({"sampling.prompts": ("{trigger} on a bike",)})
    assert {recipe.prompt for recipe in made(Wish(), experiment=experiment)} == {"sks on a bike"}


def test_a_file_has_prompts_with_kohyas_options(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text(
        "\ufeff# of kohya's kind\n\n{trigger} fox -- in fog\n"
        "hat --n low quality, blurry --w 768 --h 512 --d 1 --s 28 --l 7.5\nplain --w 640\n",
        encoding="utf-8",
    )
    fog, _, hat, plain, _ = made(Wish(prompts_file=file))
    assert (fog.prompt, fog.negative_prompt, fog.seed) == ("sks fox -- in fog", "dull", 3)
    assert hat == Recipe("hat", "low quality, blurry", 1, (768, 512), 28, 7.5, 1.0)
    assert plain.size == (640, 512)


def test_sides_may_be_multiples_of_eight() -> None:
    assert made(Wish(prompts=["a"], size="520x768"))[0].size == (520, 768)
    assert made(Wish(prompts=["a"], size="640"))[0].size == (640, 640)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (Wish(), "no prompts: give --prompt"),
        (Wish(prompts=["a", " "]), "--prompt 2: the prompt is empty"),
        (Wish(prompts=["a <lora:x:1>"]), "--prompt 1: the prompt has <lora:…>, by which a webui loads a LoRA"),
        (Wish(prompts=["a <LyCO:x:1>"]), "the prompt has <LyCO:…>"),
        (Wish(prompts=["a\nNegative prompt: b"]), "give that with --negative-prompt"),
        (Wish(prompts=["a\x1bb"]), "control characters"),
        (Wish(prompts=["a\udcffb"]), "no UTF-8"),
        (Wish(prompts=["a"], seeds=[-1]), "--seed: seed -1 must be from 0 to 4294967295"),
        (Wish(prompts=["a"], seeds=[2**32]), "--seed: seed 4294967296 must be"),
        (Wish(prompts=["a"], seeds=[2**32 - 1], count=2), "--seed: seed 4294967296 must be"),
        (Wish(prompts=["a"], count=0), "--count 0: must be from 1"),
        (Wish(prompts=["a"], count=10**9), "--count 1000000000: must be from 1"),
        (Wish(prompts=["a", "b"], count=9000), "these are 18,000 pictures"),
        (Wish(prompts=["a"], batch_size=0), "--batch-size 0: must be 1 or more"),
        (Wish(prompts=["a"], strengths=[float("nan")]), "--strength nan: must be from -10 to 10"),
        (Wish(prompts=["a"], strengths=[1, 11]), "--strength 11: must be from -10 to 10"),
        (Wish(prompts=["a"], size="500x300"), "--size: 500x300: both sides must be multiples of 8 px"),
        (Wish(prompts=["a"], size="500x300"), "use 496x304"),
        (Wish(prompts=["a"], size="0"), "use 64x64"),
        (Wish(prompts=["a"], size="100000"), "use 4096x4096"),
        (Wish(prompts=["a"], size="wide"), "--size wide: must be a width and a height"),
    ],
)  # fmt: skip
def test_what_no_picture_can_have_is_refused(wish: Wish, told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        made(wish)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "holds no prompts"),
        (b"# only a word\n\n", "holds no prompts"),
        (b"h\xe9llo", "is not UTF-8 text"),
        (b"a\nb --ss euler_a", "line 2: --ss is no option of a prompt; known are --n"),
        (b"a --d soon", "line 1: --d soon: must be a whole number"),
        (b"a --l high", "line 1: --l high: must be a number"),
        (b"a --l nan", "line 1: a guidance scale of nan"),
        (b"a --d -3", "line 1: seed -3 must be from 0"),
        (b"a --s 0", "line 1: 0 steps; they must be from 1 to 1000"),
        (b"a --w 515", "line 1: 515x512: both sides must be multiples of 8 px"),
        (b"a --w 0", "line 1: 0x512"),
        (b"--n alone", "line 1: the prompt is empty"),
        (b"a --d", "line 1: --d : must be a whole number"),
    ],
)
def test_a_files_faults_are_told_with_their_line(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        made(Wish(prompts_file=tmp_path / "prompts.txt"))
    assert told in str(refused.value) and "prompts.txt" in str(refused.value)


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_file_that_cannot_be_read_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--prompts"):
        made(Wish(prompts_file=tmp_path / name))


def test_capitals_and_tabs_serve_as_in_kohyas_files(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("fox --W 640 --H\t512 --n\tblurry, dull --D  5 --n\nhat --N blurry")
    fox, hat, _ = made(Wish(prompts_file=file))
    assert (fox.size, fox.negative_prompt, fox.seed) == ((640, 512), "", 5)
    assert hat.negative_prompt == "blurry"


@pytest.mark.parametrize(("name", "form"), [("p.toml", "TOML"), ("p.JSON", "JSON")])
def test_kohyas_other_forms_are_not_drawn_line_by_line(name: str, form: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("[prompt]\nwidth = 512\n")
    with pytest.raises(ConfigError, match=f"prompts in {form} are not read here; write them into a .txt file"):
        made(Wish(prompts_file=tmp_path / name))


def test_the_trigger_stands_in_negative_prompts_too(tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("{trigger} --n old {trigger}\nhat\n")
    experiment = SETTINGS.with_params({"sampling.negative_prompt": "{trigger}, dull", "sampling.seeds": (1,)})
    told = [(one.prompt, one.negative_prompt) for one in made(Wish(prompts_file=tmp_path / "prompts.txt"),
                                                             experiment=experiment)]  # fmt: skip
    assert told == [("sks", "old sks"), ("hat", "sks, dull")]


@pytest.mark.parametrize("negative", ["", "{trigger}"])
def test_a_trigger_that_loads_something_is_refused_where_it_is_used(negative: str) -> None:
    """It comes out of a file that anybody may have written."""
    experiment = SETTINGS.with_params({"dataset.trigger": "x <lora:evil:1>", "sampling.negative_prompt": negative})
    with pytest.raises(ConfigError, match=r"has <lora:…>, by which a webui loads a LoRA"):
        made(Wish(prompts=["hat" if negative else "{trigger}"]), experiment=experiment)
    assert made(Wish(prompts=["hat"]), experiment=experiment.with_params({"sampling.negative_prompt": ""}))


def test_a_trigger_that_is_not_known_is_asked_for() -> None:
    with pytest.raises(ConfigError, match=r"--set dataset\.trigger=WORD"):
        made(Wish(prompts=["{trigger}"]), experiment=Experiment())
