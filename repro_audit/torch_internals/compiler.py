"""What it takes to see what `torch.compile` made, whose modules are imported late: by its first use."""

from __future__ import annotations

from repro_audit.torch_internals import DETAIL, Internal

COMPILER = Internal(
    place="torch._dynamo.eval_frame:_TorchDynamoContext.__call__",
    purpose="see a compiled region as one row",
    lost=DETAIL,
    parameters=("fn",),
)
COMPILING = Internal(
    place="torch._dynamo.eval_frame:OptimizeContext",
    purpose="tell what compiles from what forbids it",
    lost=DETAIL,
)
COMPILED_MODULE = Internal(
    place="torch._dynamo.eval_frame:OptimizedModule",
    purpose="find the program's module in a compiled one",
    lost="checkpoint-resume of a compiled model",
)
ORIGINAL_MODULE = Internal(
    place="torch._dynamo.eval_frame:OptimizedModule._orig_mod",
    purpose="find the program's module in a compiled one",
    lost="checkpoint-resume of a compiled model",
    in_objects=True,
)
COMPILED_BACKWARD = Internal(
    place="torch._functorch._aot_autograd.runtime_wrappers:call_func_at_runtime_with_args",
    purpose="see a compiled backward as one row",
    lost=DETAIL,
    parameters=("args",),
)
COMPILED_ID = Internal(
    place="torch._dynamo.eval_frame:_TorchDynamoContext._torchdynamo_wrapper_id",
    purpose="let the compiler know its own work under a wrapper",
    lost=DETAIL,
    in_objects=True,
    optional=True,
)
SET_COMPILER = Internal(
    place="torch:_C._dynamo.eval_frame.set_eval_frame",
    purpose="keep the compiler from the probe's own frames",
    lost=DETAIL,
)
SET_STRATEGY = Internal(
    place="torch:_C._dynamo.eval_frame.set_code_exec_strategy",
    purpose="keep the compiler from the probe's own functions",
    lost=DETAIL,
)
STRATEGY = Internal(
    place="torch:_C._dynamo.eval_frame._FrameExecStrategy",
    purpose="keep the compiler from the probe's own functions",
    lost=DETAIL,
)
STRATEGY_ACTION = Internal(
    place="torch:_C._dynamo.eval_frame._FrameAction",
    purpose="keep the compiler from the probe's own functions",
    lost=DETAIL,
)
