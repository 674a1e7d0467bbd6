"""Who may import whom: a reader knows from a file's place what it may do."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

FLOORS = (
    # Words, numbers and files.
    (
        "jaxvision.errors",
        "jaxvision.typing",
        "jaxvision.config",
        "jaxvision.preprocessing",
        "jaxvision.storage",
        "jaxvision.compilation_cache",
        "jaxvision.report.formats",
        "jaxvision.report.progress",
        "jaxvision.training.history",
        "jaxvision.training.lifeline",
    ),
    (
        "jaxvision.arrays",
        "jaxvision.data",
        "jaxvision.metrics",
        "jaxvision.ops",
        "jaxvision.explain.config",
        "jaxvision.robustness.config",
        "jaxvision.traces",
    ),
    # What is trained, by which settings; and how it is drawn.
    (
        "jaxvision.kept_traces",
        "jaxvision.linear_heads",
        "jaxvision.settings",
        "jaxvision.models",
        "jaxvision.plotting",
    ),
    (
        "jaxvision.declaration",
        "jaxvision.export",
        "jaxvision.label_errors",
        "jaxvision.optim",
        "jaxvision.prediction",
        "jaxvision.pretrained",
        "jaxvision.report",
        "jaxvision.training",
        "jaxvision.training.color",
        "jaxvision.training.distributed",
        "jaxvision.training.mixing",
        "jaxvision.training.state",
        "jaxvision.tta",
    ),
    (
        "jaxvision.explain",
        "jaxvision.training.checkpoint",
        "jaxvision.training.step",
    ),
    ("jaxvision.training.parallel",),
    ("jaxvision.training.loop",),
    # The nouns.
    ("jaxvision.classifier", "jaxvision.transfer"),
    ("jaxvision.recipe", "jaxvision.results"),
    ("jaxvision.crossval",),
    (
        "jaxvision.explain.report",
        "jaxvision.explain.weights_report",
        "jaxvision.rate_finder",
        "jaxvision.report.sections",
        "jaxvision.robustness",
        "jaxvision.training.sweep",
    ),
    ("jaxvision.experiment", "jaxvision.explain.saliency", "jaxvision.serve"),
    ("jaxvision.rate_report", "jaxvision.tuning"),
    ("jaxvision.cli",),
    ("jaxvision.__main__",),
)
"""Places, files or folders with all below them, from the ground up. An import points to
a lower floor, or stays in its place; on the ground floor it may go to any other."""

FLOOR_OF = {place: floor for floor, places in enumerate(FLOORS) for place in places}

API = "jaxvision"
"""The package itself: it offers what lies on every floor, and has the version."""

NOT_IN_DATA = {"chex", "flax", "jax", "jaxlib", "optax", "orbax"}
"""What nothing in data may load, not even by way of other modules."""

FOREIGN_FLAGS = {"--porcelain", "--untracked-files"}
"""Flags of other programs, which the library calls."""


class Import(NamedTuple):
    target: str
    line: int
    typing_only: bool
    """Whether it serves annotations alone, and loads nothing."""


def modules(root: Path) -> dict[str, Path]:
    """The modules of the package `jaxvision` below `root`, by dotted name."""
    found = {}
    for path in sorted((root / "jaxvision").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[: -1 if parts[-1] == "__init__" else None])] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """Every import of a module, wherever it stands: in functions, for annotations."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text("utf-8"))
    for_typing = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, node in for_typing)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                above = package.rsplit(".", node.level - 1)[0]
                source = f"{above}.{node.module}" if node.module else above
            for alias in node.names:
                submodule = f"{source}.{alias.name}"
                target = submodule if submodule in known else source
                yield Import(target, node.lineno, node in for_typing)


def place(name: str) -> str | None:
    """The longest entry of `FLOORS` that the module is, or lies below."""
    parts = name.split(".")
    candidates = (".".join(parts[:length]) for length in range(len(parts), 1, -1))
    return next((c for c in candidates if c in FLOOR_OF), None)


def violations(root: Path) -> list[str]:
    """One line for each import that points where it must not, or unplaced module."""
    known = modules(root)
    found = []
    for name, path in known.items():
        here = place(name)
        if here is None and name != API:
            found.append(f"{name} has no floor: enter it into FLOORS")
            continue
        for target, line, _ in dict.fromkeys(imports(name, path, known)):
            where = f"{path.relative_to(root)}:{line}"
            package = target.split(".")[0]
            if package == "experiments" or (
                package == "tyro" and here != "jaxvision.cli"
            ):
                found.append(f"{where} imports {target}")
            elif package == "jaxvision" and API not in (name, target):
                there = place(target)
                if there is None:
                    found.append(f"{where} imports {target}, which has no floor")
                elif here is not None and not _may(here, there):
                    found.append(f"{where} ({here}) imports {target}")
    return found


def _may(here: str, there: str) -> bool:
    ground = FLOOR_OF[here] == FLOOR_OF[there] == 0
    return here == there or ground or FLOOR_OF[there] < FLOOR_OF[here]


