"""Edits of the line to blame: what is written in place of what, and where nothing is."""

from __future__ import annotations

import textwrap

import pytest

from repro_audit.fixes import propose
from repro_audit.fixes.code import Code
from repro_audit.sources import catalogue

SEEDED = "def build(seed):\n    torch.manual_seed(seed)\n    "


def rewritten(source: str, program: str, *lines: int, target: str = "build") -> str | None:
    """The program with the fix of a source for some lines; for the last one where none is given."""
    text = textwrap.dedent(program)
    chosen = lines or (len(text.splitlines()),)
    code = Code(file="train.py", text=text, lines=chosen, target=target)
    proposal = propose(catalogue()[source].remedies, code)
    return None if proposal is None else proposal.text


@pytest.mark.parametrize(
    ("source", "line", "fixed"),
    [
        ("hash-seed", "x = [w for w in set(words)]", "x = [w for w in sorted(set(words))]"),
        ("hash-seed", "x = list({1, 2} | more)", "x = list(sorted({1, 2} | more))"),
        ("hash-seed", "for w in frozenset(words): pass", "for w in sorted(frozenset(words)): pass"),
        ("hash-seed", "x = ' '.join(set(words))", "x = ' '.join(sorted(set(words)))"),
        ("object-address", "for p in set(model): pass", "for p in dict.fromkeys(model): pass"),
        (
            "object-address",
            "x = [p for p in {f(n) for n in y}]",
            "x = [p for p in dict.fromkeys(f(n) for n in y)]",
        ),
        ("object-address", "x = list({a, b})", "x = list(dict.fromkeys([a, b]))"),
        (
            "file-order",
            "x = [f for f in here.iterdir()]",
            "x = [f for f in sorted(here.iterdir())]",
        ),
        ("file-order", "x = list(here.glob('*'))", "x = list(sorted(here.glob('*')))"),
        ("python-rng", "random.shuffle(x)", None),
        ("os-entropy", "g = Random()", None),
    ],
)
def test_a_line(source: str, line: str, fixed: str | None) -> None:
    assert rewritten(source, f"{line}\n") == (None if fixed is None else f"{fixed}\n")


@pytest.mark.parametrize(
    ("imports", "line", "fixed"),
    [
        ("import numpy as np", "g = np.random.default_rng()", "g = np.random.default_rng(seed)"),
        ("import numpy as np", "g = np.random.default_rng(None)", "g = np.random.default_rng(seed)"),
        ("import numpy as np", "g = np.random.default_rng(seed=None)", "g = np.random.default_rng(seed=seed)"),
        ("import numpy as np", "g = np.random.default_rng(3)", None),
        ("from numpy.random import default_rng", "g = default_rng()", "g = default_rng(seed)"),
        ("from random import Random", "g = Random()", "g = Random(seed)"),
        ("import random", "g = random.SystemRandom()", "g = random.Random(seed)"),
        ("import torch", "torch.seed()", "torch.manual_seed(seed)"),
        ("import torch", "g.seed()", "g.manual_seed(seed)"),
        ("import os", "my_seed = int.from_bytes(os.urandom(4), 'big')", "my_seed = seed"),
        ("import os", "name = os.urandom(4)", None),
        ("import gymnasium", "env.reset()", "env.reset(seed=seed)"),
        ("import optuna", "s = optuna.create_study()", 's = optuna.create_study(study_name="study")'),
        ("import optuna", "s = optuna.create_study(study_name='a')", None),
    ],
)  # fmt: skip
def test_a_line_that_draws_from_the_operating_system(
    imports: str, line: str, fixed: str | None
) -> None:
    head = f"{imports}\ndef build(seed):\n    "
    got = rewritten("os-entropy", f"{head}{line}\n")
    assert got == (None if fixed is None else f"{head}{fixed}\n")


