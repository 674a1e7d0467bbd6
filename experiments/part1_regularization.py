"""1.4 Which regularization helps? 451 paintings, 11 painters.

python -m experiments.part1_regularization                # drawn paintings
python -m experiments.part1_regularization --data.root DIR

2 cores: part 1 up to 1.6 takes 17 min with 3 seeds. Dropout of .1 has the highest
validation accuracy of its table, .576 ± .063 over 5 seeds; published .538 and .58.
"""

import dataclasses

from experiments.part1_baseline import FIRST, SEEDS, SPLIT
from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.declaration import Experiment, Table
from jaxvision.settings import OptimConfig, Recipe, ScheduleConfig

POOLED = FIRST.replace(pool_kernel=2, pool_stride=1)
"""The network that the reports regularize."""

RATE = 1e-4
"""Learning rate where nothing else is said."""

OPTIMIZERS = {
    "adam": OptimConfig("adam", RATE),
    "sgd": OptimConfig("sgd", RATE, momentum=0.0),
    "rmsprop": OptimConfig("rmsprop", RATE),
    "sgd, rate 0.01, momentum 0.9": OptimConfig("sgd", 0.01),
}

SCHEDULES = {
    "constant": ScheduleConfig(),
    "step, 0.1 every 30 epochs": ScheduleConfig("step", gamma=0.1, step_epochs=30),
    "step, 0.5 every 10 epochs": ScheduleConfig("step", gamma=0.5, step_epochs=10),
    "exponential, 0.95 an epoch": ScheduleConfig("exponential", gamma=0.95),
    "cosine to zero": ScheduleConfig("cosine"),
}

EPOCHS_OF_PATIENCE = {2: 50, 5: 50, 10: 50, 20: 50, 100: 200}


def decayed(optimizer: str, decay: float) -> Recipe:
    optim = dataclasses.replace(OPTIMIZERS[optimizer], weight_decay=decay)
    return POOLED.replace(optim=optim)


EXPERIMENT = Experiment(
    name="part1_regularization",
    section="1.4",
    title="Regularization",
    question="What do dropout, optimizers, weight decay, early stopping and schedules "
    "change?",
    chapter="part-1",
    dataset="artists",
    tables={
        "dropout": Table(
            {
                f"dropout {rate:g}": POOLED.replace(
                    conv_dropout_rate=rate, dense_dropout_rate=rate
                )
                for rate in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
            },
            about="Dropout after both pools and the dense layer.",
        ),
        "optimizers": Table(
            {name: POOLED.replace(optim=optim) for name, optim in OPTIMIZERS.items()},
            about="Optimizers at one learning rate, as the reports compare them; and "
            "gradient descent with momentum at a rate that suits it.",
        ),
        **{
            f"weight_decay_{name}": Table(
                {
                    f"decay {decay:g}": decayed(name, decay)
                    for decay in (0.0, 1e-4, 1e-3, 1e-2)
                },
                about=f"An L2 term in the gradient of kernels, under {name}.",
            )
            for name in ("adam", "sgd", "rmsprop")
        },
        "early_stopping": Table(
            {"no early stopping": POOLED}
            | {
                f"patience {patience}": POOLED.replace(patience=patience, epochs=epochs)
                for patience, epochs in EPOCHS_OF_PATIENCE.items()
            },
            about="Training ends after this many epochs without a better validation "
            "accuracy; figures are those of the last epoch.",
        ),
        "schedules": Table(
            {name: POOLED.replace(schedule=one) for name, one in SCHEDULES.items()},
            about="How the learning rate falls from its peak.",
        ),
    },
    sweep=True,
    split=SPLIT,
    seeds=SEEDS,
    published=published("1.4"),
    reference="Dropout of 0 to .5; Adam, SGD and RMSProp at one learning rate; "
    "patience of 2 to 100 epochs. Schedules brought no gain, small weight decay was "
    "best.",
    laptop=("--seeds 0 1 2",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
