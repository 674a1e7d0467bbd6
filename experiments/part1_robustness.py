"""Part 1.7: the best network under changed images, and what augmentation buys.

python -m experiments.part1_robustness                    # drawn paintings
python -m experiments.part1_robustness --data.root DIR    # one subfolder per painter
"""

import dataclasses
import time
from pathlib import Path

from experiments.common import run_cli
from experiments.part1_tuning import best_rows
from experiments.tables import Study, StudyConfig


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Trains the two best networks, unless that is done, and changes the images."""

    transforms: tuple[str, ...] = ()
    """Names of changes; none: those of the assignment."""


def main(config: Config, study: Study | None = None) -> Path:
    """The run folder, whose path is also the last line on standard output."""
    from experiments.robustness_report import (
        measure_network,
        measurements,
        write_robustness,
    )
    from experiments.tables import say
    from jaxvision.report.run_folder import RunFolder
    from jaxvision.robustness import ASSIGNMENT, strengths_of

    began = time.monotonic()
    transforms = config.transforms or ASSIGNMENT
    strengths_of(transforms)  # refuses an unknown one
    study = study or Study(config)
    rows = best_rows()
    networks = [
        measure_network(
            row.name,
            runs[0].folder.parent,
            split="val",
            root=study.dataset.root,
            transforms=transforms,
            seeds=config.seeds,
        )
        for row, runs in zip(rows, study.train(rows, "best networks"), strict=True)
    ]
    run = RunFolder.create("part1_robustness", root=config.runs)
    run.write_config(config)
    image = networks[0].find_image(None)
    write_robustness(run, networks, image=image, seed=0, began=began)
    endings = ("unchanged", "mean over all changes")
    figures = [m for m in measurements(networks) if m.name.endswith(endings)]
    say(figures, run.path, demo=study.dataset.is_demo)
    return run.path


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
