"""Report models made by hand: every verdict, and strings that mean harm."""

from __future__ import annotations

from dataclasses import replace

from repro_audit.report.model import (
    RECORD,
    Cause,
    Comparison,
    Confidence,
    Divergence,
    DivergenceKind,
    Drift,
    Environment,
    Excerpt,
    Fix,
    LayerDrift,
    LevelResult,
    Link,
    Location,
    LossCurve,
    Report,
    Settings,
    Size,
    SourceResult,
    SourceStatus,
    Target,
    TargetFailure,
    TrialRecord,
    TrialStatus,
)
from repro_audit.source import Scope

HOSTILE = (
    "\x1b[31mred\x1b[0m [bold]x[/bold] [/] :smile: \udc80 \u202eevil\x07\r\n\x9b2J" + "long" * 2_000
)


def source(
    id: str,  # noqa: A002  # the field's name
    scope: Scope = Scope.RERUN,
    status: SourceStatus = SourceStatus.HELD,
    reason: str = "equal at every level",
) -> SourceResult:
    """A source with nothing to explain."""
    confidence = Confidence.PROVEN if status is SourceStatus.BROKE else None
    return SourceResult(
        id=id,
        title=f"What {id} is",
        scope=scope,
        status=status,
        reason=reason,
        confidence=confidence,
    )


NUM_WORKERS = SourceResult(
    id="num-workers",
    title="The number of DataLoader workers changes what the samples hold",
    scope=Scope.SETTINGS,
    status=SourceStatus.BROKE,
    confidence=Confidence.PROVEN,
    reason="the samples differ in content, not in order",
    levels=(
        LevelResult(level="0", diverged=True, trial="t07"),
        LevelResult(level="1", diverged=True, trial="t08"),
        LevelResult(level="4", diverged=None, trial=None),
    ),
    evidence=(
        "0 and 1 workers agree with each other",
        "2 of 2 repeats with 0 workers gave the same difference",
    ),
    divergence=Divergence(
        step=0,
        phase="data",
        kind=DivergenceKind.VALUE,
        name="batch.0",
        size=Size(max_abs=0.9123456, max_ulp=1_065_353_216, mismatched=2048, numel=2048),
        cause=Cause(
            what="the line draws from numpy, which stands elsewhere in a worker than in the main process",
            step=0,
            phase="data",
            location=Location(
                file="train.py",
                line=17,
                function="__getitem__",
                code="return x + np.random.rand(64), y",
                excerpt=Excerpt(
                    first=14,
                    lines=(
                        "    def __getitem__(self, index):",
                        '        """A sample, with noise."""',
                        "        x, y = self.samples[index]",
                        "        return x + np.random.rand(64), y",
                        "",
                        "",
                        "def build():",
                    ),
                ),
            ),
            evidence=("sample 0 of the batch, index 12 of the dataset, fetched by worker 1",),
        ),
        way=(
            Link(what="batch.0", where="step 0, data"),
            Link(what="output", where="step 0, forward"),
            Link(what="loss", where="step 0, forward"),
        ),
        drift=Drift(
            steps=(0, 1, 2, 3),
            layers=(
                LayerDrift(
                    name="encoder.layers.0",
                    parameters=2,
                    differing=(1, 2, 2, 2),
                    max_abs=(1.4901161e-08, 3.2e-07, 0.00012, 0.0021),
                ),
                LayerDrift(
                    name="encoder.layers.1",
                    parameters=2,
                    differing=(0, 2, 2, 2),
                    max_abs=(None, 1.1e-06, float("nan"), 0.0184),
                ),
                LayerDrift(name="head", parameters=1, differing=(0, 0, 1, 1), max_abs=(None,) * 4),
            ),
        ),
    ),
    losses=(
        LossCurve(label="pinned (2)", values=(2.302585, 2.291441, 2.2800012, 2.2711)),
        LossCurve(label="0", values=(2.302585, 2.2914412, 2.2800011, 2.2699)),
    ),
    fix=Fix(
        summary="Seed every generator in each worker",
        snippet=(
            "from repro_audit.rng import seed_worker\n\n"
            "loader = DataLoader(data, batch_size=64, num_workers=2, worker_init_fn=seed_worker)\n"
        ),
        verified=True,
        proof="fix verified: with this edit both runs of the pair agree bit for bit",
    ),
)

