"""The documentation is true: its pages are followed to the letter."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"

_BLOCK = re.compile(r'^```(python|diff) title="([^"]+)"\n(.*?)^```$', re.M | re.S)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three classes of six small images."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(("a", "b", "c")):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = rng.integers(0, 150, (32, 32, 3)) + 50 * label
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("page", sorted(DOCS.glob("add-a*.md")), ids=lambda p: p.stem)
def test_a_stranger_can_add_what_the_page_says(page, tmp_path, photos):
    work = tmp_path / "work"
    for package in ("jaxvision", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / package, work / package, ignore=ignored)
    script = f"PHOTOS = {str(photos)!r}\n"
    blocks = _BLOCK.findall(page.read_text("utf-8"))
    assert blocks
    for kind, title, text in blocks:
        if title == "try it":
            script += text
        elif kind == "python":
            (work / title).write_text(text, "utf-8")
        else:
            apply(work / title, text)
    result = run(script, work)
    assert result.returncode == 0, result.stderr


def test_the_tutorial_runs(tmp_path):
    page = (DOCS / "tutorial.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    assert len(blocks) > 5
    result = run("\n".join(blocks), tmp_path)
    assert result.returncode == 0, result.stderr


def apply(path: Path, diff: str) -> None:
    """Adds the lines marked + and drops those marked -, beside the others.

    New lines stand where the page has them: after the unmarked lines above them, or
    before those below; of an unmarked line above and one below, the page shows which.
    """
    text = path.read_text("utf-8")
    lines = diff.splitlines()
    old = "\n".join(line[1:] for line in lines if line[:1] != "+")
    new = "\n".join(line[1:] for line in lines if line[:1] != "-")
    assert text.count(old) == 1, f"{path.name}: {text.count(old)} times:\n{old}"
    path.write_text(text.replace(old, new), "utf-8")


def run(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a folder whose packages come first."""
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env={
            "PYTHONPATH": str(folder),
            "PATH": "",
            "JAX_PLATFORMS": "cpu",
            "JAXVISION_CACHE": str(folder / "cache"),
            "HOME": str(folder),
        },
        capture_output=True,
        text=True,
        timeout=500,
    )
