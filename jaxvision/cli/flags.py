"""Settings as flags, and back: the one place that knows both names.

A setting such as `optim.learning_rate` of a config dataclass has the flag
`--optim.learning-rate`. The fields of an experiment's `RunConfig`, `Recipe` and options
stand beside one another at the top.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import json
import re
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from jaxvision.cli.process import command
from jaxvision.config import from_plain, get
from jaxvision.data.config import DataConfig
from jaxvision.declaration import Experiment
from jaxvision.errors import InputError
from jaxvision.settings import Recipe, RunConfig, TuneConfig

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Shown:
    """Mark of a field: what messages call it; None: it is no flag."""

    name: str | None


def hidden(kind: Any) -> Any:
    """The type of a field that is no flag."""
    return Annotated[kind, tyro.conf.Suppress, tyro.conf.Fixed, Shown(None)]


Checkpoint = Annotated[
    Path, tyro.conf.Positional, tyro.conf.arg(metavar="CHECKPOINT"), Shown("CHECKPOINT")
]
OptionalCheckpoint = Annotated[
    Path | None,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="[CHECKPOINT]"),
    Shown("CHECKPOINT"),
]
Images = Annotated[
    tuple[Path, ...],
    tyro.conf.Positional,
    tyro.conf.arg(metavar="IMAGES ..."),
    Shown("IMAGES"),
]
Photos = Annotated[
    Path | None,
    tyro.conf.Positional,
    tyro.conf.arg(metavar="[PHOTOS]"),
    Shown("PHOTOS"),
]
"""Types of fields that are given by their place on the command line."""

Root = Annotated[Path | None, tyro.conf.arg(name="data.root"), Shown("--data.root")]
"""Type of a field `root` whose flag is the same as that of training."""


def named(kind: Any, name: str) -> Any:
    """The type of a field with a flag of another name."""
    return Annotated[kind, tyro.conf.arg(name=name), Shown(f"--{name}")]


def flags_of(kind: type) -> dict[str, str]:
    """Setting -> flag, or place, of each field of a dataclass, nested ones too."""
    flags = {}
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, marks = hints[field.name], ()
        if typing.get_origin(hint) is Annotated:
            hint, *marks = typing.get_args(hint)
        shown = next((mark for mark in marks if isinstance(mark, Shown)), None)
        if shown is not None:
            if shown.name is not None:
                flags[field.name] = shown.name
        elif dataclasses.is_dataclass(hint):
            for setting, flag in flags_of(typing.cast(type, hint)).items():
                flag = (
                    f"--{_dashed(field.name)}.{flag[2:]}" if flag[:2] == "--" else flag
                )
                flags[f"{field.name}.{setting}"] = flag
        else:
            flags[field.name] = f"--{_dashed(field.name)}"
    return flags


def variant(kind: type, changes: Mapping[str, Any]) -> type:
    """A dataclass with the fields of another one, some of them with other types.

    Args:
      changes: field -> its type here.
    """
    fields = {field.name: field for field in dataclasses.fields(kind)}
    return dataclasses.make_dataclass(
        kind.__name__,
        [(name, hint, _same_default(fields[name])) for name, hint in changes.items()],
        bases=(kind,),
        frozen=True,
    )


def cast(kind: type[Config], value: Any) -> Config:
    """A config as another dataclass with the same fields: a `variant` or its base."""
    hints = typing.get_type_hints(kind)

    def convert(name: str) -> Any:
        inner, hint = getattr(value, name), hints[name]
        if dataclasses.is_dataclass(hint) and type(inner) is not hint:
            return cast(typing.cast(type, hint), inner)
        return inner

    fields = dataclasses.fields(typing.cast(Any, kind))
    return kind(**{field.name: convert(field.name) for field in fields})


def parse(
    kind: type[Config],
    arguments: Sequence[str] | None,
    *,
    prog: str,
    description: str | None = None,
    default: Config | None = None,
) -> Config:
    """A config from the command line; leaves with its help or with what is wrong.

    Args:
      kind: its dataclass.
      arguments: in place of the program's own.
      prog: the command.
      description: heads the help; None: the docstring of `kind`.
      default: what is not given.
    """
    if description is not None:
        # tyro joins lines that no blank one parts; the examples are to stay apart.
        description = re.sub(
            r"\n+(?=python |jaxvision )", "\n\n", inspect.cleandoc(description)
        )
    given: dict[str, Any] = {} if default is None else {"default": default}
    return tyro.cli(kind, args=arguments, prog=prog, description=description, **given)


def run(
    kind: type[Config],
    function: Callable[[Config], object],
    arguments: Sequence[str] | None,
    prog: str,
    description: str | None = None,
    *,
    interrupted: str = "interrupted",
) -> None:
    """Runs a whole command: a function of a config.

    Args:
      kind, arguments, prog, description: as of `parse`.
      function: what the command does.
      interrupted: printed on Ctrl-C.
    """
    with command(flags_of(kind).get, interrupted=interrupted):
        function(parse(kind, arguments, prog=prog, description=description))


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `run_experiment`, or `tune`, is given beside the experiment."""

    config: RunConfig
    recipe: Recipe | None
    options: Any
    tune: TuneConfig | None = None
    epochs: int | None = None
    """Of a run that is resumed, where they were given."""