RACE = SourceResult(
    id="nondeterministic-op",
    title="An operation adds in an order that threads decide",
    scope=Scope.RERUN,
    status=SourceStatus.BROKE,
    confidence=Confidence.SUSPECTED,
    reason="3 of 5 released runs differ from the deterministic one",
    levels=(LevelResult(level="released", diverged=True, trial="t14"),),
    divergence=Divergence(
        step=3,
        phase="backward",
        kind=DivergenceKind.VALUE,
        name="grad.encoder.layers.0.neighbourhood_embedding.weight",
        size=Size(
            max_abs=1.4901161e-08, max_ulp=2, mismatched=3, numel=1_600_000, first_index=(7, 21)
        ),
        cause=Cause(
            what="the same inputs gave another output",
            step=3,
            phase="backward",
            op="aten::index_put_",
            module="encoder.layers.0",
            location=Location(
                file="models/graph.py",
                line=41,
                function="forward",
                code="messages = nodes[edges[0]]",
            ),
            size=Size(
                max_abs=7.450581e-09, max_ulp=1, mismatched=2, numel=1_600_000, first_index=(7, 21)
            ),
            also=(
                Cause(
                    what="the same inputs gave another output",
                    step=3,
                    phase="backward",
                    op="aten::index_put_",
                    module="encoder.layers.1",
                ),
            ),
        ),
        way=tuple(
            Link(what=f"grad.encoder.layers.{number}.weight", where="step 3, backward")
            for number in range(12)
        ),
    ),
    losses=(
        LossCurve(label="deterministic", values=tuple(2.0 - 0.01 * step for step in range(40))),
        LossCurve(
            label="released",
            values=tuple(2.0 - 0.01 * step + (step > 20) * 2.4e-7 for step in range(40)),
        ),
    ),
    fix=Fix(
        summary="Ask PyTorch for deterministic operations",
        snippet="torch.use_deterministic_algorithms(True)",
        verified=False,
    ),
)

SAMPLE_SOURCES = (
    source("python-rng", status=SourceStatus.DELEGATED, reason="the audit seeds it for build"),
    source("numpy-rng", status=SourceStatus.DELEGATED, reason="the audit seeds it for build"),
    source("torch-rng", status=SourceStatus.DELEGATED, reason="the audit seeds it for build"),
    source("cuda-rng", status=SourceStatus.NOT_EXERCISED, reason="no CUDA device"),
    source("hash-seed"),
    NUM_WORKERS,
    source("worker-seed", Scope.SETTINGS, reason="the workers' streams are distinct"),
    source(
        "lstm-dropout",
        Scope.SETTINGS,
        SourceStatus.NOT_EXERCISED,
        "no nn.LSTM, nn.GRU or nn.RNN with dropout",
    ),
    source("pickled-embedding", status=SourceStatus.NOT_EXERCISED, reason="no nn.Embedding"),
    source("artifact-cache"),
    source("cudnn-deterministic", Scope.SETTINGS, SourceStatus.NOT_EXERCISED, "no CUDA device"),
    source("cudnn-benchmark", Scope.SETTINGS, SourceStatus.NOT_EXERCISED, "no CUDA device"),
    RACE,
    source(
        "thread-count",
        Scope.PORTABLE,
        SourceStatus.ERROR,
        "4 threads: the run was killed by SIGSEGV",
    ),
    source("process-reuse", Scope.SETTINGS),
    source("seed-effect", Scope.NONE, reason="the seed reaches all 6 parameters"),
)

