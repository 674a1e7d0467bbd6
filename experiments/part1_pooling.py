"""1.3 What does max pooling change? 451 paintings, 11 painters.

python -m experiments.part1_pooling                       # drawn paintings
python -m experiments.part1_pooling --data.root DIR       # one subfolder per painter

2 cores: part 1 up to 1.6 takes 17 min with 3 seeds. Validation accuracy with windows of
2, stride 1: .565 ± .066, stride 2: .490 ± .046 (5 seeds); published .549 and .517.
"""

from experiments.part1_baseline import FIRST, SEEDS, SPLIT
from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.declaration import Experiment, Table

SIZES = ((2, 2), (2, 1), (3, 2), (3, 1))
"""Kernel and stride."""

EXPERIMENT = Experiment(
    name="part1_pooling",
    section="1.3",
    title="Max pooling",
    question="What does max pooling change?",
    chapter="part-1",
    dataset="artists",
    tables={
        "pooling": Table(
            {"no pooling": FIRST}
            | {
                f"kernel {kernel}, stride {stride}": FIRST.replace(
                    pool_kernel=kernel, pool_stride=stride
                )
                for kernel, stride in SIZES
            },
            about="Max pooling after each convolution's ReLU.",
        )
    },
    sweep=True,
    split=SPLIT,
    seeds=SEEDS,
    published=published("1.3"),
    reference="Windows of 2 at stride 2 and at stride 1.",
    laptop=("--seeds 0 1 2",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
