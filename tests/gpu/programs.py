"""Programs whose divergence, or whose cleanness, only a CUDA device can show: each is audited.

Without a device they run on the CPU, so that they are known to run at all.
"""

from __future__ import annotations

import textwrap
import types
import warnings
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from tests.auditing import SAMPLES, Audited
from tests.gpu.rows import Row, WrongError
from tests.samples import SAMPLES as TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.gpu.rows import Place
    from tests.samples import Sample

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TIMES = 10
"""How often a race is run in this process, to see whether it shows on this device."""
AMPERE = (8, 0)
"""The first compute capability with TF32."""

_HEAD = """
import contextlib

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
torch.set_num_threads(1)


def of_size(on_device, elsewhere):
    return on_device if DEVICE == "cuda" else elsewhere
"""

# Races


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """An operation that is said to race on a CUDA device."""

    name: str
    setup: str
    """Lines of `__init__`: the parameter `self.w`, and buffers."""
    value: str
    """An expression of the output."""

    @property
    def program(self) -> str:
        """A model that computes little else, and a loader of batches that it does not look at."""
        setup = textwrap.indent(textwrap.dedent(self.setup).strip(), " " * 8)
        return f"""{_HEAD}

class Racing(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
{setup}

    def forward(self, x):
        return ({self.value}).float().square().mean() * self.scale


def build(seed=0):
    torch.manual_seed(seed)
    model = Racing().to(DEVICE)
    loader = DataLoader(TensorDataset(torch.zeros(4, 1), torch.zeros(4)), batch_size=1)
    return model, loader, lambda output, _: output, torch.optim.SGD(model.parameters(), lr=0.01)
"""


_MANY = """
n = of_size(1_000_000, 1_000)
self.w = nn.Parameter(torch.randn(n))
self.register_buffer("index", torch.randint(50, (n,)))
"""
_ZEROS = "torch.zeros(50, device=self.w.device)"

RACES = (
    Race(name="index_add_", setup=_MANY, value=f"{_ZEROS}.index_add_(0, self.index, self.w)"),
    Race(name="scatter_add_", setup=_MANY, value=f"{_ZEROS}.scatter_add_(0, self.index, self.w)"),
    Race(
        name="index_put_ accumulate",
        setup=_MANY,
        value=f"{_ZEROS}.index_put_((self.index,), self.w, accumulate=True)",
    ),
    Race(
        name="interpolate backward",
        setup="self.w = nn.Parameter(torch.randn(2, 8, 48, 48))",
        value='F.interpolate(self.w, size=(of_size(301, 61),) * 2, mode="bilinear")',
    ),
    Race(
        name="embedding_bag backward",
        setup="""
            self.w = nn.Parameter(torch.randn(20, 64))
            self.register_buffer("index", torch.randint(20, (of_size(20_000, 200), 16)))
        """,
        value='F.embedding_bag(self.index, self.w, mode="max")',
    ),
    Race(
        name="ctc_loss backward",
        setup="""
            self.w = nn.Parameter(torch.randn(100, 32, 20))
            self.register_buffer("target", torch.randint(1, 20, (32, 40)))
            self.register_buffer("inputs", torch.full((32,), 100))
            self.register_buffer("targets", torch.full((32,), 40))
        """,
        value="F.ctc_loss(self.w.log_softmax(2), self.target, self.inputs, self.targets)",
    ),
    Race(
        name="cumsum",
        setup="self.w = nn.Parameter(torch.randn(of_size(5_000_000, 1_000)))",
        value="self.w.cumsum(0)",
    ),
    Race(name="bincount", setup=_MANY, value="torch.bincount(self.index, self.w.detach())"),
    Race(
        name="flash attention backward",
        setup="""
            n = of_size(4096, 64)
            self.w = nn.Parameter(torch.randn(1, 4, n, 64, dtype=torch.bfloat16))
            self.kernel = torch.nn.attention.SDPBackend.FLASH_ATTENTION
        """,
        value="self.attend()",
    ),
    Race(
        name="efficient attention backward",
        setup="""
            n = of_size(4096, 64)
            self.w = nn.Parameter(torch.randn(1, 4, n, 64))
            self.kernel = torch.nn.attention.SDPBackend.EFFICIENT_ATTENTION
            if DEVICE == "cpu":
                self.kernel = torch.nn.attention.SDPBackend.MATH
        """,
        value="self.attend()",
    ),
)

