"""Which learning rate and dropout suit faces and comics? Bayesian optimization.

python -m experiments.comics_tune                         # drawn faces and comics
python -m experiments.comics_tune --data.root DIR --tune.trials 30
python -m experiments.comics_tune --image-size 48 --epochs 6 --tune.sampler gp

The same command continues a study that was stopped; started several times at once, its
processes share the study. On 250 real images of 64 pixels, 10 trials of 15 epochs:
learning rate 4.9e-4, dropout .038; published: 1e-4 and .1.
"""

import dataclasses

from experiments import comics_baseline
from experiments.comics_baseline import SMALL
from jaxvision.cli.experiment import tune_main

EXPERIMENT = dataclasses.replace(
    comics_baseline.EXPERIMENT,
    name="comics_tune",
    order=1,
    title="Tuning",
    question="Which learning rate and dropout does Bayesian optimization find?",
    reference="Learning rate 1e-4 and dropout .1.",
    published_rows=(("tuned", {}),),
    laptop=(f"{SMALL} --tune.trials 6",),
)

if __name__ == "__main__":
    tune_main(EXPERIMENT)
