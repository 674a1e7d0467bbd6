"""Part 1.4: dropout, optimizers, weight decay, early stopping, schedules.

python -m experiments.part1_regularization                # drawn paintings
python -m experiments.part1_regularization --data.root DIR
"""

import dataclasses
from functools import partial

from experiments.common import run_cli
from experiments.part1_baseline import ADAM, simple_cnn
from experiments.tables import (
    Findings,
    Published,
    Study,
    StudyConfig,
    Table,
    TableRow,
    effects_section,
    run_study,
    table_findings,
)
from jaxvision.optim import OptimConfig

POOLED = {"pool_kernel": 2, "pool_stride": 1}
"""The network that the reports regularize."""

RATE = 1e-4
"""Learning rate where nothing else is said."""


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Regularizes the network with pooling, one way at a time."""


def tables() -> tuple[Table, ...]:
    pooled = partial(simple_cnn, **POOLED)
    rates = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    optimizers = {
        "adam": ADAM,
        "sgd": OptimConfig("sgd", RATE, momentum=0.0),
        "rmsprop": OptimConfig("rmsprop", RATE),
        "sgd, rate 0.01, momentum 0.9": OptimConfig("sgd", 0.01),
    }
    schedules = {
        "constant": {},
        "step, 0.1 every 30 epochs": {"decay": 0.1, "decay_epochs": 30},
        "step, 0.5 every 10 epochs": {"decay": 0.5, "decay_epochs": 10},
        "exponential, 0.95 an epoch": {"decay": 0.95},
        "cosine to zero": {},
    }
    stops = {2: 50, 5: 50, 10: 50, 20: 50, 100: 200}
    return (
        Table(
            "1.4",
            "dropout",
            "Dropout of one rate after both pools and the dense layer.",
            tuple(
                TableRow(
                    f"dropout {rate:g}",
                    pooled(conv_dropout_rate=rate, dense_dropout_rate=rate),
                )
                for rate in rates
            ),
        ),
        Table(
            "1.4",
            "optimizers",
            "Optimizers at one learning rate, as the reports compare them; and "
            "gradient descent with momentum at a rate that suits it.",
            tuple(TableRow(n, pooled(optim)) for n, optim in optimizers.items()),
        ),
        *(
            Table(
                "1.4",
                f"weight_decay_{name}",
                f"An L2 term in the gradient of kernels, under {name}.",
                tuple(
                    TableRow(
                        f"decay {decay:g}",
                        pooled(
                            dataclasses.replace(optimizers[name], weight_decay=decay)
                        ),
                    )
                    for decay in (0.0, 1e-4, 1e-3, 1e-2)
                ),
            )
            for name in ("adam", "sgd", "rmsprop")
        ),
        Table(
            "1.4",
            "early_stopping",
            "Training ends after this many epochs without a better validation "
            "accuracy; figures are those of the epoch it ended with.",
            (
                TableRow("no early stopping", pooled()),
                *(
                    TableRow(f"patience {p}", pooled(patience=p, epochs=epochs))
                    for p, epochs in stops.items()
                ),
            ),
        ),
        Table(
            "1.4",
            "schedules",
            "How the learning rate falls from its peak.",
            tuple(
                TableRow(
                    name,
                    pooled(
                        dataclasses.replace(
                            ADAM, schedule=name.split(",")[0].split()[0], **changes
                        )
                    ),
                )
                for name, changes in schedules.items()
            ),
        ),
    )


def find(study: Study) -> Findings:
    findings = table_findings(study, tables())
    findings.sections.append(
        effects_section(findings, tables(), "1.4 which was most effective")
    )
    return findings


def main(config: Config, study: Study | None = None) -> Published:
    return run_study(
        "part1_regularization",
        config,
        title="Part 1.4: regularization",
        question="What do dropout, other optimizers, weight decay, early stopping and "
        "schedules do, and which is most effective?",
        find=find,
        study=study,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
