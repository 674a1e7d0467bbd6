"""Reads `.safetensors` files: named arrays with their bytes, nothing to execute.

The library of that name checks what a file declares against its bytes.
"""

from pathlib import Path

import numpy as np

from jaxvision.errors import InputError


def is_safetensors(start: bytes) -> bool:
    """Whether a file may be one, by its first nine bytes or more: the length of a
    description in JSON, and that."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 2**32


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name.

    Returns:
      Arrays in the file's dtypes, bfloat16 widened to float32.

    Raises:
      InputError: the file is missing, truncated or damaged, holds a dtype that NumPy
        has not, or the library is not installed.
    """
    try:
        import ml_dtypes  # JAX brings it; with it NumPy knows bfloat16
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise InputError(
            f"{path}: to read it, install safetensors: pip install safetensors"
        ) from None
    tensors: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118, it is no dictionary
                array = file.get_tensor(name)
                is_short = array.dtype == ml_dtypes.bfloat16
                tensors[name] = array.astype(np.float32) if is_short else array
    except (OSError, SafetensorError, TypeError, ValueError, MemoryError) as error:
        raise InputError(
            f"{path} cannot be read ({str(error)[:200]!r}); if it is there, it is"
            " damaged or cut off: download it again"
        ) from None
    if not tensors:
        raise InputError(f"{path}: it holds no tensors")
    return tensors
