"""Options that commands share, and options made from the fields of the settings classes."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from click.shell_completion import CompletionItem

from retrain.errors import did_you_mean
from retrain.settings import AUTO, SWITCH, UNKNOWN_RATE
from retrain.storage import DEFAULT_MODEL

Function = TypeVar("Function", bound=Callable[..., Any])
Settings = TypeVar("Settings")
_HIGHEST_RATE = 0.5


class Group(click.Group):
    """A group that names the nearest command for one that it does not know."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command as click does; the error for an unknown one has a suggestion."""
        unknown = args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None
        if unknown and not ctx.resilient_parsing:  # a shell that completes a line wants no errors in it
            hint = did_you_mean(args[0], self.commands) or f"; see: {ctx.command_path} --help"
            raise click.UsageError(f"no such command '{args[0]}'{hint}", ctx)
        return super().resolve_command(ctx, args)


class Folder(click.Path):
    """A path for which a shell offers folders only; whether it is one, the library says in its own words."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, readable=False)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell list folders."""
        return _listed_by_shell(incomplete, "dir")


class File(Folder):
    """A path for which a shell offers files."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Let the shell list files."""
        return _listed_by_shell(incomplete, "file")


class Choice(click.Choice):
    """A choice that names the nearest value for one that it does not know."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value, or fail with a suggestion."""
        if value in self.choices:
            return value
        hint = did_you_mean(str(value), self.choices) or ""
        self.fail(f"'{value}' is not one of {', '.join(self.choices)}{hint}", param, ctx)


def settings_options(kind: type) -> Callable[[Function], Function]:
    """Add an option for each field of a settings class: name, help, default and limits come from the field."""

    def decorate(function: Function) -> Function:
        for field in reversed(dataclasses.fields(kind)):
            name = field.name.replace("_", "-")
            is_flag = field.type in (bool, "bool")
            switch = f"--{name}/--no-{name}" if is_flag and field.default else f"--{name}"
            function = click.option(
                switch,
                type=_type_of(field),
                is_flag=is_flag,
                default=field.default,
                show_default=field.default is not None and not (is_flag and not field.default),
                help=field.metadata["help"],
            )(function)
        return function

    return decorate


def _type_of(field: dataclasses.Field) -> click.ParamType:
    base = next((kind for kind in get_args(field.type) if kind is not type(None)), field.type)
    if field.metadata["choices"]:
        return Choice(field.metadata["choices"])
    if base is Path:
        return Folder()
    if base is bool:
        return click.BOOL
    if base is int:
        return click.IntRange(field.metadata["low"], field.metadata["high"])
    if base is float:
        return click.FloatRange(field.metadata["low"], field.metadata["high"])
    return click.STRING


def from_options(kind: type[Settings], options: Mapping[str, Any]) -> Settings:
    """Make a settings object of those options that are its fields."""
    return kind(**{field.name: options[field.name] for field in dataclasses.fields(kind)})  # type: ignore[arg-type]


def complete_files(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell list files, for an argument that is not always a path."""
    return _listed_by_shell(incomplete, "file")


def _listed_by_shell(incomplete: str, kind: str) -> list[CompletionItem]:
    # click answers in UTF-8, which not every file name is; bash and zsh know the name anyway
    return [CompletionItem(incomplete.encode(errors="replace").decode(), type=kind)]


def complete_backbones(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Offer the names of the table, or files where none begins like this: a backbone may be a folder or an archive."""
    from retrain.backbones import BACKBONES

    # The networks of keras.applications cannot be fetched.
    rows = [row for row in BACKBONES.values() if ctx.info_name != "fetch" or row.family != "keras.applications"]
    found = [CompletionItem(row.name) for row in rows if row.name.startswith(incomplete)]
    return found or complete_files(ctx, parameter, incomplete)


class Sizes(click.ParamType):
    """Sides in pixels, with commas between them."""

    name = "pixels"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Return the sizes, or fail."""
        sides = [side.strip() for side in str(value).split(",")]
        if not all(side.isdecimal() and 32 <= int(side) <= 1024 for side in sides):
            self.fail(f"'{value}' is no size from 32 to 1024, nor several with commas between them", param, ctx)
        return tuple(map(int, sides))


def on_devices(names: str | None) -> tuple[str, ...]:
    """Return devices by name; where several are CPUs, the CPU is divided into so many."""
    from retrain.devices import logical_cpus

    devices = tuple(name.strip() for name in names.split(",")) if names else ()
    cpus = [name for name in devices if re.fullmatch(r"(?i)cpu:[0-9]", name)]
    if len(cpus) > 1:
        logical_cpus(max(int(name[-1]) for name in cpus) + 1)
    return devices


image_size_option = click.option(
    "--image-size",
    type=click.IntRange(32, 1024),
    help="Side of the square, in pixels, that pictures are scaled to.  [default: what the network expects]",
)

image_sizes_option = click.option(
    "--image-size",
    type=Sizes(),
    metavar="PIXELS[,PIXELS...]",
    help="Side of the square, in pixels, that pictures are scaled to; of several, fine-tuning trains at one after the other."
    "  [default: what the network expects]",
)

model_option = click.option(
    "--model",
    type=Folder(),
    default=DEFAULT_MODEL,
    show_default=True,
    help="Model folder, as written by retrain train.",
)


class Share(click.FloatRange):
    """A share from 0 to 1, and a number."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, or fail."""
        share = float(super().convert(value, param, ctx))
        if math.isnan(share):  # NaN, from a variable that went wrong
            self.fail(f"'{value}' is no number", param, ctx)
        return share


class Rate(click.ParamType):
    """A share above 0 and at most a half, or `off`, which is 0."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the share, or fail."""
        if isinstance(value, str) and value.lower() == "off":
            return 0.0
        try:
            rate = float(value)
        except ValueError:
            rate = -1.0
        if not (0 < rate <= _HIGHEST_RATE or value == 0.0):  # NaN is neither; a default comes as a number
            self.fail(
                f"'{value}' is neither 'off' nor a share above 0 and at most {_HIGHEST_RATE}, such as 0.05", param, ctx
            )
        return rate


unknown_option = click.option(
    "--unknown",
    type=Rate(),
    metavar="RATE|off",
    default=UNKNOWN_RATE,
    show_default=True,
    help="Call a picture unknown that is unlike the training pictures: so much so that of pictures of the known classes no"
    " more than this share is called so by mistake. off: never.",
)


tta_option = click.option(
    "--tta",
    type=Choice(SWITCH),
    default=AUTO,
    show_default=True,
    help="Look at several views of each picture (test-time augmentation) and average the scores, for a model that was"
    " trained with --tta. auto: where that was found to help.",
)


def backbone_options(several: bool = False) -> Callable[[Function], Function]:
    """Add the options that choose the network that gives the features; with `several`, more than one may be named."""

    def decorate(function: Function) -> Function:
        function = click.option("--weights", type=File(), help="File of weights for a network of keras.applications.")(
            function
        )
        function = (image_sizes_option if several else image_size_option)(function)
        more = (
            " Of several, with commas between them, the best is kept, or their average where that is better."
            if several
            else ""
        )
        return click.option(
            "--backbone",
            metavar="NAME|HANDLE",
            default="efficientnet-lite0",
            show_default=True,
            shell_complete=complete_backbones,
            help="Pretrained network that gives the features: a name from `retrain backbones`, the address of a TF Hub"
            f" feature vector, a SavedModel folder or a .tar.gz of one.{more}",
        )(function)

    return decorate
