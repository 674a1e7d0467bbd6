"""Who may import whom: a reader knows from a file's place what it may do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

LAYERS = {
    "jaxvision": 0,
    "jaxvision.compilation_cache": 0,
    "jaxvision.errors": 0,
    "jaxvision.training.lifeline": 0,
    "jaxvision.storage": 0,
    "jaxvision.config": 0,
    "jaxvision.preprocessing": 0,
    "jaxvision.typing": 0,
    "jaxvision.data": 1,
    "jaxvision.training.distributed": 1,
    "jaxvision.metrics": 1,
    "jaxvision.models": 1,
    "jaxvision.ops": 1,
    "jaxvision.optim": 1,
    "jaxvision.plotting": 1,
    "jaxvision.pretrained": 2,
    "jaxvision.training": 2,
    "jaxvision.training.state": 2,
    "jaxvision.training.checkpoint": 3,
    "jaxvision.training.step": 3,
    "jaxvision.training.parallel": 4,
    "jaxvision.training.loop": 5,
    "jaxvision.training.sweep": 5,
    "jaxvision.explain": 5,
    "jaxvision.classifier": 5,
    "jaxvision.robustness": 5,
    "jaxvision.transfer": 5,
    # Bars and figures for people: the commands of every layer show them.
    "jaxvision.report.formats": 0,
    "jaxvision.report.progress": 0,
    "jaxvision.report": 6,
}
"""Places, files or folders with all below them. Importing points to a lower layer."""

SIBLINGS = {
    ("jaxvision.models", "jaxvision.ops"),
    ("jaxvision.explain", "jaxvision.classifier"),
    ("jaxvision.classifier", "jaxvision.training.loop"),
    ("jaxvision.robustness", "jaxvision.classifier"),
    ("jaxvision.transfer", "jaxvision.training.loop"),
}
"""Imports within a layer: (who, whom)."""

NEVER = {
    "jaxvision": {"experiments", "tyro"},
    "jaxvision.data": {"chex", "flax", "jax", "jaxlib", "optax", "orbax"},
}
"""What nothing in a place may reach, for data not even by way of other modules."""


def modules(root: Path) -> dict[str, Path]:
    """The modules of the package `jaxvision` below `root`, by dotted name."""
    found = {}
    for path in sorted((root / "jaxvision").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[: -1 if parts[-1] == "__init__" else None])] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """(imported module, line) for every import of a module, wherever it stands."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module
            if node.level:
                above = package.rsplit(".", node.level - 1)[0]
                source = f"{above}.{node.module}" if node.module else above
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                yield submodule if submodule in known else source, node.lineno


def place(name: str) -> str | None:
    """The longest entry of `LAYERS` that the module is, or lies below.

    The package itself is the place of its `__init__` alone: whatever else lies below
    it has to be entered.
    """
    if name == "jaxvision":
        return name
    parts = name.split(".")
    candidates = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((c for c in candidates if c in LAYERS), None)


def violations(root: Path) -> list[str]:
    """One line for each import that points where it must not, or unplaced module."""
    known = modules(root)
    found = []
    for name, path in known.items():
        here = place(name)
        if here is None:
            found.append(f"{name} has no layer: enter it into LAYERS")
            continue
        for target, line in dict.fromkeys(imports(name, path, known)):
            where = f"{path.relative_to(root)}:{line}"
            if target.split(".")[0] in NEVER["jaxvision"]:
                found.append(f"{where} imports {target}")
            elif target.split(".")[0] == "jaxvision":
                there = place(target)
                if there is None:
                    found.append(f"{where} imports {target}, which has no layer")
                elif not _may(here, there):
                    found.append(f"{where} ({here}) imports {target}")
    return found


def _may(here: str, there: str) -> bool:
    if LAYERS[here] == LAYERS[there]:
        return here == there or LAYERS[here] == 0 or (here, there) in SIBLINGS
    return LAYERS[there] < LAYERS[here]


def chains_out_of_data(root: Path) -> list[str]:
    """`a > b > jax` for each way from `jaxvision.data` to what it must never load."""
    known = modules(root)
    found, seen = [], set()
    waiting = [[name] for name in known if place(name) == "jaxvision.data"]
    while waiting:
        chain = waiting.pop()
        if chain[-1] in seen:
            continue
        seen.add(chain[-1])
        for target, _ in imports(chain[-1], known[chain[-1]], known):
            if target.split(".")[0] in NEVER["jaxvision.data"]:
                found.append(" > ".join([*chain, target]))
            elif target in known:
                waiting.append([*chain, target])
    return found


def test_imports_point_down():
    assert violations(REPOSITORY) == []


def test_data_needs_no_jax():
    assert chains_out_of_data(REPOSITORY) == []


def test_layers_are_those_of_modules_that_may_exist():
    """A typing mistake in the table would let the module it means go unchecked."""
    known = modules(REPOSITORY)
    assert LAYERS.keys() <= known.keys()


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("ops/conv.py", "from jaxvision.training import loop", "imports jaxvision.training"),
        ("ops/conv.py", "from jaxvision import models", "imports jaxvision.models"),
        ("ops/conv.py", "from ..models import mlp", "imports jaxvision.models"),
        ("ops/conv.py", "from .. import models", "imports jaxvision.models"),
        ("ops/conv.py", "def f(): import jaxvision.training.loop", "jaxvision.training.loop"),
        ("errors.py", "import jaxvision.ops", "imports jaxvision.ops"),
        ("train/step.py", "import jaxvision.training.loop", "jaxvision.training.loop"),
        ("train/step.py", "import jaxvision.training.checkpoint", "train.checkpoint"),
        ("metrics.py", "from jaxvision.optim import Config", "imports jaxvision.optim"),
        ("report/page.py", "from experiments.x import f", "imports experiments.x"),
        ("report/page.py", "import tyro", "imports tyro"),
        ("utils.py", "", "jaxvision.utils has no layer"),
    ],
)
def test_an_import_that_points_up_is_found(tmp_path, file, line, complaint):
    _package(tmp_path, {file: line})
    (found,) = violations(tmp_path)
    assert complaint in found


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("models/net.py", "from jaxvision import ops"),
        ("models/net.py", "from . import mlp"),
        ("models/net.py", "import jaxvision, numpy"),
        ("ops/conv.py", "from jaxvision.errors import InputError"),
        ("train/loop.py", "from jaxvision.training.checkpoint import save"),
        ("errors.py", "from jaxvision.typing import PyTree"),
    ],
)
def test_an_import_that_points_down_is_allowed(tmp_path, file, line):
    _package(tmp_path, {file: line})
    assert violations(tmp_path) == []


def test_jax_is_found_behind_another_module(tmp_path):
    _package(
        tmp_path,
        {"data/load.py": "import jaxvision.typing", "typing.py": "import jax.numpy"},
    )
    assert chains_out_of_data(tmp_path) == [
        "jaxvision.data.load > jaxvision.typing > jax.numpy"
    ]


def _package(root: Path, files: dict[str, str]) -> None:
    """A package of empty modules, but for `files`."""
    empty = ("__init__", "errors", "typing", "metrics", "optim", "models/__init__")
    empty += ("models/mlp", "ops/__init__", "train/__init__", "train/loop")
    empty += ("train/step", "train/checkpoint")
    for file, text in ({f"{name}.py": "" for name in empty} | files).items():
        path = root / "jaxvision" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
