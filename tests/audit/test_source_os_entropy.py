"""`os-entropy`: what it feeds from its streams, whose lines it names, and what an audit says of programs that draw."""

from __future__ import annotations

import io
import multiprocessing
import os
import random
import secrets
import tempfile
import textwrap
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from repro_audit.sources._ambient import OTHER
from repro_audit.sources.os_entropy import ID, SOURCE
from tests.auditing import check, write_target
from tests.sourcing import context, in_force
from tests.trials import lab

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.sharing import Interpreters

pytestmark = pytest.mark.usefixtures("shared_interpreters")

DRAWS: dict[str, Callable[[], Any]] = {
    "os.urandom": lambda: os.urandom(8),
    "os.getrandom": lambda: os.getrandom(8),
    "open": lambda: read("/dev/urandom"),
    "Path.open": lambda: read(Path("/dev/random")),
    "os.open": lambda: os.read(os.open("/dev/urandom", os.O_RDONLY), 8),
    "fromfile": lambda: np.fromfile("/dev/urandom", "uint8", 8).tobytes(),
    "mktemp": lambda: tempfile.mktemp(dir=""),  # noqa: S306 - a name is enough
    "SystemRandom": lambda: random.SystemRandom().random(),
    "secrets": lambda: secrets.token_hex(8),
    "uuid1": lambda: uuid.uuid1().hex,
    "uuid4": lambda: uuid.uuid4().hex,
    "default_rng": lambda: np.random.default_rng().integers(1 << 60),
    "SeedSequence": lambda: np.random.SeedSequence().entropy,
    "PCG64": lambda: np.random.PCG64().random_raw(),
    "RandomState": lambda: np.random.RandomState().randint(1 << 30),
    "Random": lambda: random.Random().random(),
    "Random.seed": lambda: seeded(random.Random(0)).random(),
    "Generator.seed": lambda: torch.Generator().seed(),
    "Generator.seed, then drawn": lambda: drawn(torch.Generator()),
}


def seeded(generator: random.Random) -> random.Random:
    generator.seed()
    return generator


def read(device: str | Path) -> bytes:
    opened = device.open("rb") if isinstance(device, Path) else open(device, "rb")  # noqa: PTH123, SIM115
    with opened:
        return opened.read(8)


def from_os(_number: int) -> bytes:
    return os.urandom(8)


def drawn(generator: torch.Generator) -> float:
    generator.seed()
    return torch.rand((), generator=generator).item()


def draws(tmp_path: Path, level: str, *names: str) -> list[Any]:
    """What a program draws under a level, each way twice."""
    with in_force(SOURCE, level, context(tmp_path, SOURCE, level)):
        return [DRAWS[name]() for name in names or DRAWS for _ in range(2)]


@pytest.mark.parametrize("name", DRAWS)
def test_a_level_decides_what_is_drawn(name: str, tmp_path: Path) -> None:
    first = draws(tmp_path, "A", name)
    assert draws(tmp_path, "A", name) == first
    assert first[0] != first[1]
    assert not set(draws(tmp_path, "B", name)) & set(first)


@pytest.mark.parametrize("name", DRAWS)
def test_afterwards_the_operating_system_decides_again(name: str, tmp_path: Path) -> None:
    first = draws(tmp_path, "A", name)
    assert [DRAWS[name](), DRAWS[name]()] != first


@pytest.mark.parametrize(
    ("number", "is_drawn"), [(0x02FC_0000_0001, False), (0x6F43_A4F6_6EC3, True)]
)
def test_the_number_of_a_host_is_drawn_where_it_has_no_network(
    number: int, is_drawn: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uuid, "getnode", lambda: number)

    def asked(level: str) -> set[int]:
        with in_force(SOURCE, level, context(tmp_path, SOURCE, level)):
            return {uuid.getnode(), uuid.getnode(), uuid.uuid1().node}

    (first,), (again,), (other,) = asked("A"), asked("A"), asked("B")
    assert first == again
    assert (first != number, other != first) == (is_drawn, is_drawn)


def test_ambient_generators_that_are_reseeded_without_a_seed(tmp_path: Path) -> None:
    def ambient() -> tuple[float, float, int]:
        with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")):
            np.random.seed(0)  # `seed()` keeps the place among the words that it replaces
            random.seed()
            np.random.seed()
            return random.random(), np.random.rand(), torch.seed()

    with torch.random.fork_rng():
        assert ambient() == ambient()
    state = random.getstate()
    random.seed()
    assert random.getstate() != state