_ATTEND = """
    def attend(self):
        with torch.nn.attention.sdpa_kernel(self.kernel):
            return F.scaled_dot_product_attention(self.w, self.w, self.w)
"""


def text(race: Race) -> str:
    """The program of a race, whole."""
    program = race.program.replace("import torch\n", "import torch\nimport torch.nn.attention\n", 1)
    return program.replace("\n\ndef build", f"{_ATTEND}\n\ndef build", 1)


def step(program: str) -> bytes:
    """The bytes of one step's loss and gradients, in this process."""
    module: Any = types.ModuleType("race")
    exec(compile(program, "race.py", "exec"), module.__dict__)
    model, loader, loss_function, _ = module.build()
    x, y = next(iter(loader))
    loss = loss_function(model(x.to(DEVICE)), y.to(DEVICE))
    loss.backward()
    values = [loss, *(each.grad for each in model.parameters() if each.grad is not None)]
    return b"".join(each.detach().float().cpu().numpy().tobytes() for each in values)


def variants(program: str, *, deterministic: bool) -> int | None:
    """How many results several steps have; None where an operation has no deterministic form."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return len({step(program) for _ in range(TIMES)})
    except RuntimeError as error:
        if deterministic and "deterministic" in str(error):
            return None
        raise
    finally:
        torch.use_deterministic_algorithms(before)


def race(found: Race, place: Place) -> str:
    """What shows here, and whether the audit says so, and that deterministic algorithms mend it."""
    program = text(found)
    free, mended = (variants(program, deterministic=mode) for mode in (False, True))
    audited = place.audit(program, "--only", "nondeterministic-op", "--steps", "3")
    entry = audited.source("nondeterministic-op")
    truth = f"{free} results in {TIMES} runs, deterministic: {mended or 'no such form'}"
    said = f"{truth}; {entry['status']}: {entry['reason']}"
    unexplained = audited.report["unexplained"] is not None
    if free == 1:
        return f"{said}; unexplained: {unexplained}"
    # Without a deterministic form, or where warn_only keeps it off, the pinned runs may differ too.
    if entry["status"] != "broke" or unexplained:
        raise WrongError(f"overlooked: {said}; unexplained: {unexplained}")
    told = f"{entry['fix']['summary']} {audited.terminal}"
    if mended is None and "no deterministic form of" not in told:
        raise WrongError(f"not named as what has no deterministic form: {said}")
    if mended == 1:
        twin = f"{program}\n\ntorch.use_deterministic_algorithms(True)\n"
        twice = place.audit(twin, "--only", "nondeterministic-op", "--steps", "3")
        if twice.broke or twice.report["unexplained"] is not None:
            raise WrongError(f"the mended twin is accused: {twice.terminal[-200:]}")
        said += "; mended twin: clean"
    return said


# Settings of CUDA's libraries

CONVOLUTION = f"""{_HEAD}
PRECISION

def build(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 5), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 4),
    ).to(DEVICE)
    data = TensorDataset(torch.randn(32, 3, 40, 40), torch.randint(4, (32,)))
    loader = DataLoader(data, batch_size=8, shuffle=True)
    return model, loader, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.01)
