"""Faces or comics: Bayesian optimization of learning rate and dropout.

python -m experiments.comics_tune                         # drawn faces, a try-out
python -m experiments.comics_tune --data.root DIR --tune.trials 30
python -m experiments.comics_tune --image-size 48 --epochs 6 --tune.sampler gp

The same command continues a study that was stopped; started several times at once, its
processes share the study.
"""

from experiments import comics_baseline
from experiments.common import run_cli
from experiments.tuning import run_tuning, tuning_config

Config = tuning_config(comics_baseline.Config)


def main(config: Config) -> None:
    run_tuning(
        "comics_tune",
        config,
        title="Faces or comics: tuning",
        question="Which learning rate and which dropout does Bayesian optimization "
        "find for the network that tells faces from comics?",
        prepare=comics_baseline.prepare,
        published=(comics_baseline.SECTION, "tuned"),
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
