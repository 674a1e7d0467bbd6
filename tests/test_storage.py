"""Where caches lie."""

import os
import subprocess
import sys
from pathlib import Path

NO_HOME = """
from pathlib import Path

def home():
    raise RuntimeError("Could not determine home directory.")

Path.home = home
from jaxvision.storage import cache_folder

assert cache_folder() == cache_folder() and cache_folder().is_dir()
print(cache_folder())
"""


def test_a_user_without_a_home_folder_has_a_cache_for_the_process():
    """As a user id without a passwd entry, in a container."""
    environment = {k: v for k, v in os.environ.items() if k != "JAXVISION_CACHE"}
    run = subprocess.run(
        [sys.executable, "-c", NO_HOME],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    (line,) = run.stderr.splitlines()
    assert "set JAXVISION_CACHE" in line
    assert not Path(run.stdout.strip()).exists()