def test_seeds_that_are_given_are_kept(tmp_path: Path) -> None:
    expected = (random.Random(7).random(), np.random.default_rng(7).random())
    with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")):
        assert (random.Random(7).random(), np.random.default_rng(7).random()) == expected
        assert torch.Generator().manual_seed(7).initial_seed() == 7
        assert random.Random("seven").random() == random.Random("seven").random()


def test_errors_pass_through(tmp_path: Path) -> None:
    with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")):
        with pytest.raises(ValueError, match="negative"):
            os.urandom(-1)
        with pytest.raises(TypeError):
            os.urandom("8")  # type: ignore[arg-type]


def test_each_line_has_a_stream_of_its_own(tmp_path: Path) -> None:
    """So a line that is run before changes nothing of what the next one draws."""

    def run(*, more: bool) -> bytes:
        with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")):
            if more:
                os.urandom(8)
            return os.urandom(8)

    assert run(more=True) == run(more=False)


def test_a_further_run_in_the_process_draws_the_same(tmp_path: Path) -> None:
    with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")) as trial:
        found = []
        for again in (False, True, False):
            if again:
                for callback in trial.on_run:
                    callback()
            found.append(DRAWS["os.urandom"]())
    assert found[0] == found[1] != found[2]


def test_workers_draw_each_their_own(tmp_path: Path) -> None:
    def in_workers() -> list[bytes]:
        forking = multiprocessing.get_context("fork")
        with forking.Pool(2) as pool:
            return pool.map(from_os, range(2), chunksize=1)

    with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")):
        first, second = in_workers()
        assert first != second


def test_a_library_in_a_worker_draws_on_its_own_account(tmp_path: Path) -> None:
    def in_worker() -> Any:
        with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")) as trial:
            trial.processes.restart()
            with multiprocessing.get_context("fork").Pool(1) as pool:
                (generator,) = pool.map(np.random.default_rng, [None])
            return generator.random()

    assert in_worker() == in_worker()


def test_names_that_libraries_make_up_stay_the_operating_systems(tmp_path: Path) -> None:
    with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")) as trial:
        library = eval(compile("lambda: __import__('tempfile').mktemp()", os.__file__, "eval"))  # noqa: S307 - a library's line
        names = [library() for _ in range(2)]
        assert SOURCE.survey is not None
        assert SOURCE.survey(trial) == []
    assert len(set(names)) == 2


def test_temporary_files_get_new_names(tmp_path: Path) -> None:
    with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")) as trial:
        made = []
        for _ in range(2):
            for callback in trial.on_run:
                callback()
            made.append(tempfile.mkdtemp(dir=tmp_path))
    assert made[0] != made[1]


def test_the_lines_that_drew_are_named(tmp_path: Path) -> None:
    with in_force(SOURCE, "A", context(tmp_path, SOURCE, "A")) as trial:
        DRAWS["os.urandom"]()
        DRAWS["secrets"]()
        assert SOURCE.survey is not None
        found = SOURCE.survey(trial)
    lines = {DRAWS[name].__code__.co_firstlineno for name in ("os.urandom", "secrets")}
    assert {number for _, number in found} == lines
    assert all(file.endswith("test_source_os_entropy.py") for file, _ in found)


def test_nothing_is_left_replaced(tmp_path: Path) -> None:
    def replaced() -> list[Any]:
        found = [random.seed, random.Random.seed, uuid.uuid1, torch.Generator.seed]
        return [*found, os.urandom, os.open, open, io.open, io.open is open]

    before = replaced()
    draws(tmp_path, "A")
    assert before == replaced()


# Audits

HEAD = """
    import os
    import random
    import time
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset, TensorDataset

    def parts(shift=0.0):
        x = torch.randn(16, 3) + shift
        return nn.Linear(3, 1), DataLoader(TensorDataset(x, x[:, :1]), batch_size=4)
"""