class ExperimentFlags:
    """The flags of an experiment."""

    def __init__(
        self,
        config: RunConfig,
        recipe: Recipe | None,
        options: Any = None,
        *,
        aliases: Mapping[str, str] | None = None,
        fixed: Sequence[str] = (),
        tables: bool = False,
        sweep: bool = False,
        photos: bool = False,
        tune: TuneConfig | None = None,
        hide: Sequence[str] = (),
    ) -> None:
        """
        Args:
          config, recipe, options: where nothing is given; of a `recipe` of None the
            experiment has none, of `options` likewise.
          aliases: setting -> another name of its flag.
          fixed: settings of the recipe that are no flags.
          tables: whether several recipes are compared.
          sweep: whether they are trained all at once.
          photos: whether the images' folder and any option of a network can be given:
            for a command that is not made for one network or data set.
          tune: how to search where nothing is given; None: it is no tuning.
          hide: further settings of the run that are no flags.
        """
        aliases = {"network": "backbone", **(aliases or {})}
        self._default = Settings(config, recipe, options)
        self._open = photos
        self._nested = {
            f"--{_dashed(alias)}": f"--{_dashed(name)}"
            for name, alias in aliases.items()
            if "." in name
        }
        hide = [*hide, *([] if tables else ["rows"])]
        if sweep or tune is not None:
            hide += ["distributed", "tensorboard", "measure_train"]
        if tune is not None:
            hide += ["resume"]
        if sweep:
            hide += ["save_seconds"]
        hints = typing.get_type_hints(RunConfig, include_extras=True)
        of_data = typing.get_type_hints(DataConfig, include_extras=True)
        data_changes = {
            name: hidden(of_data[name]) for name in of_data if f"data.{name}" in hide
        }
        changes: dict[str, Any] = {
            name: hidden(hints[name]) for name in hide if name in hints
        }
        changes["max_epochs"] = (
            named(hints["max_epochs"], "epochs")
            if recipe is None
            else hidden(hints["max_epochs"])
        )
        if photos:
            data_changes["root"] = Photos
        if data_changes:
            changes["data"] = variant(DataConfig, data_changes)
        self._config = variant(RunConfig, {**changes, **_aliased(RunConfig, aliases)})
        parts: dict[str, Any] = {"config": cast(self._config, config)}
        if recipe is not None:
            hints = typing.get_type_hints(Recipe, include_extras=True)
            self._recipe = variant(
                Recipe,
                {
                    "options": hidden(Any),
                    **_aliased(Recipe, aliases),
                    **{name: hidden(hints[name]) for name in fixed},
                },
            )
            parts["recipe"] = cast(self._recipe, recipe)
            if recipe.options:
                parts["network"] = _network_options(recipe, aliases)
        if options is not None:
            self._options = variant(type(options), _aliased(type(options), aliases))
            parts["options"] = cast(self._options, options)
        if photos:
            parts["free"] = _FreeOptions()
        self._flags = {
            setting: flag
            for part in parts.values()
            for setting, flag in flags_of(type(part)).items()
        }
        # With an empty name, the fields of a part stand at the top.
        top = tyro.conf.arg(name="")
        fields: list[tuple[str, Any]] = [
            (name, Annotated[type(part), top]) for name, part in parts.items()
        ]
        if tune is not None:
            parts["tune"] = tune
            fields.append(("tune", TuneConfig))
            self._flags |= {
                f"tune.{setting}": f"--tune.{flag.removeprefix('--')}"
                for setting, flag in flags_of(TuneConfig).items()
            }
        kind = dataclasses.make_dataclass("Flags", fields)
        self._kind, self._start = kind, kind(**parts)

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        config: RunConfig,
        *,
        photos: bool = False,
        tune: TuneConfig | None = None,
        hide: Sequence[str] = (),
    ) -> "ExperimentFlags":
        """The flags of a declared experiment.

        Args:
          config: of the run, where nothing is given.
          photos, tune, hide: as above.
        """
        return cls(
            config,
            experiment.recipe,
            experiment.options and experiment.options(),
            aliases=experiment.aliases,
            fixed=experiment.fixed,
            tables=experiment.tables is not None,
            sweep=experiment.sweep,
            photos=photos,
            tune=tune,
            hide=hide,
        )

    def name_of(self, setting: str) -> str | None:
        """The flag of a setting; None: it has none."""
        for part in ("recipe.", "options."):
            setting = setting.removeprefix(part)
        return self._flags.get(setting)

    def parse(
        self, arguments: Sequence[str] | None, *, prog: str, description: str
    ) -> Settings:
        """The settings from the command line; see `parse`.

        Raises:
          InputError: an option of the network that is none.
        """
        # tyro has aliases at the top only for what stands at the top.
        given = sys.argv[1:] if arguments is None else arguments
        words = [word.partition("=") for word in given]
        found = parse(
            self._kind,
            [f"{self._nested.get(a, a)}{equals}{b}" for a, equals, b in words],
            prog=prog,
            description=description,
            default=self._start,
        )
        config = cast(RunConfig, found.config)
        recipe, options = self._default.recipe, self._default.options
        if recipe is not None:
            network = {}
            if hasattr(found, "network"):
                network = dataclasses.asdict(found.network)
            recipe = cast(Recipe, found.recipe)
            if self._open:
                network |= found.free.read()
                recipe = found.free.with_tuned(recipe)
            recipe = recipe.replace(**network)
        if options is not None:
            options = cast(type(options), found.options)
        epochs = None
        if config.resume is not None and any(word[0] == "--epochs" for word in words):
            # A resumed run may be given these, and has all other settings already.
            if recipe is None or self._default.recipe is None:
                epochs = config.max_epochs
                config = dataclasses.replace(config, max_epochs=None)
            else:
                epochs = recipe.epochs
                recipe = recipe.replace(epochs=self._default.recipe.epochs)
        return Settings(config, recipe, options, getattr(found, "tune", None), epochs)

    def arguments(self, settings: Settings) -> list[str]:
        """What to write on the command line to get these settings."""
        places, flags = [], []
        own = self._default
        pairs = [
            (settings.config, own.config),
            (settings.recipe, own.recipe),
            (settings.options, own.options),
        ]
        for setting, flag in self._flags.items():
            for config, default in pairs:
                try:
                    value, before = get(config, setting), get(default, setting)
                except AttributeError:  # a setting of another part
                    continue
                if value == before:
                    continue
                if not flag.startswith("--"):
                    places.append(str(value))
                elif isinstance(value, bool):
                    group, dot, name = flag.removeprefix("--").rpartition(".")
                    no = "" if value else "no-"
                    flags.append(f"--{group}{dot}{no}{name}")
                else:
                    several = value if isinstance(value, tuple) else (value,)
                    flags += [flag, *map(str, several)]
        if settings.recipe is not None and self._open:
            for name, value in settings.recipe.options.items():
                flags += ["--option", f"{name}={json.dumps(value)}"]
        return places + flags