BROKEN = Report(
    target=Target(spec="train.py:build", mode="build"),
    require=Scope.RERUN,
    settings=Settings(seed=0, steps=8, fresh=False, isolation="overlay"),
    environment=Environment(
        python="3.11.7",
        torch="2.13.0+cpu",
        cpu="AMD EPYC 9654 96-Core Processor",
        threads=2,
        devices=("cpu",),
    ),
    sources=SAMPLE_SOURCES,
    trials=(
        TrialRecord(id="t00", setting={}, status=TrialStatus.OK, seconds=3.21, digest="0f" * 16),
        TrialRecord(
            id="t07",
            setting={"num-workers": "0"},
            status=TrialStatus.OK,
            seconds=0.08,
            digest="1e" * 16,
        ),
        TrialRecord(
            id="t09",
            setting={"thread-count": "4"},
            status=TrialStatus.CRASHED,
            seconds=0.05,
            digest=None,
        ),
    ),
    seconds=6.13,
    assumptions=("loss: cross-entropy (integer class targets)", "optimizer: SGD, lr 0.01"),
    coverage="4 of 8 batches, 256 of 512 samples, 8 steps, 2 epochs",
    version="0.1.0",
)

CLEAN = replace(
    BROKEN,
    sources=tuple(
        source(s.id, s.scope) if s.status in {SourceStatus.BROKE, SourceStatus.ERROR} else s
        for s in SAMPLE_SOURCES
    ),
)

ONLY_SETTINGS = replace(
    BROKEN, sources=tuple(source(s.id) if s is RACE else s for s in SAMPLE_SOURCES)
)

UNEXPLAINED = replace(
    CLEAN,
    unexplained=Divergence(
        step=2,
        phase="optimizer",
        kind=DivergenceKind.STRUCTURE,
        name="state.weight.exp_avg",
        detail="only in the varied run",
    ),
    notes=(
        "writes are shared: the tree is too large to copy and an overlay is not permitted here",
    ),
)

INCONCLUSIVE = replace(
    CLEAN,
    sources=tuple(
        source(s.id, s.scope, SourceStatus.ERROR, "no run came to an end")
        if s.id == "hash-seed"
        else s
        for s in CLEAN.sources
    ),
)

NOT_TRAINED = replace(
    CLEAN,
    inconclusive="the program never called optimizer.step()",
    sources=tuple(
        source(s.id, s.scope, SourceStatus.NOT_EXERCISED, "nothing was trained")
        for s in SAMPLE_SOURCES
    ),
)

FAILED = replace(
    CLEAN,
    target=Target(spec="train.py:build", mode="build", argv=("--lr", "0.1")),
    sources=tuple(
        source(s.id, s.scope, SourceStatus.NOT_EXERCISED, "the target failed")
        for s in SAMPLE_SOURCES
    ),
    assumptions=(),
    coverage="",
    failure=TargetFailure(
        what="ValueError: Expected input batch_size (64) to match target batch_size (32).",
        where="train.py:23, in the first training step",
        why="the program fails the same way without the audit",
        next_step="make `build` train one step by itself, then audit again",
        traceback=(
            "Traceback (most recent call last):\n"
            '  File "train.py", line 23, in train_step\n'
            "    loss = F.cross_entropy(model(x), y[:32])\n"
            "           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n"
            "ValueError: Expected input batch_size (64) to match target batch_size (32).\n"
        ),
        output="loading data\n  0%|\r 50%|#####\r100%|##########\ndone\n",
    ),
)

