"""How fast jaxvision is on this machine, beside PyTorch: one page and the same as JSON.

python -m benchmarks                 # everything; takes long
python -m benchmarks --quick         # fewer rounds, smaller runs
python -m benchmarks --only networks --networks simple_cnn alexnet
python -m benchmarks --only finetuning --faces DIR

Close everything else: what runs beside it is measured with it.
"""

import dataclasses
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxvision.cli.flags import run
from jaxvision.config import to_plain
from jaxvision.errors import InputError
from jaxvision.report.formats import format_duration
from jaxvision.report.markdown import Section, Table, Text
from jaxvision.report.run_folder import RunFolder, environment
from jaxvision.storage import write_json

if TYPE_CHECKING:
    from benchmarks.harness import Result

SectionName = Literal[
    "networks",
    "input_pipeline",
    "transfer",
    "export",
    "start",
    "finetuning",
    "memory",
    "experiments",
    "accelerator",
]
"""In the order of the page."""

QUIET_FIRST: tuple[SectionName, ...] = (
    "start",
    "finetuning",
    "memory",
    "experiments",
    "input_pipeline",
    "transfer",
    "export",
    "networks",
    "accelerator",
)
"""In the order of measuring: what starts processes of its own comes before this one
has filled its memory, and what counts compiling before programs are kept."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to measure."""

    quick: bool = False
    """Fewer rounds, smaller runs, no `torch.compile`."""
    only: tuple[SectionName, ...] = ()
    """Parts of the page; all by default, the accelerator's where there is one."""
    networks: tuple[str, ...] = ()
    """Only these networks."""
    faces: Path | None = None
    """Images for `finetuning` and `memory`, one subfolder per person, of whom each has
    more than 70; the drawn faces if none."""
    runs: Path = Path("runs")
    """The page goes to a new folder in here."""


def measure(name: SectionName, config: Config) -> Iterator["Result"]:
    """The tables of one part, as they are measured."""
    quick = config.quick
    match name:
        case "networks":
            from benchmarks import networks
            from benchmarks.harness import measure_rates
            from jaxvision.compilation_cache import use_compilation_cache

            use_compilation_cache()
            rates = measure_rates(quick=quick)
            yield networks.run(rates, quick=quick, names=config.networks)
        case "input_pipeline":
            from benchmarks import input_pipeline

            yield input_pipeline.run(quick=quick)
        case "transfer":
            from benchmarks import transfer

            yield transfer.run(quick=quick)
        case "export":
            from benchmarks import export

            yield export.run(quick=quick)
        case "start":
            from benchmarks import start

            yield start.first_step(quick=quick)
        case "finetuning":
            from benchmarks import start

            yield start.finetuning(quick=quick, faces=config.faces)
        case "memory":
            from benchmarks import start

            yield start.memory(quick=quick, faces=config.faces)
        case "experiments":
            from benchmarks import start

            yield start.experiments(quick=quick)
        case "accelerator":
            from benchmarks import accelerator

            if accelerator.here() or name in config.only:
                yield accelerator.throughput(quick=quick, names=config.networks)
                yield accelerator.sweep(quick=quick)


def main(config: Config) -> None:
    """Measures, and writes after every part; status 1 if one of them failed."""
    _check_torch()
    _check_networks(config.networks)
    folder = RunFolder.create("benchmarks", root=config.runs)
    found: dict[str, list[Result]] = {}
    problems: dict[str, str] = {}
    took: dict[str, float] = {}
    for name in QUIET_FIRST:
        if config.only and name not in config.only:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        began = time.monotonic()
        try:
            found[name] = []
            for result in measure(name, config):
                found[name].append(result)
        except Exception as error:  # the other parts are worth having
            traceback.print_exc()
            problems[name] = f"{type(error).__name__}: {error}"
        took[name] = time.monotonic() - began
        write(folder, config, found, problems, took)
    print((folder.path / "benchmarks.md").read_text("utf-8"))
    print(folder.path / "benchmarks.md")
    if problems:
        raise SystemExit(1)


def write(
    folder: RunFolder,
    config: Config,
    found: Mapping[str, list["Result"]],
    problems: Mapping[str, str],
    took: Mapping[str, float],
) -> None:
    """`benchmarks.md` and `benchmarks.json`, replaced as a whole."""
    versions, machine = _environment()
    order = [name for name in SectionName.__args__ if name in took]
    sections = [
        Section(result.heading, [Text(result.notes), Table(result.header, result.rows)])
        for name in order
        for result in found.get(name, [])
    ]
    if problems:
        rows = [[name, problem] for name, problem in problems.items()]
        sections.append(Section("Failed", [Table(["part", "why"], rows)]))
    facts: dict[str, Any] = {**machine, **versions}
    facts |= {f"seconds for {name}": format_duration(took[name]) for name in order}
    rows = [[name, str(value)] for name, value in facts.items()]
    sections.append(Section("Machine, versions, duration", [Table(["", ""], rows)]))
    kind = "quick: few rounds" if config.quick else "full"
    title = f"# Benchmarks ({kind})\n\n`{folder.command}`"
    text = "\n\n".join([title, *(section.render() for section in sections)])
    folder.write_text("benchmarks.md", text + "\n")
    values = {
        "config": config,
        "machine": machine,
        "versions": versions,
        "seconds": took,
        "problems": problems,
        "figures": {
            name: [{"heading": r.heading, "rows": list(r.figures)} for r in results]
            for name, results in found.items()
        },
    }
    write_json(folder.path / "benchmarks.json", to_plain(values))


def _environment() -> tuple[dict[str, Any], dict[str, Any]]:
    import jax
    import torch

    devices = [device.device_kind for device in jax.devices()]
    versions, machine = environment(devices)
    machine["load before"] = f"{_LOAD:.2f}"
    machine["GLIBC_TUNABLES"] = os.environ.get("GLIBC_TUNABLES", "")
    machine["torch threads"] = torch.get_num_threads()
    return {**versions, "torch": torch.__version__}, machine


_LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
"""Of the last minute, when this began: close to 0 where nothing else runs."""


def _check_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise InputError(
            "the benchmarks compare with PyTorch: pip install -e '.[parity]'"
        ) from None


def _check_networks(names: Sequence[str]) -> None:
    from benchmarks.networks import CASES

    for name in names:
        if name not in CASES:
            raise InputError(
                f"is not timed; choose among {', '.join(CASES)}",
                setting="networks",
                value=name,
            )


if __name__ == "__main__":
    run(Config, main, None, "python -m benchmarks", __doc__)
