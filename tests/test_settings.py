"""Settings that play no part in a recipe are known, and indeed play none."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvision.cli.experiment import idle_lines
from jaxvision.cli.flags import Settings
from jaxvision.config import replace
from jaxvision.declaration import Experiment, Table, default_config
from jaxvision.optim import make_optimizer, schedule_factor
from jaxvision.report.sections import how_it_was_done
from jaxvision.results import Trial
from jaxvision.settings import (
    AugmentConfig,
    Method,
    OptimConfig,
    Recipe,
    ScheduleConfig,
    idle_settings,
)

OTHER = {
    "schedule.gamma": 0.3,
    "schedule.step_epochs": 3,
    "schedule.hold_epochs": 4,
    "optim.momentum": 0.7,
    "optim.nesterov": True,
    "optim.decay_all": True,
}


LENGTHS = {"steps_per_epoch": 2, "epochs": 12}


def factors(schedule: ScheduleConfig) -> jax.Array:
    return schedule_factor(schedule, **LENGTHS)(jnp.arange(24))


@pytest.mark.parametrize("kind", ["constant", "step", "exponential", "cosine"])
def test_of_a_schedule_the_idle_settings_change_nothing_and_the_others_do(kind):
    recipe = Recipe(schedule=ScheduleConfig(kind))
    own = factors(recipe.schedule)
    for setting in ("schedule.gamma", "schedule.step_epochs", "schedule.hold_epochs"):
        changed = replace(recipe, setting, OTHER[setting])
        same = np.array_equal(factors(changed.schedule), own)
        assert same == (setting in idle_settings(recipe)), setting


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_of_an_optimizer_the_idle_settings_change_nothing(name, momentum, weight_decay):
    params = {"head": {"kernel": jnp.ones(3), "bias": jnp.ones(3)}}

    def updated(config: OptimConfig) -> dict:
        tx = make_optimizer(config, **LENGTHS)
        state, found = tx.init(params), params
        for gradient in (1.0, -0.3, 0.2):
            gradients = jax.tree.map(lambda p, g=gradient: p * g, params)
            updates, state = tx.update(gradients, state, found)
            found = jax.tree.map(jnp.add, found, updates)
        return found

    optim = OptimConfig(name, momentum=momentum, weight_decay=weight_decay)
    recipe = Recipe(optim=optim)
    own = updated(optim)
    for setting in ("optim.momentum", "optim.nesterov", "optim.decay_all"):
        other = updated(replace(recipe, setting, OTHER[setting]).optim)
        same = jax.tree.all(jax.tree.map(np.array_equal, own, other))
        assert same == (setting in idle_settings(recipe)), setting


@pytest.mark.parametrize("method", get_args(Method))
def test_each_method_has_its_own(method):
    idle = set(idle_settings(Recipe("efficientnet_lite0", method=method)))
    assert ("views" in idle) == (method != "features")
    assert ("head_epochs" in idle) == (method != "full")
    assert ("freeze_bn" in idle) == (method in ("scratch", "features"))
    assert ("scaling" in idle) == (method != "scratch")
    assert ("augment.rotation" in idle) == (method == "features")
    frozen = method in ("features", "head")
    assert ("optim.backbone_lr_multiplier" in idle) == frozen
    # Names of settings that there are.
    for setting in idle:
        replace(Recipe(), setting, None)
    several = Recipe("efficientnet_lite0", method="features", views=2)
    # A head that is solved has features, whatever the network.
    solved = idle_settings(Recipe("patches", method="scratch", solver="ridge"))
    assert {"epochs", "mixup", "augment.rotation"} <= solved.keys()
    assert not {"views", "solver", "scaling"} & solved.keys()
    assert "augment.rotation" not in idle_settings(several)


FEATURES = Recipe("efficientnet_lite0", method="features", augment=AugmentConfig())

TRY = Experiment(
    name="try",
    section="",
    title="A try",
    question="Which?",
    dataset="faces",
    recipe=FEATURES,
)


def test_what_was_given_and_plays_no_part_is_named_at_the_start():
    recipe = FEATURES.replace(
        augment=AugmentConfig(horizontal_flip=0.5),
        schedule=ScheduleConfig("cosine", warmup_epochs=1.0, gamma=0.5),
        epochs=3,
    )
    settings = Settings(default_config(TRY), recipe, None)
    assert idle_lines(TRY, settings) == [
        "`augment.horizontal_flip` plays no part with `method` features and one view",
        "`schedule.gamma` plays no part with `schedule.kind` cosine",
    ]
    assert idle_lines(TRY, dataclasses.replace(settings, recipe=FEATURES)) == []
    # In one of two rows it does.
    tables = dataclasses.replace(
        TRY,
        tables=lambda recipe, _: {
            "": Table({"one": recipe, "more": recipe.replace(views=2)})
        },
    )
    (line,) = idle_lines(tables, settings)
    assert line.startswith("`schedule.gamma`")


def test_short_trainings_begin_with_the_head():
    recipe = Recipe(epochs=10)
    assert [recipe.epochs_of_head(steps) for steps in (4, 5)] == [100, 0]
    assert recipe.replace(head_epochs=3).epochs_of_head(5) == 3
    assert recipe.replace(head_epochs=0).epochs_of_head(1) == 0
    assert recipe.replace(method="head").epochs_of_head(1) == 0
    for head_epochs, said in (
        (None, "; everything is trained, its head alone first in fewer than 50 steps."),
        (3, "; the head is trained first, then everything."),
        (0, "; everything is trained."),
    ):
        changed = recipe.replace(head_epochs=head_epochs)
        trial = Trial(changed, seed=0, history=[], seconds=1.0, folder=None)
        assert said in how_it_was_done([trial])


def test_the_report_says_what_plays_no_part():
    recipe = FEATURES.replace(
        augment=AugmentConfig(horizontal_flip=0.5, rotation=5.0), head_epochs=7
    )
    text = how_it_was_done(
        [Trial(recipe, seed=0, history=[], seconds=1.0, folder=None)]
    )
    assert "horizontal" not in text
    assert "Augmentation plays no part with `method` features and one view." in text
    assert "`head_epochs` plays no part with `method` features." in text


def test_the_report_says_that_a_head_is_solved_on_a_fresh_network():
    recipe = Recipe("patches", method="scratch", solver="ridge")
    text = how_it_was_done(
        [Trial(recipe, seed=0, history=[], seconds=1.0, folder=None)]
    )
    assert "only the head is solved, on the features of the fresh network" in text
