"""What all tests share: four CPU devices and the real images."""

import os
import signal
from pathlib import Path

# Before jax is imported: the devices are counted once, at its first use.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Shapes of different ranks meet only where the code says how.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Nothing of another run: also not in the experiments that tests start.
os.environ.setdefault("JAX_ENABLE_COMPILATION_CACHE", "false")

# What a shell starts in the background ignores Ctrl-C, and so would all that tests send
# it to.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Folder of real images beside the checkout; the test is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real images are not here")
    return SHARED_DATA
