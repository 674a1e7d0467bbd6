"""The command `jaxvision`: one table of subcommands, imported when they are called."""

import importlib
import sys
from collections.abc import Sequence

import jaxvision
from jaxvision.cli.process import command, use_large_pages
from jaxvision.errors import InputError

COMMANDS = {
    "finetune": (
        "jaxvision.cli.train:finetune",
        "fine-tune a pretrained network on a folder of images",
    ),
    "train": (
        "jaxvision.cli.train:train",
        "train any network by any recipe, from scratch for one",
    ),
    "evaluate": (
        "jaxvision.cli.evaluate:main",
        "measure a trained network on labeled images",
    ),
    "predict": (
        "jaxvision.cli.predict:main",
        "classify images by a trained network",
    ),
    "explain": (
        "jaxvision.cli.explain:main",
        "show what in an image speaks for its class",
    ),
    "export": (
        "jaxvision.cli.export:main",
        "write a trained network as an ONNX model, for use without JAX",
    ),
    "robustness": (
        "jaxvision.cli.robustness:main",
        "measure a trained network on changed images",
    ),
    "serve": (
        "jaxvision.cli.serve:main",
        "open a page to drop an image on, and to review labels",
    ),
    "receptive-field": (
        "jaxvision.cli.receptive_field:main",
        "show which part of an image each layer sees",
    ),
    "tune": (
        "jaxvision.cli.tune:main",
        "search for good settings of a training",
    ),
    "find-lr": (
        "jaxvision.cli.find_lr:main",
        "suggest a learning rate, by a range test",
    ),
    "report": (
        "jaxvision.cli.report:main",
        "gather runs on one page",
    ),
    "weights list": (
        "jaxvision.cli.weights:show",
        "list the pretrained weights",
    ),
    "weights fetch": (
        "jaxvision.cli.weights:fetch",
        "download pretrained weights and check them",
    ),
    "weights convert": (
        "jaxvision.cli.weights:convert",
        "convert a file of weights that is already here",
    ),
    "weights verify": (
        "jaxvision.cli.weights:verify",
        "check pretrained weights against reference values",
    ),
    "data prepare": (
        "jaxvision.cli.data:prepare",
        "decode a folder of images once, for many trainings",
    ),
    "data demo": (
        "jaxvision.cli.data:demo",
        "draw a demo set of faces, paintings or comics",
    ),
    "data comics": (
        "jaxvision.cli.data:comics",
        "draw a comic of each face of a folder",
    ),
    "data facescrub": (
        "jaxvision.cli.data:facescrub",
        "download and crop FaceScrub from its lists",
    ),
}
"""Subcommand -> the function that takes its arguments, and what it does."""

_HELP = ("-h", "--help")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the subcommand that the arguments name."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for length in (2, 1):
        name = " ".join(given[:length])
        if name in COMMANDS:
            if arguments is None and not {*given}.intersection(_HELP):
                use_large_pages()
            module, _, function = COMMANDS[name][0].partition(":")
            getattr(importlib.import_module(module), function)(given[length:])
            return
    with command(lambda setting: None):
        _show(given)


def _show(given: Sequence[str]) -> None:
    """Prints the subcommands, or what is wrong with those that are given."""
    if given[:1] == ["--version"]:
        print(f"jaxvision {jaxvision.__version__}")
        return
    group = f"{given[0]} " if given and _in_group(given[0]) else ""
    rest = given[1:] if group else given
    if rest and rest[0] not in _HELP:
        raise InputError(_unknown(f"{group}{rest[0]}"))
    _print_map(group)
    if not rest:
        raise SystemExit(2)


def _in_group(word: str) -> bool:
    return any(name.startswith(f"{word} ") for name in COMMANDS)


def _unknown(name: str) -> str:
    import difflib  # which nobody waits for who spells well

    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"no command {name}; {hint}jaxvision --help lists them"


def _print_map(group: str) -> None:
    """Prints the subcommands; those of one group, where it is named."""
    shown = {name: text for name, (_, text) in COMMANDS.items() if group in name}
    width = max(map(len, shown)) + 2
    print(f"usage: jaxvision {group}COMMAND ...\n")
    if not group:
        print("Classic convolutional networks and transfer learning for images.\n")
    for name, text in shown.items():
        print(f"  {name:<{width}}{text}")
    print("\n`jaxvision COMMAND --help` shows the settings of a command.")
