"""What it takes to read tensors, and what modules hold, past whatever looks on."""

from __future__ import annotations

from repro_audit.torch_internals import DETAIL, Internal

DISPATCH_KEYS = Internal(
    place="torch:_C._dispatch_keys",
    purpose="tell ordinary tensors from sparse, fake or wrapped ones",
)
FUNCTION_MODES = Internal(
    place="torch:_C._len_torch_function_stack",
    purpose="see whether the program intercepts functions",
)
NO_FUNCTION_MODES = Internal(
    place="torch:_C.DisableTorchFunction",
    purpose="read tensors past what intercepts functions",
)
NO_TRANSFORMS = Internal(
    place="torch:_C._DisableFuncTorch",
    purpose="read tensors past the transforms of torch.func",
)
NO_DISPATCH_MODES = Internal(
    place="torch.utils._python_dispatch:_disable_current_modes",
    purpose="read tensors past the program's dispatch modes",
)
IS_WRAPPED = Internal(
    place="torch:_C._functorch.is_functorch_wrapped_tensor",
    purpose="recognise what torch.func wraps",
)
UNWRAPPED = Internal(
    place="torch:_C._functorch.get_unwrapped",
    purpose="read what torch.func wraps",
)
IS_FAKE = Internal(
    place="torch._subclasses.fake_tensor:is_fake",
    purpose="tell tensors without data",
)
FAKE_TENSOR = Internal(
    place="torch._subclasses.fake_tensor:FakeTensor",
    purpose="pass over tensors without data on a line",
    lost=DETAIL,
)


TRANSFORMS = Internal(
    place="torch:_C._functorch.peek_interpreter_stack",
    purpose="see that a transform of torch.func is under way",
)
GRAD_AND_VALUE = Internal(
    place="torch._functorch.eager_transforms:grad_and_value_impl",
    purpose="count the steps of a training loop that torch.func.grad serves",
    parameters=("argnums", "has_aux", "args"),
)
TRACING = Internal(
    place="torch:_C._get_tracing_state",
    purpose="see that the JIT traces",
)
PARAMETERS = Internal(
    place="torch.nn:Module._parameters",
    purpose="read a module's parameters without running its code",
    lost=DETAIL,
    in_objects=True,
)
BUFFERS = Internal(
    place="torch.nn:Module._buffers",
    purpose="read a module's buffers without running its code",
    lost="checkpoint-resume",
    in_objects=True,
)
MODULES = Internal(
    place="torch.nn:Module._modules",
    purpose="read a module's submodules without running its code",
    lost="checkpoint-resume",
    in_objects=True,
)
UNSAVED_BUFFERS = Internal(
    place="torch.nn:Module._non_persistent_buffers_set",
    purpose="tell which buffers a checkpoint leaves out",
    lost="checkpoint-resume",
    in_objects=True,
)
