"""Settings of a recipe by name, options of its network among them."""

import json
from pathlib import Path

from jaxvision import config
from jaxvision.errors import InputError
from jaxvision.settings import Recipe

TUNED = "tuned.json"
"""The best settings, in the run folder of a tuning."""


def get_setting(recipe: Recipe, name: str) -> float | None:
    """A setting such as "optim.learning_rate", or an option of the network; None: the
    recipe does not state it."""
    if name in recipe.options:
        return recipe.options[name]
    try:
        return config.get(recipe, name)
    except AttributeError:
        return None


def replace_setting(recipe: Recipe, name: str, value: float) -> Recipe:
    """The recipe with another value of a setting, or option of its network."""
    if "." in name:
        return config.replace(recipe, name, value)
    return recipe.replace(**{name: value})


def with_tuned(recipe: Recipe, run_folder: Path) -> Recipe:
    """The recipe with the settings that a tuning found best.

    Args:
      recipe: of the experiment that was tuned.
      run_folder: of the tuning.

    Raises:
      InputError: it is none, or tuned what this recipe does not have.
    """
    path = run_folder / TUNED
    try:
        tuned = json.loads(path.read_text("utf-8"))
        for name, value in tuned["settings"].items():
            if get_setting(recipe, name) is None:
                raise KeyError(f"no setting {name}")
            recipe = replace_setting(recipe, name, value)
    except FileNotFoundError:
        raise InputError(
            f"no finished tuning there (no {TUNED}); give the run folder that it "
            "printed as its last line",
            setting="tuned",
            value=run_folder,
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise InputError(
            f"{path}: not of this experiment, or damaged ({error})"
        ) from error
    config.check(recipe)
    return recipe