@dataclasses.dataclass(frozen=True)
class _FreeOptions:
    option: Annotated[
        tuple[str, ...],
        tyro.conf.UseAppendAction,
        tyro.conf.arg(metavar="NAME=VALUE"),
    ] = ()
    """An option of the network, such as hidden=100; can be given several times."""
    tuned: Path | None = None
    """Run folder of `jaxvision tune`, whose best settings take the place of those
    given."""

    def with_tuned(self, recipe: Recipe) -> Recipe:
        """The recipe with the best settings of that tuning."""
        if self.tuned is None:
            return recipe
        from jaxvision.tuning import with_tuned

        return with_tuned(recipe, self.tuned)

    def read(self) -> dict[str, Any]:
        """Option -> value: what JSON makes of it, or the text itself."""
        found = {}
        for entry in self.option:
            name, equals, text = entry.partition("=")
            if not equals or not name.isidentifier():
                raise InputError(
                    "must be NAME=VALUE, such as hidden=100",
                    setting="option",
                    value=entry,
                )
            try:
                found[name] = json.loads(text)
            except ValueError:
                found[name] = text
        return from_plain(Mapping[str, Any], found)


def _aliased(kind: type, aliases: Mapping[str, str]) -> dict[str, Any]:
    """The types of those fields whose flag has another name too."""
    hints = typing.get_type_hints(kind, include_extras=True)
    return {
        name: Annotated[hints[name], _alias(alias)]
        for name, alias in aliases.items()
        if name in hints
    }