@pytest.mark.parametrize(
    ("imports", "line", "fixed"),
    [
        (
            "from sklearn.model_selection import train_test_split",
            "a, b = train_test_split(\n        x,\n        test_size=2,\n    )",
            "a, b = train_test_split(\n        x,\n        test_size=2, random_state=seed,\n    )",
        ),
        (
            "import pandas",
            "x = frame.sample(frac=1)",
            "x = frame.sample(frac=1, random_state=seed)",
        ),
    ],
)
def test_a_call_that_takes_a_random_state(imports: str, line: str, fixed: str) -> None:
    head = f"{imports}\ndef build(seed):\n    "
    assert rewritten("numpy-rng", f"{head}{line}\n", 4 if "\n" in line else 3) == f"{head}{fixed}\n"


MADE = "import gymnasium as gym\ndef build(seed):\n    env = gym.make('CartPole-v1')\n"
METHODS = """\
import gymnasium as gym

class Agent:
    def __init__(self, seed):
        self.env = gym.make("CartPole-v1")

    def train(self):
        self.env.reset()
        return self.env.action_space.sample()
"""


def test_an_environment_is_seeded_once_where_its_reset_is_repeated() -> None:
    loop = "    for _ in range(9):\n        x, _ = env.reset()\n"
    assert rewritten("os-entropy", MADE + loop) == f"{MADE}    env.reset(seed=seed)\n{loop}"
    assert rewritten("os-entropy", f"{MADE}    x, _ = env.reset()\n") == (
        f"{MADE}    x, _ = env.reset(seed=seed)\n"
    )
    episode = "def episode(env):\n    return env.reset()\n"
    assert rewritten("os-entropy", MADE + episode) == f"{MADE}    env.reset(seed=seed)\n{episode}"
    unknown = "def episodes(env):\n    return [env.reset() for _ in range(9)]\n"
    assert rewritten("os-entropy", unknown) is None


def test_a_space_is_seeded_beside_its_environment() -> None:
    loop = "    for _ in range(9):\n        a = env.action_space.sample()\n"
    assert rewritten("os-entropy", MADE + loop) == (
        f"{MADE}    env.action_space.seed(seed)\n{loop}"
    )
    space = "from gymnasium.spaces import Discrete\nspace = Discrete(3)\n"
    assert rewritten("os-entropy", f"{space}a = space.sample()\n") == (
        f"{space}space.seed(0)\na = space.sample()\n"
    )
    assert rewritten("os-entropy", "import torch\nx = f()\na = x.sample()\n") is None


def test_all_that_an_agent_draws_from_is_seeded() -> None:
    made = '        self.env = gym.make("CartPole-v1")\n'
    seeded = "        self.env.reset(seed=seed)\n        self.env.action_space.seed(seed)\n"
    both = rewritten("os-entropy", METHODS, 8, 9)
    assert both in {
        METHODS.replace(made, made + seeded),
        METHODS.replace(made, made + "".join(reversed(seeded.splitlines(keepends=True)))),
    }


def test_each_line_has_the_first_remedy_that_fits_it() -> None:
    program = "import numpy as np, torch\na = np.random.default_rng()\ntorch.seed()\n"
    assert rewritten("os-entropy", program, 2, 3) == program.replace(
        "default_rng()", "default_rng(0)"
    ).replace("torch.seed()", "torch.manual_seed(0)")


def test_transforms_that_draw_from_pytorch_are_seeded_by_it() -> None:
    program = (
        "from torchvision.transforms import v2\n\ndef build():\n"
        "    augment = v2.RandomHorizontalFlip()\n    return augment(x)\n"
    )
    assert rewritten("torch-rng", program) == "import torch\n" + program.replace(
        "    augment =", "    torch.manual_seed(0)\n    augment ="
    )


def test_a_hash_becomes_a_digest_that_is_imported() -> None:
    program = '"""A program."""\nimport os\nkeep = hash(name) % 10 < 8\n'
    assert rewritten("hash-seed", program) == (
        '"""A program."""\nimport zlib\nimport os\nkeep = zlib.crc32(str(name).encode()) % 10 < 8\n'
    )


