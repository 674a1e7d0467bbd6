"""Bayesian optimization of any experiment that declares what to tune.

python -m experiments.tune part2-mlp --tune.trials 20
python -m experiments.tune part2-features --data.root DIR --tune.sampler gp

The same command continues a study that was stopped; started several times at once, its
processes share the study.
"""

import sys
from collections.abc import Sequence

from experiments.catalog import collect
from jaxvision.cli.experiment import tune_main
from jaxvision.cli.process import command
from jaxvision.declaration import Experiment
from jaxvision.errors import InputError


def tunable() -> dict[str, Experiment]:
    """Experiments with a search space, by name; a tuning of its own is none."""
    return {
        name: one
        for name, one in collect().items()
        if isinstance(one, Experiment) and one.search_space and name != "comics_tune"
    }


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    names = {name.replace("_", "-"): name for name in tunable()}
    if arguments[:1] in (["-h"], ["--help"]):
        print(f"{__doc__}\nWhat can be tuned: {', '.join(names)}")
        return
    with command({}.get):
        given = arguments[0].replace("_", "-") if arguments else ""
        if given not in names:
            raise InputError(
                f"{given or 'nothing'}: no such experiment to tune; there are "
                f"{', '.join(names)}"
            )
    from jaxvision.tuning import tuning_of

    tune_main(
        tuning_of(tunable()[names[given]]),
        arguments[1:],
        prog=f"python -m experiments.tune {given}",
    )


if __name__ == "__main__":
    main()
