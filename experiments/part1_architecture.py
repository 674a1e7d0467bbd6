"""1.5 Which kernel, stride, depth, padding and shape? 451 paintings, 11 painters.

python -m experiments.part1_architecture                  # drawn paintings
python -m experiments.part1_architecture --data.root DIR

2 cores: part 1 up to 1.6 takes 17 min with 3 seeds. Accuracies are below the published
ones: images are scaled to [-0.5, 0.5], a quarter of the range of the report's code.
"""

from experiments.part1_baseline import FIRST, PART1, SEEDS, SPLIT, as_built
from experiments.published import published
from jaxvision.cli.experiment import main
from jaxvision.declaration import Experiment, Table

TWO_BLOCKS = FIRST.replace(pool_kernel=2, pool_stride=1, epochs=10)

THREE_BLOCKS = PART1.replace(network="convnet", epochs=10)
"""Three 3×3 convolutions of 16, 32 and 64 filters, each pooled; one dense layer."""

FILTERS = {"pyramid": 16, "flat": 32, "inverse": 64}

TWO = "The assignment's two blocks, pools of kernel 2 and stride 1"
THREE = "Three blocks of 3×3 convolutions and 2×2 pools"


EXPERIMENT = Experiment(
    name="part1_architecture",
    section="1.5",
    title="Architecture",
    question="Which kernel, stride, depth, padding and shape?",
    chapter="part-1",
    dataset="artists",
    tables={
        "kernel": Table(
            {
                f"kernel {size}": TWO_BLOCKS.replace(kernel_size=size, stride=1)
                for size in (3, 5, 7)
            },
            about=f"{TWO}; convolutions of stride 1 with larger and larger kernels.",
        ),
        "stride": Table(
            {
                f"stride {stride}": TWO_BLOCKS.replace(kernel_size=5, stride=stride)
                for stride in (1, 2, 3, 4)
            },
            about=f"{TWO}; 5×5 convolutions that skip more and more pixels.",
        ),
        "depth": Table(
            {
                f"{count} block{'s' if count > 1 else ''}": THREE_BLOCKS.replace(
                    blocks=count
                )
                for count in (1, 2, 3, 4)
            },
            about=f"{THREE}: fewer of them, and one more; filters double.",
        ),
        "padding": Table(
            {name: THREE_BLOCKS.replace(padding=name) for name in ("valid", "same")},
            about=f"{THREE}: nothing added at the borders, or as much as keeps the "
            "size.",
        ),
        "shape": Table(
            {
                name: THREE_BLOCKS.replace(shape=name, filters=filters)
                for name, filters in FILTERS.items()
            },
            about=f"{THREE}: filters that double (16, 32, 64), stay (32) or halve "
            "(64, 32, 16).",
        ),
        "dense_depth": Table(
            {
                f"{count} dense": THREE_BLOCKS.replace(dense_layers=count)
                for count in (1, 2, 3, 4)
            },
            about=f"{THREE}, then hidden dense layers, each half as wide as the one "
            "before.",
        ),
    },
    sweep=True,
    split=SPLIT,
    seeds=SEEDS,
    sections=as_built(three_blocks=THREE_BLOCKS),
    published=published("1.5"),
    reference="10 epochs each. Kernel 3, stride 1 and depth 3 were best, padding made "
    "no difference; one dense layer beat several.",
    laptop=("--seeds 0 1 2",),
)

if __name__ == "__main__":
    main(EXPERIMENT)