def test_a_name_that_stands_for_a_set() -> None:
    program = (
        "def f(text):\n    words = set(text)\n    return {w: n for n, w in enumerate(words)}\n"
    )
    assert "enumerate(sorted(words))" in str(rewritten("hash-seed", program))
    assert rewritten("hash-seed", program.replace("set(text)", "list(text)")) is None


def test_what_is_in_order_already_stays() -> None:
    assert rewritten("file-order", "import os\nx = sorted(os.listdir('.'))\n") is None
    assert rewritten("hash-seed", "x = sum(w for w in set(words))\n") is None
    assert rewritten("hash-seed", "x = sorted(set(words))\n") is None


def test_seeds_stand_where_another_library_is_seeded() -> None:
    program = "import random\nimport numpy as np\n\ndef f(s):\n    random.seed(s)\n    return np.random.rand()\n"
    assert rewritten("numpy-rng", program) == program.replace(
        "    random.seed(s)\n", "    random.seed(s)\n    np.random.seed(s)\n"
    )


def test_seeds_stand_where_the_program_starts() -> None:
    program = "from torch import nn\n\ndef build():\n    return nn.Linear(2, 1)\n"
    assert rewritten("torch-rng", program, 4) == (
        "import torch\nfrom torch import nn\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return nn.Linear(2, 1)\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        "torch.manual_seed(int(time.time()))",
        "seed = time.time_ns() % 2**32",
        "train(seed=int(time.time()))",
    ],
)
def test_a_seed_of_the_time(line: str) -> None:
    text = rewritten("clock", f"import time, torch\n{line}\n")
    assert text is not None
    assert "time.time" not in text


def test_a_time_that_seeds_nothing_stays() -> None:
    assert rewritten("clock", "import time\nage = time.time() - born\n") is None


def test_results_in_the_order_of_their_asking() -> None:
    head = "from concurrent.futures import as_completed\nasked = [pool.submit(f, n) for n in x]\n"
    program = f"{head}done = [each.result() for each in as_completed(asked)]\n"
    assert rewritten("thread-timing", program) == program.replace("as_completed(asked)]", "asked]")
    assert (
        rewritten("thread-timing", program.replace("[pool", "{pool").replace("in x]", "in x}"))
        is None
    )


def test_all_lines_that_may_share_the_blame() -> None:
    program = "import numpy as np\na = np.random.default_rng()\nb = np.random.default_rng()\n"
    assert rewritten("os-entropy", program, 3, 2) == program.replace("()", "(0)")


def test_text_that_is_not_ascii_and_carriage_returns() -> None:
    program = 'import os\r\nx = "\u00e4\u00f6"; y = os.listdir("\u00fc")\r\n'
    expected = program.replace('os.listdir("\u00fc")', 'sorted(os.listdir("\u00fc"))')
    assert rewritten("file-order", program, 2) == expected


def test_what_is_no_python_is_left_alone() -> None:
    assert rewritten("file-order", "import os\nx = os.listdir(\n", 2) is None


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        (
            '"""A script."""\nimport torch\n\ndef step():\n    pass\n\nx = torch.randn(3)\n',
            "torch.manual_seed(0)\nx = torch.randn(3)",
        ),
        (
            "import torch\n\ndef main():\n    return torch.randn(3)\n\nif __name__ == '__main__':\n    main()\n",
            "if __name__ == '__main__':\n    torch.manual_seed(0)\n    main()",
        ),
    ],
    ids=["at once", "behind the guard"],
)
def test_a_script_is_seeded_where_it_starts(text: str, edited: str) -> None:
    line = next(n for n, each in enumerate(text.splitlines(), 1) if "randn" in each)
    code = Code(file="train.py", text=text, lines=(line,), is_script=True)
    proposal = propose(catalogue()["torch-rng"].remedies, code)
    assert proposal is not None
    assert edited in proposal.text
