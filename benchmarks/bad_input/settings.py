"""Settings files, search spaces and `--set`."""

from __future__ import annotations

import os
import shlex

from benchmarks.bad_input.kinds import FINE, PLAN, REFUSED, TRAIN, Kind, Make, links, nothing, writes

FILE, SPACE = "bad.yaml", "bad_space.yaml"
RUN = "train bad.yaml --dry-run --base-model @BASE@ --out out"
SEARCH = f"tune good.yaml --space {SPACE} --dry-run --out out"
ALIASES = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{number}: &a{number} [{', '.join([f'*a{number - 1}'] * 9)}]\n" for number in range(1, 12)
)
"""A billion laughs: 300 bytes, 9^12 entries."""
DEEP = "[" * 5000 + "]" * 5000
PYTHON = "lora: !!python/object/apply:os.system ['touch pwned']\n"


TEXTS: dict[str, bytes | str] = {
    "binary": bytes(range(256)),
    "a picture": b"\x89PNG\r\n\x1a\n\0\0",
    "latin-1": "lora: {rank: 4} # h\xe9".encode("latin-1"),
    "NUL": "lora:\0 {rank: 4}\n",
    "control characters": "lora: {rank: \x07}\n",
    "tabs": "lora:\n\trank: 4\n",
    "an open bracket": "lora: {rank: 4\n",
    "an unknown alias": "lora: *base\n",
    "an alias of itself": "lora: &a [*a]\n",
    "a mapping of itself": "lora: &a {rank: *a}\n",
    "aliases by the billion": ALIASES,
    "aliases by the billion in a section": ALIASES.replace("a0:", "lora:\n  a0:").replace("\na", "\n  a"),
    "deep lists": f"lora: {DEEP}",
    "deep mappings": "lora: " + "{a: " * 3000 + "1" + "}" * 3000,
    "a python object": PYTHON,
    "a python name": "lora: !!python/name:os.system\n",
    "a python module": "lora: !!python/module:antigravity\n",
    "an unknown tag": "lora: !evil {rank: 4}\n",
    "a binary tag": "lora: {rank: !!binary aGVsbG8=}\n",
    "a set": "lora: !!set {rank, alpha}\n",
    "the same key twice": "lora: {rank: 4, rank: 8}\n",
    "the same section twice": "lora: {rank: 4}\noptimizer: {name: lion}\nlora: {alpha: 8}\n",
    "a list on top": "- lora\n- rank\n",
    "a word on top": "lora\n",
    "a number on top": "5\n",
    "two documents": "lora: {rank: 4}\n---\nlora: {rank: 8}\n",
    "numbers as keys": "5: {rank: 4}\n",
    "a null key": "~: {rank: 4}\n",
    "a list as a key": "? [a, b]\n: 1\n",
    "numbers as keys below": "lora: {5: 4}\n",
    "an impossible date": "lora: {rank: 2026-13-45}\n",
    "a date": "lora: {rank: 2026-01-01}\n",
    "a sexagesimal number": "lora: {rank: 1:30:00}\n",
    "a number of 5,000 digits": f"lora: {{rank: {'9' * 5000}}}\n",
    "an integer beyond any": f"seed: {10**30}\n",
    "not a number": "lora: {alpha: .nan}\n",
    "infinite": "lora: {alpha: .inf}\n",
    "less than all": "optimizer: {learning_rate: -.inf}\n",
    "1e400": "lora: {alpha: 1e400}\n",
    "JSON's NaN": '{"lora": {"alpha": NaN}}',
    "yes for a number": "lora: {rank: yes}\n",
    "text for a number": "lora: {rank: four}\n",
    "a list for a number": "lora: {rank: [4]}\n",
    "a mapping for a number": "lora: {rank: {value: 4}}\n",
    "a number for a section": "lora: 5\n",
    "a list for a section": "lora: [rank, 4]\n",
    "unknown sections": "loras: {rank: 4}\n",
    "unknown settings": "lora: {rnak: 4}\n",
    "1,000 unknown settings": "lora:\n" + "".join(f"  bad{number}: 1\n" for number in range(1000)),
    "dotted keys": "lora.rnak: 4\n",
    "a key of 1 MB": f"{'a' * 10**6}: 1\n",
    "a value of 1 MB": f"lora: {{rank: {'a' * 10**6}}}\n",
    "a path with NUL": 'dataset: {path: "pictures\\0"}\n',
    "an encoder with NUL": 'evaluation: {encoder: "base\\0"}\n',
    "a path of 5,000 letters": f"dataset: {{path: {'a' * 5000}}}\n",
    "a path of 5,000 folders": f"dataset: {{path: {'a/' * 5000}}}\n",
    "a path that is a lone surrogate": 'dataset: {path: "\\ud800"}\n',
    "a path with line breaks": 'dataset: {path: "bad\\n\\nraylora: error: faked"}\n',
    "a path that steers the terminal": 'dataset: {path: "\\e]0;title\\a"}\n',
    "empty paths": "dataset: {path: ''}\nmodel: {base_model: ''}\n",
    "a blank path": "dataset: {path: ' '}\n",
    "INI": "[lora]\nrank = 4\n",
    "TOML": "lora.rank = 4\n[model]\nbase_model = 'x'\n",
    "XML": "<lora rank='4'/>",
    "templates": "lora: {rank: {{ rank }}}\n",
    "10 MB of settings": "lora: {rank: 4}\n" + "# a long comment indeed\n" * 450_000,
    "a list of 200,000": f"evaluation: {{timesteps: [{', '.join(['5'] * 200_000)}]}}\n",
    "timesteps of no kind": "evaluation: {timesteps: [one, 2.5, null, [3]]}\n",
    "prompts of no kind": "sampling: {prompts: [1, null]}\n",
    "an encoder of no kind": "evaluation: {encoder: 5}\n",
    "own code that is gone": "evaluation: {encoder: 'gone.module:Class'}\n",
    "block ranks of no kind": "lora: {block_ranks: {down_blocks.0: many}}\n",
    "a block rank beyond any": f"lora: {{block_ranks: {{down_blocks.0: {10**30}}}}}\n",
}


