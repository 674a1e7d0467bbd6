"""Programs that run once or twice, so that compiling is what takes time."""

from functools import partial

import jax

quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""`jax.jit` with less optimization, which compiles in two thirds of the time: for what
is compared with a tolerance, not bit by bit with what users run."""