def test_alone_and_with_the_line(tmp_path: Path) -> None:
    body = """
    def build(seed=0):
        torch.manual_seed(seed)
        return parts(random.Random().random())
    """
    program = write_target(tmp_path, HEAD + body)
    audited = check(
        "train.py:build", "--steps", "4", cwd=program.parent, saved=tmp_path / "report.json"
    )
    assert audited.broke == {"os-entropy"}
    assert audited.source("os-entropy")["confidence"] == "proven"
    assert audited.source("os-entropy")["fix"]["verified"]
    assert "train.py:16 draws from the operating system" in audited.terminal


def test_names_and_devices_that_decide(tmp_path: Path) -> None:
    """As libraries that name their studies do; one draw that was not pinned would leave a result unexplained."""
    package = tmp_path / "site-packages" / "acme_studies"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import uuid\n\n\nclass Study:\n    def __init__(self, name=None):\n"
        "        self.name = name or f'study-{uuid.uuid4()}'\n\n"
        "    def is_in_first_half(self, item):\n        return sum(f'{self.name}{item}'.encode()) % 2 == 0\n",
        encoding="utf-8",
    )
    body = f"""
    import sys
    import tempfile
    sys.path.append({str(package.parent)!r})
    from acme_studies import Study

    def build(seed=0):
        torch.manual_seed(seed)
        study = Study()
        with open("/dev/urandom", "rb") as device:
            shift = device.read(1)[0]
        name = os.path.basename(tempfile.mkdtemp())
        return parts(study.is_in_first_half(3) + shift + sum(name.encode()))
    """
    program = write_target(tmp_path, HEAD + body)
    audited = check(
        *("train.py:build", "--steps", "4", "--only", "os-entropy", "--no-pinpoint"),
        cwd=program.parent,
        saved=tmp_path / "report.json",
    )
    assert audited.broke == {"os-entropy"}
    assert audited.report["unexplained"] is None
    for line in (21, 22, 24):
        assert f"train.py:{line} draws from the operating system" in audited.terminal


@pytest.mark.deep
def test_among_several_causes(tmp_path: Path) -> None:
    """A dataset that draws in its workers, NumPy's ambient generator, and the clock."""
    body = """
    class Noisy(Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            x = torch.full((3,), index / 16) + torch.tensor(random.SystemRandom().random())
            return x, x[:1]

    def build(seed=0):
        torch.manual_seed(seed)
        shift = np.random.rand() + time.time_ns() % 1000
        return nn.Linear(3, 1), DataLoader(
            Noisy(), batch_size=4, num_workers=2, collate_fn=lambda batch: [
                torch.stack(part) + shift for part in zip(*batch)
            ]
        )
    """
    program = write_target(tmp_path, HEAD + body)
    audited = check(
        "train.py:build",
        "--steps",
        "4",
        "--skip",
        "num-workers",
        cwd=program.parent,
        saved=tmp_path / "report.json",
    )
    assert audited.broke == {"os-entropy", "numpy-rng", "clock"}
    assert audited.report["unexplained"] is None


@pytest.mark.deep
def test_workers_that_begin_as_new_interpreters(tmp_path: Path, interpreters: Interpreters) -> None:
    body = """
    class Noisy(Dataset):
        def __len__(self):
            return 16

        def __getitem__(self, index):
            x = torch.full((3,), index / 16) + torch.tensor(random.SystemRandom().random())
            return x, x[:1]

    def build(seed=0):
        torch.manual_seed(seed)
        loader = DataLoader(
            Noisy(), batch_size=4, num_workers=1, multiprocessing_context="spawn"
        )
        return nn.Linear(3, 1), loader
    """
    other = {ID: OTHER}
    with lab(tmp_path, interpreters) as opened:
        pinned, varied, again = opened.trials(
            "train", textwrap.dedent(HEAD) + textwrap.dedent(body), other, {}, steps=2
        )
    assert pinned.digest == again.digest != varied.digest
    assert pinned.facts.survey[ID] == [["train.py", 19]]


def test_a_program_that_draws_names_only(tmp_path: Path) -> None:
    body = """
    import uuid

    def build(seed=0):
        torch.manual_seed(seed)
        print("run", uuid.uuid4())
        return parts()
    """
    program = write_target(tmp_path, HEAD + body)
    audited = check(
        "train.py:build",
        "--steps",
        "4",
        "--only",
        "os-entropy",
        cwd=program.parent,
        saved=tmp_path / "report.json",
    )
    assert audited.exit_code == 0
    assert audited.source("os-entropy")["status"] == "held"