"""
FULL = 'torch.set_float32_matmul_precision("highest")\ntorch.backends.cudnn.allow_tf32 = False'
FLAGS = ("cudnn-benchmark", "cudnn-deterministic", "cublas-workspace", "matmul-precision")


def convolution(precision: str) -> str:
    """A convolutional network that sets its precision so."""
    return CONVOLUTION.replace("PRECISION", precision)


def only(*names: str) -> list[str]:
    """Flags."""
    return [word for name in names for word in ("--only", name)]


def statuses(audited: Audited, names: Sequence[str]) -> str:
    """Of these sources."""
    return ", ".join(f"{name}: {audited.source(name)['status']}" for name in names)


def flags(precision: str, expected: str, place: Place) -> str:
    """A network with TF32 is told so, where the device has it; one without is not, nor is its cuDNN blamed."""
    audited = place.audit(convolution(precision), *only(*FLAGS), "--steps", "4")
    said = statuses(audited, FLAGS)
    has_tf32 = torch.cuda.get_device_capability() >= AMPERE
    wanted = {"matmul-precision"} if expected == "broke" and has_tf32 else set()
    if (audited.broke & set(FLAGS)) != wanted or audited.report["unexplained"] is not None:
        raise WrongError(f"{said}; expected: {wanted or 'none broke'}")
    return said


# Clean programs

CLEAN = {
    "float32": convolution(FULL),
    "AMP bfloat16": convolution(FULL).replace(
        "    return model, loader, nn.CrossEntropyLoss()",
        """
    class Mixed(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            with torch.autocast(DEVICE, torch.bfloat16):
                return self.inner(x)

    model = Mixed(model)
    return model, loader, nn.CrossEntropyLoss()""",
    ),
    "AMP float16 with GradScaler": convolution(FULL).replace(
        "    return model, loader, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.01)",
        """
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler(DEVICE, init_scale=1024.0)

    def train():
        for _ in range(3):
            for x, y in loader:
                optimizer.zero_grad()
                with torch.autocast(DEVICE, of_size(torch.float16, torch.bfloat16)):
                    loss = nn.functional.cross_entropy(model(x.to(DEVICE)), y.to(DEVICE))
                scaler.scale(loss).backward()
                scaler.step(optimizer)
                scaler.update()

    return train""",
    ),
    "side stream": convolution(FULL).replace(
        "    return model, loader, nn.CrossEntropyLoss()",
        """
    class Beside(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            if DEVICE == "cpu":
                return self.inner(x)
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                y = self.inner(x)
            torch.cuda.current_stream().wait_stream(stream)
            y.record_stream(torch.cuda.current_stream())
            return y

    model = Beside(model)
    return model, loader, nn.CrossEntropyLoss()""",
    ),
}


def clean(program: str, place: Place) -> str:
    """Nothing is accused, with all sources that apply."""
    audited = place.audit(program, "--steps", "4")
    accused = sorted(audited.broke - {"seed-effect"})
    if accused or audited.exit_code or audited.report["unexplained"] is not None:
        why = "; ".join(f"{name}: {audited.source(name)['reason']}" for name in accused)
        raise WrongError(f"exit {audited.exit_code}, accused: {why or audited.terminal[-300:]}")
    seconds = audited.report["seconds"]
    return f"{len(audited.report['trials'])} trials, {seconds:.0f} s"


# Samples


def sample(found: Sample, place: Place) -> str:
    """As the table of samples has it for a machine with a device."""
    audited = place.audit(SAMPLES / f"{found.name}.py")
    wrong = found.wrong(audited.report) if audited.report else audited.terminal[-300:]
    if wrong:
        raise WrongError(wrong)
    return f"broke: {', '.join(sorted(audited.broke)) or 'nothing'}"


_CUDA = {each.name for each in TABLE if each.cuda}

ROWS = (
    *(
        Row(name=f"sample {each.name}", run=partial(sample, each))
        for each in TABLE
        if each.name.removesuffix("_mended") in _CUDA
    ),
    *(Row(name=f"race {each.name}", run=partial(race, each)) for each in RACES),
    Row(name="flags as PyTorch has them", run=partial(flags, "", "broke")),
    Row(name="flags of full precision", run=partial(flags, FULL, "held")),
    Row(
        name="flags of TF32 by matmul-precision",
        run=partial(flags, 'torch.set_float32_matmul_precision("high")', "broke"),
    ),
    *(Row(name=f"clean {name}", run=partial(clean, text)) for name, text in CLEAN.items()),
)
