"""The Config fields that every script has, how fields are checked, and config.json."""

import contextlib
import dataclasses
import math
import os
import types
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from common import BadInput
from common.run.files import read_json

ROOT = Path(__file__).resolve().parents[2]
ACTIONS = ("resume", "quiet")  # fields that say what to do now; they are not stored
FREE_ON_RESUME = ("epochs", "dataset", "data_dir", "out", "precision", *ACTIONS)  # images are compared by checksum
PROVENANCE = ("script", "command", "git_commit", "versions", "started", "images")  # in config.json beside the fields


@dataclass(frozen=True)
class Settings:
    """What a script's Config extends. The annotation of a field decides what it accepts, the comment behind it is its
    help, and a comment on a line of its own names a group of `--help`."""

    # data
    dataset: str = "auto"  # mnist, fashion, kmnist, drawn, or a folder of images; auto: MNIST if it can be had
    data_dir: Path = ROOT / "data"  # where MNIST/raw is or will be, FashionMNIST/raw, KMNIST/raw
    # machine
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: cuda if there, else cpu
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the hardware multiplies it
    # output
    out: Path = ROOT / "outputs"  # parent of the run folders
    resume: Path | None = None  # run folder to continue, or whose pictures are to be made again
    quiet: bool = False  # nothing on the console except warnings and errors
    smoke: bool = False  # a complete run in seconds on a few rendered digits, to check an installation

    SCRIPT: ClassVar[str]  # the name of its run folders, whatever a copy of the script is called
    NAME: ClassVar[str]  # of the model, in titles
    LIMITS: ClassVar = {
        "epochs": (1, 100_000),
        "batch_size": (2, 1_000_000),
        "seed": (0, 2**32 - 1),
        "noise_size": (1, 4096),
        "beta1": (0, 0.9999),
        "average": (0, 1),
        **dict.fromkeys(("learning_rate", "learning_rate_d", "learning_rate_g", "decay_from"), (0, 1)),
    }
    PRESETS: ClassVar = {"smoke": {"epochs": 2, "batch_size": 64, "dataset": "drawn"}}

    def __init_subclass__(cls):
        """A Config names only the limits and presets that it adds."""
        cls.LIMITS = cls.__base__.LIMITS | cls.LIMITS
        cls.PRESETS = cls.__base__.PRESETS | cls.PRESETS

    def __post_init__(self):
        """Raises BadInput for the first field of another type, out of its limits, or of no known choice."""
        kinds = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            limits = self.LIMITS.get(field.name, (-math.inf, math.inf))
            value = _checked(flag(field.name), kinds[field.name], getattr(self, field.name), limits)
            object.__setattr__(self, field.name, value)

    def for_classes(self, classes: int) -> Self:
        """The Config with what follows from the number of classes of its set."""
        return self

    @classmethod
    def make(cls, **given: Any) -> Self:
        """A Config as the shell makes it: the presets among the given fields (`smoke=True`) first, then the fields."""
        preset = {}
        for name, fields in reversed(cls.PRESETS.items()):  # smoke makes any other short
            if given.get(name):
                preset |= fields
        return cls(**preset | given)


def _checked(name: str, kind: Any, value: Any, limits: tuple[float, ...]) -> Any:
    """The value, or a text that stands for it, in the type of its annotation. Raises BadInput where it can't be."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(value, (tuple, list)) and value:
        return tuple(_checked(name, choices[0], one, limits) for one in value)
    if origin in (types.UnionType, Union):
        return None if value is None else _checked(name, choices[0], value, limits)
    if origin is Literal and value not in choices:
        raise BadInput(f"{name} must be one of {', '.join(choices)}, not {value}")
    if kind is Path:
        return as_path(name, value)
    for number, like in ((int, Integral), (float, Real)):
        if kind is number and isinstance(value, (like, str)) and not isinstance(value, bool):
            with contextlib.suppress(ValueError, OverflowError):
                value = number(value)
    if origin is not Literal and type(value) is not kind:
        raise BadInput(f"{name} must be of type {kind.__name__}, not {value!r}")
    low, high, *others = limits
    if kind in (int, float) and not low <= value <= high and value not in others:  # false for NaN, whatever the limits
        alone = "".join(f", or {other}" for other in others)
        raise BadInput(f"{name} must be at least {low} and at most {high}{alone}, not {str(value)[:40]}")
    return value


def as_path(name: str, value: str | Path) -> Path:
    """A path with its ~ expanded. Raises BadInput for what is no path, or the ~ of an unknown user."""
    try:
        return Path(value).expanduser()
    except (TypeError, RuntimeError) as error:
        raise BadInput(f"{name}: {value} is no path: {error}") from None


def run_folder(path: str | Path) -> Path:
    """A run folder from its path or from that of a file in it. Raises BadInput where there is none."""
    folder = as_path("run folder", path)
    if os.path.isfile(folder):  # unlike the methods of Path, these are False for any path that can't be
        folder = folder.parent
    if not os.path.isdir(folder):
        raise BadInput(f"{folder}: there is no such run folder")
    return folder


def flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def read_config(folder: str | Path, config_class: type[Settings]) -> Settings:
    """The Config of a run folder. Raises BadInput, naming the file, for a folder without one or of another script."""
    path = run_folder(folder) / "config.json"
    stored = read_json(path)
    if stored.get("script") != config_class.SCRIPT:
        raise BadInput(f"{path}: is a run of {stored.get('script')}, not of {config_class.SCRIPT}")
    names = {field.name for field in dataclasses.fields(config_class)} - {*ACTIONS}
    unknown, missing = sorted(stored.keys() - names - {*PROVENANCE}), sorted(names - stored.keys())
    if unknown or missing:
        raise BadInput(f"{path}: was written by another version: unknown {unknown}, missing {missing}")
    try:
        return config_class(**{name: stored[name] for name in names})
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
