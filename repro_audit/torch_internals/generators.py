"""What it takes to read generators, and what waits for CUDA to start."""

from __future__ import annotations

from repro_audit.torch_internals import Internal

GENERATOR_ADDRESS = Internal(
    place="torch:Generator._cdata",
    purpose="read the state of a generator where it lies",
)
CUDA_IN_FORK = Internal(
    place="torch.cuda:_is_in_bad_fork",
    purpose="see that a forked process can use no CUDA device",
    lost="repro_audit.rng.restore",
)
CUDA_QUEUE = Internal(
    place="torch.cuda:_queued_calls",
    purpose="keep the seedings that wait for CUDA",
    lost="repro_audit.rng.snapshot",
)
CUDA_SEEDS = Internal(
    place="torch.cuda:_lazy_seed_tracker",
    purpose="keep the seedings that wait for CUDA",
    lost="repro_audit.rng.snapshot",
)
CUDA_LOCK = Internal(
    place="torch.cuda:_initialization_lock",
    purpose="keep the seedings that wait for CUDA",
    lost="repro_audit.rng.restore",
)
MPS_GENERATOR = Internal(
    place="torch.mps:_get_default_mps_generator",
    purpose="list the generator of an Apple device",
    lost="repro-audit rng on an Apple device",
)
HAS_BFLOAT16 = Internal(
    place="torch:ops.mkldnn._is_mkldnn_bf16_supported",
    purpose="see whether oneDNN may obey `medium`",
    lost="matmul-precision",
    optional=True,
)
