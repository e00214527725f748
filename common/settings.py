"""The Config fields that every script has, how fields are checked, and config.json."""

import dataclasses
import math
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

from common import BadInput
from common.files import read_json

ROOT = Path(__file__).resolve().parent.parent
ACTIONS = ("resume", "quiet")  # fields that say what to do now; they are not stored
FREE_ON_RESUME = ("epochs", "data_dir", "out", "device", "precision", *ACTIONS)  # a resumed run may change only these
PROVENANCE = ("script", "command", "git_commit", "versions", "started")  # what config.json holds beside the fields

C = TypeVar("C", bound="Settings")


@dataclass(frozen=True)
class Settings:
    """What a script's Config extends. A comment that begins a line names a group of `--help`, one that ends a line is
    the help of its field."""

    # data
    dataset: str = "auto"  # mnist, fashion, kmnist, drawn, or a folder of images; auto: MNIST if it can be had
    data_dir: Path = ROOT / "data"  # where MNIST/raw is or will be, FashionMNIST/raw, KMNIST/raw
    # machine
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: cuda if there, then mps, else cpu
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the hardware multiplies it
    # output
    out: Path = ROOT / "outputs"  # parent of the run folders
    resume: Path | None = None  # run folder to go on with, or to draw again
    quiet: bool = False  # no bar and no line on the console, but for warnings and errors
    smoke: bool = False  # a complete run in seconds on a few drawn digits, to check an installation

    SCRIPT: ClassVar[str]  # the name of its run folders; it stays when the file is copied
    LIMITS: ClassVar = {
        "epochs": (1, 100_000),
        "batch_size": (2, 1_000_000),
        "seed": (0, 2**32 - 1),
        # of both GANs
        "noise_size": (1, 4096),
        "learning_rate_d": (0, 1),
        "learning_rate_g": (0, 1),
        "decay_from": (0, 1),
        "beta1": (0, 0.9999),
        "average": (0, 0.99999),
    }
    PRESETS: ClassVar = {"smoke": {"epochs": 2, "batch_size": 64, "dataset": "drawn"}}

    def __post_init__(self):
        """Raises BadInput for the first field of another type, out of its limits, or of no known choice."""
        kinds = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
        for name in ("data_dir", "out", "resume"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_path(flag(name), value))
        for field in dataclasses.fields(self):
            name, value, kind = flag(field.name), getattr(self, field.name), field.type
            if get_origin(kind) is Literal and value not in get_args(kind):
                raise BadInput(f"{name} must be one of {', '.join(get_args(kind))}, not {value}")
            values = value
            if get_origin(kind) is tuple:
                kind = get_args(kind)[0]
                if not isinstance(value, tuple) or not value:
                    raise BadInput(f"{name} must be a tuple of one value or more, not {value!r}")
            else:
                values = (value,)
            low, high = self.LIMITS.get(field.name, (-math.inf, math.inf))
            for one in values:
                if kind in kinds and type(one) not in kinds[kind]:
                    raise BadInput(f"{name} must be of type {kind.__name__}, not {one!r}")
                if kind in (int, float) and not low <= one <= high:  # false for NaN, whatever the limits
                    raise BadInput(f"{name} must be at least {low} and at most {high}, not {str(one)[:40]}")

    @classmethod
    def make(cls, **given: Any) -> Self:
        """A Config as the shell makes it: the presets among the given fields (`smoke=True`) first, then the fields."""
        preset = {}
        for name, fields in cls.PRESETS.items():
            if given.get(name):
                preset |= fields
        return cls(**preset | given)


def as_path(name: str, value: str | Path) -> Path:
    """A path with its ~ replaced. Raises BadInput for what is no path, or the ~ of an unknown user."""
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


def batch_ends(config: Settings, images: int) -> list[int]:
    """Where the batches of an epoch end, but for the last. A single image left over joins the batch before it.

    The default batch size becomes that of a smaller set; one that was chosen raises BadInput.
    """
    if config.batch_size > images and config.batch_size != type(config).batch_size:
        raise BadInput(f"--batch-size {config.batch_size} is larger than the training set of {images} images")
    return list(range(config.batch_size, images - 1, config.batch_size))


def epochs_of(config: Settings, images: int) -> int:
    """How long a run is. Where no length was chosen, n < 20,000 images get 20,000 / n times the default, at most 20."""
    default = config.epochs == type(config).epochs
    return math.ceil(config.epochs * min(20, max(1, 20_000 / images))) if default else config.epochs


def program() -> Path | None:
    """The script that is being run from the shell, perhaps a copy of one; None where none is, as in a notebook."""
    path = Path(sys.argv[0]).resolve()
    return path if path.parent == ROOT and path.suffix == ".py" else None


def resume_command(config: Settings, folder: Path, images: Path | None) -> str:
    """How to go on with a run from the shell. images: the folder it trains on, if it does."""
    command = ["python", str(program() or ROOT / f"{config.SCRIPT}.py"), "--resume", str(folder)]
    if config.data_dir != Settings.data_dir:
        command += ["--data-dir", str(config.data_dir)]
    return shlex.join([*command, "--dataset", str(images)] if images else command)


def as_stored(config: Settings, **decided: str) -> dict[str, Any]:
    """What config.json holds: the fields, with what was decided in place of `auto`, and where the run comes from."""
    commit = None
    if shutil.which("git"):
        git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        commit = git.stdout.strip() if git.returncode == 0 else None
    packages = ("torch", "torchvision", "numpy", "scipy", "matplotlib")
    versions = {"python": sys.version.split()[0], **{name: metadata.version(name) for name in packages}}
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    # A call from Python, such as a notebook's, has no command line of its own.
    command = shlex.join(sys.argv) if program() else None
    provenance = dict(zip(PROVENANCE, (config.SCRIPT, command, commit, versions, started), strict=True))
    return {name: value for name, value in vars(config).items() if name not in ACTIONS} | decided | provenance


def read_config(folder: str | Path, config_class: type[C]) -> C:
    """The Config of a run folder. Raises BadInput for a folder that is none, or is another script's.

    Its paths are the defaults, not those of the file: a run folder may come from a stranger, and no path in it is
    followed.
    """
    path = run_folder(folder) / "config.json"
    stored = read_json(path)
    if stored.get("script") != config_class.SCRIPT:
        raise BadInput(f"{path}: is a run of {stored.get('script')}, not of {config_class.SCRIPT}")
    fields = {field.name: field for field in dataclasses.fields(config_class) if field.name not in ACTIONS}
    gone = sorted(stored.keys() - fields.keys() - {*PROVENANCE, *ACTIONS})
    missing = sorted(fields.keys() - stored.keys())
    if gone or missing:
        raise BadInput(f"{path}: fields do not match: unknown {gone}, missing {missing}")
    values = {}
    for name, field in fields.items():
        default, value = field.default, stored[name]
        if isinstance(default, Path):
            continue
        if isinstance(default, float) and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if isinstance(default, tuple) and isinstance(value, list):
            value = tuple(value)
        if type(value) is not type(default):
            raise BadInput(f"{path}: {name} is {value!r}, not of type {type(default).__name__}")
        values[name] = value
    try:
        return config_class(**values)
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def config_to_resume(folder: Path, config_class: type[C], stored: Mapping[str, Any]) -> C:
    """The Config of a run folder. Raises BadInput where a field differs that a resumed run may not change."""
    before = read_config(folder, config_class)
    for name, old in vars(before).items():
        if name not in FREE_ON_RESUME and old != stored[name]:
            raise BadInput(f"--resume {folder}: {flag(name)} was {old} there, not {stored[name]}")
    return before