def files() -> list[Kind]:
    """Experiment files that are no YAML, or YAML of another world."""
    return [
        Kind(f"settings/{what}", RUN if "path" in what else f"{RUN} --dataset pictures", writes(FILE, text))
        for what, text in TEXTS.items()
    ]


def _pipe(name: str) -> Make:
    return lambda folder: os.mkfifo(folder / name)


def _folder(name: str) -> Make:
    return lambda folder: (folder / name).mkdir()


def places() -> list[Kind]:
    """Things where a settings file or a search space should be."""
    found = []
    for what, name, line in (("settings", FILE, RUN), ("space", SPACE, SEARCH)):
        here: list[tuple[str, Make]] = [
            ("missing", nothing),
            ("a folder", _folder(name)),
            ("a pipe", _pipe(name)),
            ("a link that loops", links(name, name)),
            ("a link to nothing", links(name, "gone")),
            ("an endless device", links(name, "/dev/zero")),
            ("a device without end of noise", links(name, "/dev/urandom")),
        ]
        found += [Kind(f"{what} as/{kind}", line, make, REFUSED, ("bad",)) for kind, make in here]
    return [
        *found,
        Kind(
            "settings as/the empty file",
            "train bad.yaml --dry-run --out out",
            writes(FILE, ""),
            REFUSED,
            ("no dataset",),
        ),
        Kind("settings as/a path of 5,000 letters", f"train {'a' * 5000} --dry-run", tells=("aaa",)),
        Kind("settings as/a path through a file", "train good.yaml/bad.yaml --dry-run", tells=("bad.yaml",)),
        Kind("settings as/nothing", "train '' --dry-run"),
        Kind("settings as/a URL", "train https://example.com/bad.yaml --dry-run", tells=("bad.yaml",)),
        Kind("space as/a path of 5,000 letters", f"tune good.yaml --space {'a' * 5000}.yaml --dry-run", tells=("aaa",)),
        Kind("space as/nothing", "tune good.yaml --space '' --dry-run", status=FINE),
        Kind("space as/a URL", "tune good.yaml --space https://example.com/bad.yaml --dry-run", tells=("bad.yaml",)),
        Kind(
            "space as/a function's module that ends the program",
            "tune good.yaml --space bad:space --dry-run",
            writes("bad.py", "raise SystemExit(0)\n"),
            tells=("bad:space",),
        ),
        Kind(
            "space as/a function that ends the program",
            "tune good.yaml --space bad:space --dry-run",
            writes("bad.py", "import sys\ndef space(trial):\n    sys.exit(0)\n"),
            tells=("bad:space",),
        ),
        Kind(
            "space as/a function that calls itself",
            "tune good.yaml --space bad:space --dry-run",
            writes("bad.py", "def space(trial):\n    return space(trial)\n"),
            tells=("bad:space",),
        ),
    ]