HOSTILE_REPORT = replace(
    BROKEN,
    target=Target(spec=HOSTILE, mode="script", argv=(HOSTILE,)),
    environment=replace(BROKEN.environment, cpu=HOSTILE, devices=(HOSTILE,)),
    sources=(
        replace(
            NUM_WORKERS,
            title=HOSTILE,
            reason=HOSTILE,
            levels=(LevelResult(level=HOSTILE, diverged=True, trial="t07"),),
            evidence=(HOSTILE,),
            divergence=Divergence(
                step=1,
                phase="forward",
                kind=DivergenceKind.VALUE,
                name=HOSTILE,
                size=Size(max_abs=float("nan"), max_ulp=None, mismatched=1, numel=3_000_000),
                detail=HOSTILE,
                cause=Cause(
                    what=HOSTILE,
                    step=1,
                    phase="forward",
                    op=HOSTILE,
                    module=HOSTILE,
                    location=Location(
                        file=HOSTILE,
                        line=1,
                        function=HOSTILE,
                        code=HOSTILE,
                        excerpt=Excerpt(first=1, lines=(HOSTILE, f"\t{HOSTILE}")),
                    ),
                    evidence=(HOSTILE,),
                ),
                way=(Link(what=HOSTILE, where=HOSTILE),),
                drift=Drift(
                    steps=(0, 1),
                    layers=(
                        LayerDrift(
                            name=HOSTILE,
                            parameters=1,
                            differing=(1, 1),
                            max_abs=(float("inf"), 0.0),
                        ),
                    ),
                ),
            ),
            losses=(
                LossCurve(label=HOSTILE, values=(float("nan"), float("inf"))),
                LossCurve(label=HOSTILE, values=(float("nan"), float("-inf"), 0.0)),
            ),
            fix=Fix(summary=HOSTILE, snippet=HOSTILE, verified=True, proof=HOSTILE),
        ),
        source("hash-seed", status=SourceStatus.NOT_EXERCISED, reason=HOSTILE),
        source("thread-count", Scope.PORTABLE, SourceStatus.ERROR, HOSTILE),
    ),
    trials=(
        TrialRecord(
            id="t00",
            setting={"hash-seed": HOSTILE},
            status=TrialStatus.OK,
            seconds=0.1,
            digest=None,
        ),
    ),
    unexplained=Divergence(
        step=None,
        phase=None,
        kind=DivergenceKind.ORDER,
        name=HOSTILE,
        size=Size(max_abs=float("inf"), max_ulp=None, mismatched=1, numel=1),
        no_cause=HOSTILE,
    ),
    assumptions=(HOSTILE,),
    coverage=HOSTILE,
    notes=(HOSTILE,),
)

HOSTILE_FAILURE = replace(
    HOSTILE_REPORT,
    failure=TargetFailure(
        what=HOSTILE,
        where=HOSTILE,
        why=HOSTILE,
        next_step=HOSTILE,
        traceback=HOSTILE * 5,
        output=HOSTILE * 40,
    ),
)

DIFFERENT = replace(
    BROKEN,
    sources=(
        replace(
            NUM_WORKERS,
            id=RECORD,
            title="this run computes something else than the record",
            scope=Scope.RERUN,
            reason="proven: with variable OMP_NUM_THREADS as in the record, the runs are equal",
            levels=(),
            evidence=("threads: 2 in the record, 4 in this run",),
            fix=None,
        ),
    ),
    comparison=Comparison(reference="golden.repro", other="this run"),
)
EQUAL = replace(
    CLEAN,
    sources=(source(RECORD),),
    comparison=Comparison(
        reference="golden.repro",
        other="this run",
        within="ulp=4: 12 tensors differ, by at most 1.2e-07 (in loss, step 3, forward) and 2 ulp",
    ),
)

COMPARED = {"different": DIFFERENT, "equal": EQUAL}
"""Of two runs, rather than of sources."""
REPORTS = {
    "broken": BROKEN,
    "clean": CLEAN,
    "only-settings": ONLY_SETTINGS,
    "unexplained": UNEXPLAINED,
    "inconclusive": INCONCLUSIVE,
    "not-trained": NOT_TRAINED,
    "failed": FAILED,
    "hostile": HOSTILE_REPORT,
    "hostile-failure": HOSTILE_FAILURE,
}
