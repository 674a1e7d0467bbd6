"""Programs that run once or twice, so that compiling is what takes time."""

from functools import partial

import jax

quick_jit = partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_cpu_use_fusion_emitters": False,
    },
)
"""`jax.jit` with less optimization, which compiles in a third of the time: for what is
compared with a tolerance, not bit by bit with what users run."""
