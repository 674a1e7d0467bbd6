"""A learning-rate range test as a run: its folder, with the curve and a report.

run = report_learning_rate(RunConfig(seeds=(0,)), Recipe(), RateConfig())
"""

import time
from pathlib import Path

from jaxvision import config, plotting
from jaxvision.data.config import DemoKind
from jaxvision.data.dataset import DecodedDataset, load_dataset
from jaxvision.errors import InputError
from jaxvision.experiment import announce, draw_demo
from jaxvision.rate_finder import FoundRate, check, range_test
from jaxvision.recipe import make_start
from jaxvision.report import markdown
from jaxvision.report.progress import Progress
from jaxvision.report.run_folder import (
    DataSummary,
    Measurement,
    RunFolder,
    print_run,
)
from jaxvision.settings import RateConfig, Recipe, RunConfig

METHOD = (
    "One short training, in which the learning rate rises by the same factor at each "
    "step."
)

PARALLEL = (
    "Short trainings, each at a learning rate of its own; the loss is that of the last "
    "batch, before its step."
)

RULE = (
    "The loss is smoothed by a Gaussian; the suggestion is the rate where it "
    "falls most steeply over the logarithm of the rate, before its lowest point. It is "
    "the peak of a schedule, for the batch size and all other settings below."
)

NO_FALL = "the loss falls nowhere; try other rates or more steps"

DEMO: DemoKind = "faces"
"""What is drawn where no images are given."""


def report_learning_rate(
    run_config: RunConfig, recipe: Recipe, options: RateConfig
) -> Path:
    """Suggests a learning rate, and writes a run folder with the curve.

    Args:
      run_config: where the images are and the report goes; its one seed.
      recipe, options: as of `find_learning_rate`.

    Returns:
      The run folder, whose path is also the last line on standard output.

    Raises:
      InputError: as `find_learning_rate`.
    """
    began = time.monotonic()
    config.check(run_config)
    if len(run_config.seeds) != 1:
        raise InputError("give one", setting="seeds", value=run_config.seeds)
    (seed,) = run_config.seeds
    start = make_start(recipe)
    check(options, recipe)
    draw_demo(run_config.data, DEMO)
    data = load_dataset(run_config.data, demo_kind=DEMO).with_seed(seed)
    with Progress("reading images", unit="images") as progress:
        dataset = data.decode(start.preprocessing, progress=progress)
    announce(dataset)
    found = range_test(start, dataset, options, seed=seed)
    run = RunFolder.create("find_lr", root=run_config.runs)
    run.write_config(
        {"data": run_config.data, "seed": seed, "recipe": start.recipe, **vars(options)}
    )
    method = METHOD if options.parallel is None else PARALLEL
    _write(run, found, dataset, seed, method, time.monotonic() - began)
    return run.path


def _write(
    run: RunFolder,
    found: FoundRate,
    dataset: DecodedDataset,
    seed: int,
    method: str,
    seconds: float,
) -> None:
    columns = (found.rates, found.losses, found.smoothed)
    run.write_csv(
        "learning_rates",
        ("learning_rate", "loss", "smoothed_loss"),
        zip(*(column.tolist() for column in columns), strict=True),
    )
    figure = plotting.learning_rate_curve(
        *columns,
        found.suggestion,
        title="Loss as the learning rate rises",
        demo=dataset.is_demo,
    )
    run.save_figure("learning_rates", figure)
    measured, answer = [], f"None: {NO_FALL}"
    if found.suggestion is not None:
        measured = [
            Measurement("suggestion", [found.suggestion], [seed], "rate", "train")
        ]
        answer = f"`optim.learning_rate` {found.suggestion:g}"
    data = DataSummary.of(dataset)
    run.write_results(measured, data=data, seconds=seconds)
    image = markdown.Image(
        "learning_rates.png",
        "The loss over the learning rate, and smoothed.",
    )
    csv = "Every rate stands in [learning_rates.csv](learning_rates.csv)."
    markdown.write_report(
        run,
        title="A learning rate",
        question="At which learning rate does the loss fall most steeply?",
        sections=[
            markdown.Section("Suggestion", [markdown.Text(answer), image]),
            markdown.Section(
                "How it was done", [markdown.Text(f"{method} {RULE} {csv}")]
            ),
        ],
        show_headline=False,
    )
    print(f"suggestion: {found.suggestion or NO_FALL}")
    print_run(run, is_demo=dataset.is_demo)
