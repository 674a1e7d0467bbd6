"""How much accuracy a trained network keeps when its images are changed.

python -m experiments.robustness --checkpoint checkpoints/part1_tuning/TIME
python -m experiments.robustness --checkpoint DIR --compare DIR_WITH_AUGMENTATION
"""

import dataclasses
import time
from pathlib import Path
from typing import Literal

from experiments.common import run_cli


@dataclasses.dataclass(frozen=True)
class Config:
    """Measures a checkpoint, all seeds of it, under brightening, blur, rotation, …"""

    checkpoint: Path
    """Folder of a training run, or of one of its seeds."""
    compare: Path | None = None
    """Folder of a second network, such as one that was trained with augmentation."""
    split: Literal["train", "val", "test"] = "val"
    """Which part of the images."""
    root: Path | None = None
    """Folder of the images, where it has moved; they are matched by name."""
    transforms: tuple[str, ...] = ()
    """Names of changes; none: those of the assignment."""
    image: str | None = None
    """The image on the contact sheet, as its path in the folder; none: the first
    that the network classifies correctly."""
    label: str = "trained"
    """Name of the network in figures and tables."""
    compare_label: str = "compared"
    """Name of the second network."""
    seed: int = 0
    """Of the places, directions and signs of the changes."""
    runs: Path = Path("runs")
    """The report goes to a new folder in here."""


def main(config: Config) -> None:
    from experiments.robustness_report import measure_network, write_robustness
    from jaxvision.errors import InputError
    from jaxvision.report.formats import format_mean_sd
    from jaxvision.report.run_folder import RunFolder
    from jaxvision.robustness import ASSIGNMENT, strengths_of

    began = time.monotonic()
    transforms = config.transforms or ASSIGNMENT
    strengths_of(transforms)
    folders = {config.label: config.checkpoint}
    if config.compare is not None:
        if config.compare_label == config.label:
            raise InputError(f"--compare-label {config.label}: give it another name")
        folders[config.compare_label] = config.compare
    networks = [
        measure_network(
            label,
            folder,
            split=config.split,
            root=config.root,
            transforms=transforms,
            seed=config.seed,
        )
        for label, folder in folders.items()
    ]
    if networks[0].dataset.classes != networks[-1].dataset.classes:
        raise InputError(
            f"--compare {config.compare}: its classes are not those of --checkpoint"
        )
    image = networks[0].find_image(config.image)
    run = RunFolder.create("robustness", root=config.runs)
    run.write_config(config)
    write_robustness(run, networks, image=image, seed=config.seed, began=began)
    demo = " (demo data)" if networks[0].dataset.is_demo else ""
    for network in networks:
        for name, figure in (
            ("unchanged", network.baseline()),
            ("mean over all changes", network.overall()),
        ):
            spread = format_mean_sd(figure.mean, figure.sd)
            print(f"{network.label}: {config.split} accuracy {spread}, {name}{demo}")
    print(f"report: {run.path / 'report.md'}")
    print(run.path)


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