def _alias(name: str) -> Any:
    return tyro.conf.arg(aliases=(f"--{name.removeprefix('--')}",))


def _network_options(recipe: Recipe, aliases: Mapping[str, str]) -> Any:
    """A dataclass with the options of a recipe's network, with the recipe's values."""
    from jaxvision.models import MODELS, Network
    from jaxvision.recipe import network_name

    hints, texts = typing.get_type_hints(Network), _field_texts(Network)
    if recipe.network != "auto":  # which may become one of several
        backbone = type(MODELS[network_name(recipe)]())
        hints |= typing.get_type_hints(backbone)
        texts |= _field_texts(backbone)
    fields = []
    for name, value in recipe.options.items():
        marks = [tyro.conf.arg(help=texts.get(name, "Option of the network."))]
        if name in aliases:
            marks.append(_alias(aliases[name]))
        kind = _option_type(hints.get(name), value)
        hint = functools.reduce(lambda hint, mark: Annotated[hint, mark], marks, kind)
        fields.append((name, hint, dataclasses.field(default=value)))
    return dataclasses.make_dataclass("NetworkOptions", fields, frozen=True)()


def _option_type(hint: Any, value: Any) -> Any:
    """What a flag may be given for an option of a network.

    Args:
      hint: the type of the network's field; None: not known.
      value: where nothing is given.
    """
    if typing.get_origin(hint) is Literal:
        return hint
    allowed = {hint}
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        allowed = set(typing.get_args(hint))
    if isinstance(value, tuple):
        return tuple[type(value[0]) if value else int, ...]
    if value is None:
        # A field may be an array too, when a sweep traces it.
        (kind,) = allowed & {int, float, str}
        return kind | None
    kind = type(value)
    if kind is int and float in allowed:
        kind = float
    return kind | None if type(None) in allowed else kind


def _field_texts(kind: type) -> dict[str, str]:
    """Field -> the text below it, of a class and those it stands on."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for field, text in itertools.pairwise(body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(words))),
                ):
                    texts[name] = " ".join(words.split())
    return texts


def _same_default(field: dataclasses.Field) -> Any:
    if field.default is not dataclasses.MISSING:
        return dataclasses.field(default=field.default)
    if field.default_factory is not dataclasses.MISSING:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field()


def _dashed(name: str) -> str:
    return name.replace("_", "-")
