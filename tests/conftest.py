"""What all tests share: four CPU devices, the real images and a browser."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before jax is imported: the devices are counted once, at its first use.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=4"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Shapes of different ranks meet only where the code says how.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
# Whatever the shell says.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "true"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
# Tests run side by side: threads of NumPy's and PyTorch's products would only wait for
# each other.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

# What a shell starts in the background ignores Ctrl-C, and so would all that tests send
# it to.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest

# What a test has compiled the next ones of its process find. Commands have a folder of
# their own: one that is killed may leave half a program.
_COMPILED = tempfile.TemporaryDirectory(prefix="jaxvision-tests-")
jax.config.update("jax_compilation_cache_dir", f"{_COMPILED.name}/tests")
os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{_COMPILED.name}/commands"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LONG = ("pretrained", "experiments", "models", "test_docs.py", "test_tuning.py")
"""Files and folders of tests that take longest."""
OPTIMIZED = ("explain", "ops", "pretrained", "test_step.py")
"""Folders and files whose programs XLA optimizes as it does for users, since they
compare numbers with other implementations, or compute for long."""
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, lest one process ends with it alone."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in LONG)


@pytest.fixture(autouse=True, scope="module")
def optimization(request: pytest.FixtureRequest) -> None:
    """How much XLA optimizes, in the commands of a test too: compiling is half of what
    the tests take, and less optimization takes 40 % off it."""
    less = not set(request.path.parts).intersection(OPTIMIZED)
    jax.config.update("jax_disable_most_optimizations", less)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(less))


@pytest.fixture
def shared_data() -> Path:
    """Folder of real images beside the checkout; the test is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real images are not here")
    return SHARED_DATA


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """The system's browser, driven by Playwright; skipped where one is missing."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="it drives the browser"
    )
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on this machine: none of {', '.join(BROWSERS)}")
    # Chromium's sandbox refuses to run as root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()
