"""Part 1.6: batch size, learning rate, normalization, and the best network.

python -m experiments.part1_tuning                        # drawn paintings
python -m experiments.part1_tuning --data.root DIR        # one subfolder per painter
"""

import dataclasses
from typing import TYPE_CHECKING

from experiments.common import run_cli
from experiments.part1_architecture import convnet
from experiments.part1_baseline import simple_cnn
from experiments.tables import (
    Findings,
    Published,
    Study,
    StudyConfig,
    Table,
    TableRow,
    effects_section,
    run_study,
    summary_section,
    table_findings,
)
from jaxvision.data.transforms import AugmentConfig
from jaxvision.optim import OptimConfig

if TYPE_CHECKING:
    from jaxvision.train.sweep import Configuration

AUGMENT = AugmentConfig(
    resized_crop=0.3, horizontal_flip=0.5, brightness=0.1, contrast=0.1
)


@dataclasses.dataclass(frozen=True)
class Config(StudyConfig):
    """Tunes three blocks for 10 epochs, then trains the best networks whole."""


def best(augment: AugmentConfig | None = None) -> "Configuration":
    """Wider, batch norm, dropout, decoupled weight decay, a rate that falls to zero."""
    from jaxvision.train.sweep import Configuration

    return Configuration(
        "convnet",
        {
            "blocks": 3,
            "filters": 32,
            "norm": "batch",
            "padding": "same",
            "dense_width": 128,
            "conv_dropout_rate": 0.1,
            "dense_dropout_rate": 0.4,
        },
        OptimConfig(
            "adamw", 1e-3, schedule="cosine", warmup_epochs=2.0, weight_decay=0.05
        ),
        epochs=40,
        batch_size=32,
        label_smoothing=0.1,
        augment=augment or AugmentConfig(),
    )


BEST, AUGMENTED = "best network", "best network, augmented"
"""Names of the rows whose networks are kept."""


def best_rows() -> tuple[TableRow, ...]:
    """The networks that the robustness experiment measures."""
    return (
        TableRow(BEST, best(), save=True),
        TableRow(AUGMENTED, best(AUGMENT), save=True),
    )


def tables() -> tuple[Table, ...]:
    three = "Three blocks of 3×3 convolutions and 2×2 pools, 16 to 64 filters"
    norms = {"none": "none", "local response": "local_response"} | {
        name: name for name in ("weight", "batch")
    }
    niaz = convnet(batch_size=32, epochs=50, norm="local_response")
    gozpinar = simple_cnn(
        OptimConfig("adam", 1e-3),
        batch_size=128,
        epochs=200,
        patience=50,
        pool_kernel=2,
        pool_stride=2,
        conv_dropout_rate=0.25,
        dense_dropout_rate=0.25,
    )
    return (
        Table(
            "1.6",
            "batch_size",
            f"{three}: more images a step, and so fewer steps an epoch.",
            tuple(
                TableRow(f"batch size {size}", convnet(batch_size=size))
                for size in (8, 16, 32, 64, 128)
            ),
            reference="batch size 32",
        ),
        Table(
            "1.6",
            "learning_rate",
            f"{three}: the learning rate of Adam.",
            tuple(
                TableRow(
                    f"learning rate {rate:g}",
                    convnet(OptimConfig("adam", rate), batch_size=32),
                )
                for rate in (1e-2, 1e-3, 1e-4, 1e-5)
            ),
            reference="learning rate 0.0001",
        ),
        Table(
            "1.6",
            "normalization",
            f"{three}: local response norm over 4 channels, weight norm, batch norm.",
            tuple(
                TableRow(name, convnet(batch_size=32, norm=norm))
                for name, norm in norms.items()
            ),
        ),
        Table(
            "1.6",
            "best",
            "The best settings of the two reports, as far as they are described, and "
            "ours: batch norm, twice the filters, dropout, decoupled weight decay, "
            "label smoothing and a rate that falls to zero; then the same with "
            "images changed at random.",
            (
                TableRow("settings of Niaz", niaz),
                TableRow("settings of Gözpınar", gozpinar),
                *best_rows(),
            ),
        ),
    )


def find(study: Study) -> Findings:
    findings = table_findings(study, tables())
    findings.sections.append(
        effects_section(findings, tables(), "1.6 the effect of each change")
    )
    networks = summary_section(study, best_rows()[:1], "1.6 the best network as built")
    findings.sections.append(networks)
    return findings


def main(config: Config, study: Study | None = None) -> Published:
    return run_study(
        "part1_tuning",
        config,
        title="Part 1.6: tuning",
        question="How high can validation accuracy be brought, and by which settings?",
        find=find,
        study=study,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
