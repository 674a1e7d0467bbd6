"""The arithmetic of the networks: `jax.lax`'s numbers, fast on every backend.

Images are `[B, H, W, C]`, kernels `[height, width, in, out]`, and padding is always
explicit: `((top, bottom), (left, right))`. Everything works under `jit`, `grad`,
`vmap`, `scan`, `pmap` and `shard_map`. On CPUs the derivatives are rules of our own:
reverse mode only, so that `jax.jvp` and `jax.hessian` raise a TypeError there, unless
the function is traced under `lax_only()`.
"""

from jaxvision.ops.dispatch import (
    avg_pool,
    batch_norm_frozen,
    batch_norm_train,
    conv,
    depthwise_conv,
    is_lax_only,
    lax_only,
    local_response_norm,
    max_pool,
)

__all__ = [
    "avg_pool",
    "batch_norm_frozen",
    "batch_norm_train",
    "conv",
    "depthwise_conv",
    "is_lax_only",
    "lax_only",
    "local_response_norm",
    "max_pool",
]
