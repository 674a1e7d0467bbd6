"""Bayesian optimization of any experiment whose config names what to tune.

python -m experiments.tune part2-mlp --tune.trials 20
python -m experiments.tune part2-features --data.root DIR --tune.sampler gp

The same command continues a study that was stopped; started several times at once, its
processes share the study.
"""

from types import ModuleType
from typing import Annotated, Any, Union

import tyro

from experiments import comics_baseline, part2_features, part2_finetune, part2_mlp
from experiments.common import run_cli
from experiments.tuning import run_tuning, tuning_config

EXPERIMENTS: tuple[ModuleType, ...] = (
    part2_mlp,
    part2_features,
    part2_finetune,
    comics_baseline,
)
"""Modules with a `Config` that has `TUNABLE`, and with `prepare`."""


def _name(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


CONFIGS = {module: tuning_config(module.Config) for module in EXPERIMENTS}

Config = Union[  # noqa: UP007, of what is known only when it runs
    tuple(
        Annotated[config, tyro.conf.subcommand(_name(module).replace("_", "-"))]
        for module, config in CONFIGS.items()
    )
]


def main(config: Any) -> None:
    (module,) = (m for m, kind in CONFIGS.items() if type(config) is kind)
    name = _name(module)
    run_tuning(
        f"tune_{name}",
        config,
        title=f"Tuning of {name}",
        question="Which of these settings does Bayesian optimization find best for "
        f"`{name}`: {', '.join(module.Config.TUNABLE)}?",
        prepare=module.prepare,
    )


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