def spaces() -> list[Kind]:
    """Search spaces with every field wrong in turn."""

    def searched(text: str) -> str:
        return f"name: bad\nparameters:\n  lora.rank: {text}\n"

    texts: dict[str, str] = {
        "empty": "",
        "no name": "parameters: 5\n",
        "a name of no kind": "name: [bad]\nparameters: {lora.rank: {choices: [2, 4]}}\n",
        "nothing to search": "name: bad\n",
        "parameters as a list": "name: bad\nparameters: [lora.rank]\n",
        "an unknown field": "name: bad\nparams: {lora.rank: {choices: [2, 4]}}\n",
        "a parameter of no kind": searched("5"),
        "a parameter of nothing": searched("{}"),
        "an unknown key": searched("{choices: [2, 4], wehn: {}}"),
        "choices of no kind": searched("{choices: 4}"),
        "no choices": searched("{choices: []}"),
        "choices of mixed kinds": searched("{choices: [2, four, null, [8]]}"),
        "choices that can't be": searched("{choices: [0, -4]}"),
        "choices as mappings": searched("{choices: [{a: 1}]}"),
        "50,000 choices that can't be": searched(f"{{choices: [{', '.join(['x'] * 50_000)}]}}"),
        "low above high": searched("{low: 8, high: 2}"),
        "low alone": searched("{low: 8}"),
        "bounds of no kind": searched("{low: few, high: many}"),
        "bounds that are no numbers": searched("{low: .nan, high: .inf}"),
        "a logarithm of 0": searched("{low: 0, high: 8, log: true}"),
        "log of no kind": searched("{low: 2, high: 8, log: maybe}"),
        "bounds and choices": searched("{low: 2, high: 8, choices: [2, 4]}"),
        "a step of 0": searched("{low: 2, high: 8, step: 0}"),
        "a ratio of itself": searched("{ratio_of: lora.rank, choices: [1, 2]}"),
        "a ratio of nothing": searched("{ratio_of: lora.rnak, choices: [1, 2]}"),
        "a ratio of a name": searched("{ratio_of: optimizer.name, choices: [1, 2]}"),
        "a condition on itself": searched("{choices: [2, 4], when: {lora.rank: 2}}"),
        "a condition on nothing": searched("{choices: [2, 4], when: {lora.rnak: 2}}"),
        "a condition of no kind": searched("{choices: [2, 4], when: 5}"),
        "conditions in a circle": "name: bad\nparameters:\n  lora.rank: {choices: [2, 4], when: {lora.alpha: 2}}\n"
        "  lora.alpha: {choices: [2, 4], when: {lora.rank: 2}}\n",
        "a scale of no kind": searched("{low: 2, high: 8, scale: big}"),
        "a scale by nothing": searched("{low: 2, high: 8, scale: {lora.rnak: {x: 1}}}"),
        "a scale of 0": searched("{low: 2, high: 8, scale: {optimizer.name: {adamw: 0}}}"),
        "what can't be searched": "name: bad\nparameters: {dataset.path: {choices: [pictures, /etc]}}\n",
        "a section": "name: bad\nparameters: {lora: {choices: [2, 4]}}\n",
        "first points of no kind": searched("{choices: [2, 4]}") + "first_points: 5\n",
        "a first point elsewhere": searched("{choices: [2, 4]}") + "first_points: [{lora.rank: 3}]\n",
        "a first point of what isn't searched": searched("{choices: [2, 4]}") + "first_points: [{seed: 3}]\n",
        "a first point of no kind": searched("{choices: [2, 4]}") + "first_points: [{lora.rank: [2]}]\n",
        "an experiment of no kind": searched("{choices: [2, 4]}") + "experiment: 5\n",
        "an experiment with unknown settings": searched("{choices: [2, 4]}") + "experiment: {lora: {rnak: 5}}\n",
        "a function and parameters": searched("{choices: [2, 4]}") + "function: 'os:system'\n",
        "a function of no kind": "name: bad\nfunction: 5\n",
        "a function that is gone": "name: bad\nfunction: 'gone:space'\n",
        "a function that takes no trial": "name: bad\nfunction: 'os:getcwd'\n",
        "fixed of no kind": searched("{choices: [2, 4]}") + "fixed: [lora.rank]\n",
        "aliases by the billion": ALIASES,
        "a python object": PYTHON,
        "the same key twice": searched("{choices: [2, 4]}") + "  lora.rank: {choices: [8]}\n",
    }
    return [Kind(f"space/{what}", SEARCH, writes(SPACE, text), REFUSED) for what, text in texts.items()]