def circles(root: Path) -> list[list[str]]:
    """The groups of modules that import each other, deferred and for annotations too.

    By Tarjan's algorithm (SIAM J. Comput. 1, 1972, 146-160).
    """
    known = modules(root)
    targets = {
        name: {i.target for i in imports(name, path, known)} & (known.keys() - {name})
        for name, path in known.items()
    }
    number: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        number[name] = low[name] = len(number)
        stack.append(name)
        for target in sorted(targets[name]):
            if target not in number:
                visit(target)
            if target in stack:
                low[name] = min(low[name], low[target])
        if low[name] == number[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in known:
        if name not in number:
            visit(name)
    return found


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
        for target, _, typing_only in imports(chain[-1], known[chain[-1]], known):
            if typing_only or target == API:
                continue
            if target.split(".")[0] in NOT_IN_DATA:
                found.append(" > ".join([*chain, target]))
            elif target in known:
                waiting.append([*chain, target])
    return found


def flags(root: Path) -> list[str]:
    """Every flag of a command line that is written outside `jaxvision.cli`, and outside
    the scripts that go with an export, which have a command line of their own."""
    return [
        f"{path.relative_to(root)}:{number} {flag}"
        for name, path in modules(root).items()
        if place(name) != "jaxvision.cli"
        and not name.startswith("jaxvision.export.files")
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line)
        if flag not in FOREIGN_FLAGS
    ]


def test_imports_point_down():
    assert violations(REPOSITORY) == []


def test_no_modules_import_each_other():
    assert circles(REPOSITORY) == []


def test_data_needs_no_jax():
    assert chains_out_of_data(REPOSITORY) == []


def test_the_library_knows_no_flags():
    """It names settings; the command line makes flags of them."""
    assert flags(REPOSITORY) == []


def test_floors_are_those_of_modules_that_exist():
    """A typing mistake in the table would let the module it means go unchecked."""
    assert FLOOR_OF.keys() <= modules(REPOSITORY).keys()


@pytest.mark.parametrize(
    ("file", "line", "complaint"),
    [
        ("ops/conv.py", "from jaxvision.training import loop", "jaxvision.training"),
        ("ops/conv.py", "from jaxvision import models", "imports jaxvision.models"),
        ("ops/conv.py", "from ..models import mlp", "imports jaxvision.models"),
        ("ops/conv.py", "from .. import models", "imports jaxvision.models"),
        ("ops/conv.py", "def f(): import jaxvision.training.loop", "training.loop"),
        ("errors.py", "import jaxvision.ops", "imports jaxvision.ops"),
        ("training/step.py", "import jaxvision.training.loop", "training.loop"),
        ("training/step.py", "import jaxvision.training.checkpoint", "checkpoint"),
        ("metrics.py", "from jaxvision.optim import Config", "imports jaxvision.optim"),
        ("report/page.py", "from experiments.x import f", "imports experiments.x"),
        ("report/page.py", "import tyro", "imports tyro"),
        ("utils.py", "", "jaxvision.utils has no floor"),
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
        ("training/loop.py", "from jaxvision.training.checkpoint import save"),
        ("errors.py", "from jaxvision.typing import PyTree"),
        ("cli/flags.py", "import tyro"),
        ("__init__.py", "def f(): from jaxvision.training import loop"),
    ],
)
def test_an_import_that_points_down_is_allowed(tmp_path, file, line):
    _package(tmp_path, {file: line})
    assert violations(tmp_path) == []


def test_a_circle_is_found_however_it_hides(tmp_path):
    _package(
        tmp_path,
        {
            "ops/a.py": "from jaxvision.ops.b import f",
            "ops/b.py": "def f():\n    from jaxvision.ops import c",
            "ops/c.py": "if TYPE_CHECKING:\n    from jaxvision.ops.a import g",
            "ops/d.py": "from jaxvision.ops import a",
        },
    )
    names = ["jaxvision.ops.a", "jaxvision.ops.b", "jaxvision.ops.c"]
    assert circles(tmp_path) == [names]


def test_jax_is_found_behind_another_module(tmp_path):
    _package(
        tmp_path,
        {
            "data/load.py": "import jaxvision.storage\nimport jaxvision.typing",
            "storage.py": "if TYPE_CHECKING:\n    import jax",
            "typing.py": "def f():\n    import jax.numpy",
        },
    )
    assert chains_out_of_data(tmp_path) == [
        "jaxvision.data.load > jaxvision.typing > jax.numpy"
    ]


def test_a_flag_is_found(tmp_path):
    text = "# ---\nraise InputError('give --epochs')  # or --data.root"
    _package(tmp_path, {"errors.py": text, "cli/main.py": text})
    found = ["jaxvision/errors.py:2 --epochs", "jaxvision/errors.py:2 --data"]
    assert flags(tmp_path) == found


def _package(root: Path, files: dict[str, str]) -> None:
    """A package of empty modules, but for `files`."""
    empty = ("__init__", "errors", "typing", "metrics", "optim", "models/__init__")
    empty += ("models/mlp", "ops/__init__", "training/__init__", "training/loop")
    empty += ("training/step", "training/checkpoint")
    for file, text in ({f"{name}.py": "" for name in empty} | files).items():
        path = root / "jaxvision" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
