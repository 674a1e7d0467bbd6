"""Part 2.5: which pixels of a face speak for its name.

python -m experiments.part2_saliency                      # newest of part2_finetune
python -m experiments.part2_saliency --checkpoint checkpoints/part2_finetune/TIME
"""

import dataclasses
import time
from pathlib import Path
from typing import Literal

from experiments.common import run_cli
from jaxvision.errors import InputError

TRAINED_BY = "part2_finetune"
"""The experiment whose networks are explained where none is named."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Explains a trained network, face by face: gradients, attention, units."""

    checkpoint: Path | None = None
    """Folder of a training run, or of one of its seeds; none: the newest finished run
    of part2_finetune in `checkpoints`."""
    root: Path | None = None
    """Folder of the images, where it has moved; they are matched by name."""
    split: Literal["train", "val", "test"] = "test"
    """Which part of the images."""
    people: tuple[str, ...] = ()
    """Classes with one image each explained; none: all."""
    image: str | None = None
    """The correctly classified image that every method explains, as its path in the
    folder; none: the first."""
    checked: int = 4
    """Images a seed for the figures: does an explanation depend on what the network
    has learned, and do integrated gradients add up?"""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""
    checkpoints: Path = Path("checkpoints")
    """Where trained networks are looked for."""


def main(config: Config) -> Path:
    """The run folder, whose path is also the last line on standard output."""
    from experiments.saliency_report import explain_run, write_saliency
    from experiments.tables import say
    from jaxvision.report.run_folder import RunFolder

    began = time.monotonic()
    folder = config.checkpoint or _newest(config.checkpoints)
    explained = explain_run(
        folder,
        root=config.root,
        split=config.split,
        people=config.people,
        image=config.image,
        checked=config.checked,
    )
    run = RunFolder.create("part2_saliency", root=config.runs)
    run.write_config(dataclasses.replace(config, checkpoint=folder))
    figures = write_saliency(run, explained, began=began)
    say(figures, run.path, demo=explained.dataset.is_demo)
    return run.path


def _newest(checkpoints: Path) -> Path:
    """The newest run of `TRAINED_BY` whose seeds are all trained and measured."""
    from jaxvision.classifier import CARD, ModelCard, seed_folders

    for folder in sorted((checkpoints / TRAINED_BY).glob("*"), reverse=True):
        if not any(folder.glob(f"seed-*/{CARD}")):
            continue
        if all(ModelCard.read(seed).recorded for seed in seed_folders(folder)):
            return folder
    raise InputError(
        f"no finished network in {checkpoints / TRAINED_BY}: train one with python -m "
        f"experiments.{TRAINED_BY}, or name another with --checkpoint"
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