REFUSED_VALUES = [
    "",
    "=",
    "=5",
    "lora.rank",
    "lora.rank=",
    ".=5",
    "lora.=5",
    ".rank=5",
    "lora..rank=4",
    "lora.rank.=4",
    "lora.rank=[",
    "lora.rank=4 5",
    "lora.rank=0x",
    "lora.rank=1e9999",
    "lora.rank=.nan",
    "lora.rank==4",
    "lora.rank=!!python/object/apply:os.system ['touch pwned']",
    "lora.rank=&a [*a]",
    "lora.rank=*a",
    "lora.rank=\x1b]0;bad\x07",
    "lora.rank=\udcff",
    "l\udcffra.rank=4",
    "lora.rank=" + "9" * 5000,
    "lora.rank=" + DEEP,
    "lora." + "a." * 2000 + "b=5",
    "a" * 100_000 + "=5",
    "lora={rank: 4, rank: 8}",
    "dataset=pictures",
    "__class__.x=1",
    "lora.__dict__=1",
    "lora.model_config=1",
    "seed=-1",
    "seed=1.5",
    "training.epochs=-1",
    "training.epochs=0",
    "training.batch_size=0",
    "training.repeats=-3",
    "training.max_images=0",
    "dataset.resolution=-1",
    "dataset.resolution=1000000",
    "dataset.resolution=64x1000000000",
    "dataset.holdout_fraction=2",
    "dataset.caption_dropout=-0.1",
    "dataset.folds=1000000",
    "sampling.steps=0",
    "sampling.width=5",
    "evaluation.timesteps=[]",
    "evaluation.encoder=",
    "evaluation.encoder=:",
    "evaluation.encoder=os:system",
    "evaluation.encoder=../../../etc",
    "optimizer.name=os:system",
    "optimizer.name=os:getcwd",
    "optimizer.arguments={betas: [2, 3]}",
    "optimizer.arguments.lr=x",
    "optimizer.weight_decay=-1",
    "model.family=flux",
    "model.clip_skip=0",
    "model.prediction_type=sample",
    "search.trials=0",
    "search.trials=1e6",
    "search.trials=100000000",
    "search.reduction_factor=0",
    "search.grace_period=0",
    "search.limits={lora_mb: -1}",
    "tracking.experiment=",
    "tracking.register_name=../bad",
    "lora.rank=10000000000",
    "training.repeats=1000000000000",
]


def assignments() -> list[Kind]:
    """`--set` in all its oddity."""
    fine = [
        "lora.rank={}",
        "lora=null",
        "dataset.resolution=[64]",
        "dataset.trigger=",
        "sampling.seeds=[-1]",
        "training.epochs=10000000000",
        "training.batch_size=100000000",
        "evaluation.batch_size=10000000000000",
    ]

    def name(text: str) -> str:
        return ascii(text if len(text) < 60 else f"{text[:30]}… of {len(text)}")

    return [Kind(f"--set/{name(text)}", f"{PLAN} --set {shlex.quote(text)}") for text in REFUSED_VALUES] + [
        Kind(f"--set and trained/{text}", f"{TRAIN} --set {text}", status=FINE) for text in fine
    ]


def options() -> list[Kind]:
    """What a shell or a hurried hand gives."""
    lines = [
        "tun",
        "--bad",
        "tune --bad",
        "tune good.yaml more.yaml",
        "tune good.yaml --trials",
        "resume",
        "evaluate",
        "tune good.yaml --trials 1e3",
        "tune good.yaml --gpus-per-trial many",
        "tune good.yaml --gpus-per-trial nan",
        "tune good.yaml --gpus-per-trial inf",
        "tune good.yaml --gpus-per-trial -1",
        "tune good.yaml --out",
        "tune good.yaml --space small.yaml --trials 99999999999999999999 --dry-run",
        "export a.safetensors --to kohya",
        "tune good.yaml --set",
        "train --set lora.rank=4 --dry-run",
        "tune --demo --dry-run --base-model '' --out out",
        "train good.yaml --dataset '' --dry-run",
    ]
    return [Kind(f"usage/{line}", line, status=REFUSED) for line in lines] + [
        Kind("usage/--help", "--help", status=FINE),
        Kind("usage/--version", "--version", status=FINE),
        Kind("usage/a demo beside a good dataset", f"{PLAN} --demo --dataset pictures", status=FINE),
    ]


def kinds() -> list[Kind]:
    """All of them."""
    return [*files(), *places(), *spaces(), *assignments(), *options()]
