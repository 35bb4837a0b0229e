"""What it takes to see operators, and the nodes of a backward that they run for."""

from __future__ import annotations

from repro_audit.torch_internals import DETAIL, Internal

CURRENT_NODE = Internal(
    place="torch:_C._current_autograd_node",
    purpose="tell which node of a backward runs",
    lost=DETAIL,
)
NEXT_NODE = Internal(
    place="torch.autograd:_get_sequence_nr",
    purpose="tell which op a node of a backward belongs to",
    lost=DETAIL,
)
ENGINE = Internal(
    place="torch.autograd.graph:_engine_run_backward",
    purpose="tell who called a backward from what it runs",
    lost=DETAIL,
)
DISPATCH_MODE = Internal(
    place="torch.utils._python_dispatch:TorchDispatchMode",
    purpose="see every operator",
    lost=DETAIL,
)
MODES = Internal(
    place="torch:_C._len_torch_dispatch_stack", purpose="count the dispatch modes", lost=DETAIL
)
MODE_AT = Internal(
    place="torch:_C._get_dispatch_stack_at", purpose="find our own dispatch mode", lost=DETAIL
)
POP_MODE = Internal(
    place="torch:_C._pop_torch_dispatch_stack",
    purpose="take our own dispatch mode out of the way",
    lost=DETAIL,
)
PUSH_MODE = Internal(
    place="torch:_C._push_on_torch_dispatch_stack",
    purpose="put our own dispatch mode in place, below the program's",
    lost=DETAIL,
)
SCHEMA = Internal(
    place="torch._ops:OpOverload._schema",
    purpose="tell what an operator writes in place",
    lost=DETAIL,
    in_objects=True,
)
