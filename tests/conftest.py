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
# Nothing of another run in the commands that tests start.
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"

# What a shell starts in the background ignores Ctrl-C, and so would all that tests send
# it to.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import jax
import pytest

# What a test has compiled the next ones of its process find. A killed process would
# leave half a program.
_COMPILED = tempfile.TemporaryDirectory(prefix="jaxvision-tests-")
jax.config.update("jax_enable_compilation_cache", True)
jax.config.update("jax_compilation_cache_dir", _COMPILED.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


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
