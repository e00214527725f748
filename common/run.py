"""Everything around a training loop: command line, device, precision, run folder, log line, checkpoints.

A script uses it in this order: `launch` parses the command line and turns errors into an exit status,
`choose_device` and `choose_precision` decide once, `Run` is the folder, the place reached in training and the rows
measured so far. Stopping is safe at every update: what a run needs to go on to the same bytes is in checkpoint.pt.
"""

import contextlib
import csv
import ctypes
import dataclasses
import errno
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from common import BadInput, RunFailed, Stopped
from common.data import DATASETS, Dataset, epoch_order
from common.help import check_flags, help_text
from common.streams import stream, stream_seed

ROOT = Path(__file__).resolve().parent.parent
TIME_COLUMNS = ("seconds", "images_per_second")

# What config.json holds beside the fields of the Config.
PROVENANCE = ("script", "command", "git_commit", "versions", "started")
# Fields that say what to do now. They are no part of a run and are not stored.
ASKED = ("resume", "compare", "quiet")
# A resumed run may differ from the stored one in these fields and in no other.
FREE_ON_RESUME = ("epochs", "data_dir", "out", "device", "precision", *ASKED)
# What `--smoke` means for the fields that every script has; a flag given beside it still counts.
SMOKE_FIELDS = {"epochs": 2, "batch_size": 64, "dataset": "drawn", "smoke": True}

C = TypeVar("C")


# The command line ----------------------------------------------------------------------------------------------


def launch(main: Callable[[C], dict], config_class: type[C]) -> None:
    """Run a script from the shell: parse its flags, call `main`, exit with 0, 1 (failed), 2 (bad input) or 130."""
    script = Path(sys.argv[0]).name
    signal.signal(signal.SIGTERM, _ask_to_stop)
    signal.signal(signal.SIGINT, _ask_to_stop)
    keep_freed_memory()
    try:
        main(parse(config_class, sys.argv[1:]))
    except BadInput as error:
        _leave(2, f"{script}: {error}")
    except RunFailed as error:
        _leave(1, f"{script}: {error}")
    except Stopped as stopped:
        _leave(130, f"{script}: {stopped}")
    except KeyboardInterrupt:
        _leave(130, f"{script}: stopped{Run.go_on}")
    except (MemoryError, torch.OutOfMemoryError):
        _leave(1, f"{script}: out of memory, a smaller --batch-size needs less{Run.go_on}")
    except OSError as error:
        _leave(1, f"{script}: {error.filename or 'the run'}: {error.strerror or error}{Run.go_on}")


def parse(config_class: type[C], arguments: list[str]) -> C:
    """Turn flags into a Config. `--smoke`, `--paper` and `--resume` first change what a flag that is not given is.

    Raises BadInput with one line for an unknown flag or a value that the Config refuses; `--help` exits with 0.
    """
    if "--help" in arguments or "-h" in arguments:
        module = sys.modules[config_class.__module__]
        print(help_text(config_class, Path(module.__file__).name, module.__doc__.partition("\n")[0], ROOT))
        raise SystemExit(0)
    check_flags(config_class, arguments)
    import tyro

    def read(default: C | None) -> C:
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                return tyro.cli(config_class, args=arguments, default=default)
        except SystemExit as leaving:
            refused = leaving.__context__  # tyro draws a box around what the Config itself says; its words are enough
            raise BadInput(refused if isinstance(refused, BadInput) else _one_line(said.getvalue())) from None

    config = read(None)
    if config.resume is not None:
        stored = read_config(config.resume, config_class)
        if stored.dataset not in DATASETS and "dataset" not in {given.strip("-").split("=")[0] for given in arguments}:
            raise BadInput(
                f"{config.resume}: was trained on a folder, and no path in a run folder is followed; "
                f"add {shlex.join(['--dataset', stored.dataset])}"
            )
        return read(dataclasses.replace(stored, resume=config.resume))
    preset = (config_class.PAPER if getattr(config, "paper", False) else {}) | (SMOKE_FIELDS if config.smoke else {})
    return read(config_class(**preset)) if preset else config


def _one_line(boxed: str) -> str:
    """The message of tyro's drawn box as one line, without the box and the pointer to the help text."""
    lines = [line.strip("│╭╮╰╯─ ") for line in boxed.splitlines()]
    lines = [line for line in lines[1:] if line]
    return " ".join(lines).split(" For full helptext")[0].split(" Argument helptext")[0] + " (--help lists all)"


def check_fields(config: Any, **limits: tuple[float, float]) -> None:
    """Raise BadInput for the first field of a Config that is of another type, out of its limits, or no known choice.

    `limits`: the least and the greatest value of each number; those of the fields that all scripts share stand here.
    """
    kinds = {int: (int,), float: (int, float), bool: (bool,), str: (str,)}
    shared = {"epochs": (1, 100_000), "batch_size": (2, 1_000_000), "seed": (0, 2**32 - 1)}
    for field in dataclasses.fields(config):
        name, value = _flag(field.name), getattr(config, field.name)
        if get_origin(field.type) is Literal and value not in get_args(field.type):
            raise BadInput(f"{name} must be one of {', '.join(get_args(field.type))}, not {value}")
        if field.type in kinds and type(value) not in kinds[field.type]:
            raise BadInput(f"{name} must be of type {field.type.__name__}, not {value!r}")
        low, high = {**shared, **limits}.get(field.name, (-math.inf, math.inf))
        if field.type in (int, float) and not low <= value <= high:  # false for NaN, whatever the limits
            raise BadInput(f"{name} must be at least {low:g} and at most {high:g}, not {str(value)[:40]}")


def check_batch_size(config: Any, images: int) -> None:
    """Raise BadInput for a batch that is larger than the training set, or that leaves a single image over."""
    if config.batch_size > images:
        raise BadInput(f"--batch-size {config.batch_size} is larger than the training set of {images} images")
    if images % config.batch_size == 1:
        raise BadInput(f"--batch-size {config.batch_size} leaves a last batch of one image, which BatchNorm can't use")


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


# Device and precision ------------------------------------------------------------------------------------------


def choose_device(name: str) -> torch.device:
    """`auto` is cuda where there is one, then mps, else cpu. Raises BadInput for a device this machine lacks."""
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if there[device])
    if not there[name]:
        raise BadInput(f"--device {name}: PyTorch finds no such device on this machine")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """`auto` is bfloat16 where the hardware multiplies it natively, else float32: emulated bfloat16 is slower."""
    if name != "auto":
        return name
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        native = _cpu_multiplies_bfloat16()
    else:
        native = False
    return "bfloat16" if native else "float32"


def _cpu_multiplies_bfloat16() -> bool:
    if not hasattr(torch.cpu, "get_capabilities"):
        return torch.cpu._is_avx512_bf16_supported()
    able = torch.cpu.get_capabilities()
    return any(able.get(feature) for feature in ("avx512_bf16", "amx_bf16", "bf16"))


def mixed_precision(device: torch.device, precision: str) -> torch.autocast:
    """The context in which networks run: bfloat16 for products and convolutions, float32 for the rest."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


@contextlib.contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within: gradients flow through `network` but not into it, and its BatchNorm statistics stay as they are."""
    norms = [layer for layer in network.modules() if isinstance(layer, BatchNorm)]
    network.requires_grad_(False)
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        network.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True


@contextlib.contextmanager
def evaluating(*networks: nn.Module) -> Iterator[None]:
    """Within: no gradients and eval mode, so that looking moves no BatchNorm statistics. Restores the mode after."""
    modes = [network.training for network in networks]
    for network in networks:
        network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for network, mode in zip(networks, modes, strict=True):
            network.train(mode)


# Speed ---------------------------------------------------------------------------------------------------------


def adam(network: nn.Module, learning_rate: float, beta1: float = 0.9) -> torch.optim.Adam:
    """Adam as one kernel. Its step size is a tensor on the device, which a captured step reads anew every time."""
    device = next(network.parameters()).device
    rate = torch.tensor(learning_rate, device=device)
    return torch.optim.Adam(
        network.parameters(), lr=rate, betas=(beta1, 0.999), fused=True, capturable=device.type == "cuda"
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For optimisers whose step size is a tensor."""
    for group in optimizer.param_groups:
        group["lr"].fill_(rate)


def keep_freed_memory() -> None:
    """Have glibc keep the memory that one update frees for the next one.

    By default it may give megabytes back to the kernel after an update and fetch them again, page by page, in the next:
    whether it does depends on chance, and then costs a small network a third of its speed. Elsewhere this does nothing.
    """
    trim_threshold, top_pad, mmap_threshold = -1, -2, -3  # names of <malloc.h>
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt"):  # not in musl
        libc.mallopt(trim_threshold, 2**30)
        libc.mallopt(top_pad, 2**26)
        libc.mallopt(mmap_threshold, 2**25)  # the largest that glibc takes


def captured(
    update: Callable[[Tensor], dict[str, Tensor]], device: torch.device, random: torch.Generator
) -> Callable[[Tensor], dict[str, Tensor]]:
    """On CUDA, `update` as one graph that the host launches with a single call; elsewhere, `update` itself.

    `update` takes an index batch, draws from `random` and never waits for the device. What it returns is overwritten by
    the next update.
    """
    return _Captured(update, random) if device.type == "cuda" else update


class _Captured:
    """The first updates run plainly, for Adam and the libraries make what they keep; then one is recorded, and replayed
    for every batch of the same size. A batch of another size, an epoch's last, runs plainly.

    As PyTorch's notes on CUDA graphs ask: warm-up on a side stream, no gradients left when the recording starts
    (each step frees the last one's), a random generator that the graph knows, inputs copied to a fixed place.
    """

    WARM_UP = 3

    def __init__(self, update: Callable[[Tensor], dict[str, Tensor]], random: torch.Generator):
        self._update, self._random = update, random
        self._stream = torch.cuda.Stream()
        self._calls = 0

    def __call__(self, batch: Tensor) -> dict[str, Tensor]:
        if self._calls < self.WARM_UP:
            self._calls += 1
            return self._plain(batch)
        if self._calls == self.WARM_UP:
            self._calls += 1
            self._record(batch)
        if len(batch) != len(self._batch):
            return self._plain(batch)
        self._batch.copy_(batch)
        self._graph.replay()
        return self._seen

    def _plain(self, batch: Tensor) -> dict[str, Tensor]:
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            seen = self._update(batch)
        torch.cuda.current_stream().wait_stream(self._stream)
        return seen

    def _record(self, batch: Tensor) -> None:
        self._batch = batch.clone()
        self._graph = torch.cuda.CUDAGraph()
        self._graph.register_generator_state(self._random)
        with torch.cuda.graph(self._graph, stream=self._stream):
            self._seen = self._update(self._batch)


# Files ---------------------------------------------------------------------------------------------------------


PARTIAL = ".partial"  # how the names of files end that a killed process left half-written


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it takes the real name when it is complete, or vanishes.

    Raises OSError, naming `path`, where the disk is full or can't be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        yield scratch
        os.replace(scratch, path)
    except OSError as error:
        raise OSError(error.errno or errno.EIO, error.strerror or str(error), str(path)) from None
    finally:
        scratch.unlink(missing_ok=True)


def write_tensors(path: Path, content: dict) -> None:
    """Write what `read_tensors` reads. Raises OSError, naming `path`, where the disk is full."""
    # Through an open file, because torch.save writes a path's name into the archive.
    with whole_file(path) as scratch, scratch.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # the archive's writer hides the disk's error behind its own
                raise error.__context__ from None
            raise


def write_json(path: Path, content: dict) -> None:
    """Write a JSON object. Raises ValueError for a number that JSON cannot hold (nan, infinity)."""
    with whole_file(path) as scratch:
        scratch.write_text(json.dumps(content, indent=2, allow_nan=False, default=str) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict:
    """Read a JSON object. Raises BadInput, naming the file, where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds no JSON object")
    return content


def read_config(folder: str | Path, config_class: type[C]) -> C:
    """The Config of a run folder. Raises BadInput for a folder that is none, or is another script's.

    Its paths are the defaults, not those of the file: a run folder may come from a stranger, and no path in it is
    followed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder}: there is no such run folder")
    stored = read_json(folder / "config.json")
    script = Path(sys.modules[config_class.__module__].__file__ or "").stem
    if stored.get("script") != script:
        raise BadInput(f"{folder / 'config.json'}: is a run of {stored.get('script')}, not of {script}")
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    gone = sorted(set(stored) - set(fields) - set(PROVENANCE))
    missing = sorted(set(fields) - set(stored) - set(ASKED))
    if gone or missing:
        raise BadInput(f"{folder / 'config.json'}: fields do not match: unknown {gone}, missing {missing}")
    values = {}
    for name in sorted(set(fields) & set(stored) - set(ASKED)):
        default, value = fields[name].default, stored[name]
        if isinstance(default, Path):
            continue
        if isinstance(default, float) and type(value) is int and abs(value) < 2**53:
            value = float(value)
        if isinstance(default, tuple) and isinstance(value, list) and all(type(item) is int for item in value):
            value = tuple(value)
        if type(value) is not type(default):
            raise BadInput(f"{folder / 'config.json'}: {name} is {value!r}, not of type {type(default).__name__}")
        values[name] = value
    try:
        return config_class(**values)
    except BadInput as error:
        raise BadInput(f"{folder / 'config.json'}: {error}") from None


def read_tensors(path: Path, **networks: nn.Module) -> dict:
    """Read a file of tensors to the CPU, fill networks from the entries of their names, return the whole content.

    A network on the meta device, which has shapes but no memory, takes the tensors of the file as its own.
    Raises BadInput for a file that is damaged, would run code, or whose tensors differ from the networks' in name,
    shape or type or are not finite.
    """
    content = _read_torch(path)
    for name, network in networks.items():
        given, expected = content.get(name), network.state_dict()
        if not isinstance(given, dict) or given.keys() != expected.keys():
            raise BadInput(f"{path}: {name} does not fit its network: other names")
        for key, value in expected.items():
            if not _alike(given[key], value):
                raise BadInput(f"{path}: {name}.{key} is not finite {value.dtype} of shape {tuple(value.shape)}")
        network.load_state_dict(given, assign=next(network.parameters()).is_meta)
    return content


def _alike(given: Any, expected: Tensor) -> bool:
    """Whether something from a file is a plain tensor of the expected shape and type, with finite values."""
    return (
        isinstance(given, Tensor)
        and given.layout == torch.strided
        and (given.shape, given.dtype) == (expected.shape, expected.dtype)
        and not given.is_quantized
        and bool(torch.isfinite(given).all())
    )


def _read_torch(path: Path) -> dict:
    """weights_only: a file from a stranger is data, and a pickle that would run code is refused."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged archive or pickle can fail in any way, and all of them mean the same
        raise BadInput(
            f"{path}: holds no weights: {type(error).__name__} {' '.join(str(error).split())[:200]}"
        ) from None
    if not isinstance(content, dict):
        raise BadInput(f"{path}: holds no weights")
    return content


def _provenance(script: str) -> dict[str, Any]:
    """Where a run comes from, an entry for each of PROVENANCE."""
    commit = None
    if shutil.which("git"):
        git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
        commit = git.stdout.strip() if git.returncode == 0 else None
    packages = ("torch", "torchvision", "numpy", "scipy", "matplotlib")
    versions = {"python": sys.version.split()[0], **{name: metadata.version(name) for name in packages}}
    started = datetime.now().astimezone().isoformat(timespec="seconds")
    # A call from Python, such as a notebook's, has no command line of its own.
    command = shlex.join(sys.argv) if Path(sys.argv[0]).stem == script else None
    values = (script, command, commit, versions, started)
    return dict(zip(PROVENANCE, values, strict=True))


# The run -------------------------------------------------------------------------------------------------------

_stop_asked = False


def _ask_to_stop(signum: int, frame: object) -> None:
    """First Ctrl-C or SIGTERM: finish the update, save, leave. A second one, or one outside training: at once."""
    global _stop_asked
    if _stop_asked or not Run.in_training:
        raise KeyboardInterrupt
    _stop_asked = True


def _leave(status: int, message: str) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(status)


class Run:
    """One run folder: the place reached in training, the rows of metrics.csv, and the files that are not pictures.

    `epoch` counts the epochs that are complete, `step` the updates done in the one under way.
    """

    in_training = False
    go_on = ""  # how to go on with the run of this process, once it has a checkpoint

    def __init__(self, config: Any, script: str, dataset: Dataset, device: torch.device, precision: str):
        """Make the next free folder `out/script/run-NNN`, or take up the one that `config.resume` names.

        Raises BadInput where the folder can't be made or the run to go on with had other fields than `config`.
        """
        self.title = f"{script} on {dataset.title}"
        self.epochs, self.epoch, self.step = config.epochs, 0, 0
        self.rows: list[dict[str, float]] = []
        self._seed, self._batch_size = config.seed, config.batch_size
        self._n = len(dataset.train_images)
        self._updates = math.ceil(self._n / self._batch_size)  # in an epoch
        self._device = device
        self._parts: dict[str, Any] = {}
        self._sums: dict[str, Tensor] = {}
        self._images, self._seconds, self._since = 0, 0.0, time.perf_counter()
        self._began, self._drawing = self._since, 0.0
        self._resumes = config.resume is not None
        self._quiet = config.quiet

        # What was decided is stored instead of `auto`: a resumed run must not decide anew.
        decided = {"dataset": dataset.source, "device": device.type, "precision": precision}
        stored = {**dataclasses.asdict(config), **decided, **_provenance(script)}
        self._moved = False
        if config.resume is None:
            self.folder = next_folder(Path(config.out) / script)
        else:
            self.folder = Path(config.resume)
            before = read_config(self.folder, type(config))
            for field in dataclasses.fields(config):
                old, new = getattr(before, field.name), stored[field.name]
                if field.name not in FREE_ON_RESUME and old != new:
                    raise BadInput(f"--resume {self.folder}: {_flag(field.name)} was {old} there, not {new}")
            self._moved = before.device != device.type
        self._config_json = {name: value for name, value in stored.items() if name not in ASKED}
        command = ["python", str(ROOT / f"{script}.py"), "--resume", str(self.folder)]
        if config.data_dir != type(config).data_dir:
            command += ["--data-dir", str(config.data_dir)]
        if dataset.folder:
            command += ["--dataset", dataset.source]
        self._resume_command = shlex.join(command)
        self._bar = None

    def stream(self, name: str) -> torch.Generator:
        """A random generator of this run's, on its device, for the purpose that it is named after."""
        return stream(self._seed, name, device=self._device)

    @property
    def updates(self) -> int:
        """The updates that are done, in all epochs."""
        return self.epoch * self._updates + self.step

    @property
    def progress(self) -> float:
        """The share of all updates that is done, from 0 to 1."""
        return self.updates / (self.epochs * self._updates)

    @property
    def watched(self) -> bool:
        """Whether somebody looks at a bar."""
        return (sys.stderr.isatty() or "ipykernel" in sys.modules) and not self._quiet

    def keep(self, **parts: Any) -> None:
        """Name what a checkpoint holds (networks, optimisers, random generators, tensors), and write the first one, so
        that a run can be resumed from its first moment on; when resuming, restore it all instead.

        Raises BadInput, with nothing written, for a checkpoint that does not fit.
        """
        self._parts = parts
        if self._resumes:
            self._take_up(self.folder / "checkpoint.pt")
        how = ", ".join(f"{name} {self._config_json[name]}" for name in ("device", "precision", "seed"))
        left = f"epochs {self.epoch + 1} to {self.epochs} of {self._updates} updates on {self._n:,} images"
        self.say(f"{self.title}, {left if self.epoch < self.epochs else 'complete, drawn again'}, {how}")
        self.say(f"folder {self.folder}")
        for left_over in self.folder.glob(f".*{PARTIAL}"):
            left_over.unlink()
        if not self._resumes:
            self.save()
        elif self.rows:
            self._write_metrics()  # a killed run may have left a row more there than its checkpoint has
        write_json(self.folder / "config.json", self._config_json)
        self._since = time.perf_counter()  # what comes before the first update counts to its epoch
        Run.go_on = f"; go on with: {self._resume_command}"

    def _take_up(self, path: Path) -> None:
        networks = {name: part for name, part in self._parts.items() if isinstance(part, nn.Module)}
        content = read_tensors(path, **networks)
        try:
            self.epoch, self.step = int(content["epoch"]), int(content["step"])
            self._sums = {name: _scalar(value).to(self._device) for name, value in content["sums"].items()}
            self.rows = [_row(row, number) for number, row in enumerate(content["rows"], 1)]
            torch.set_rng_state(content["torch_random_state"])
            for name in set(self._parts) - set(networks):
                if self._moved and isinstance(self._parts[name], torch.Generator):
                    # Its state means nothing to another kind of device: other draws from here on, as good as these.
                    self._parts[name].manual_seed(stream_seed(self._seed, name, self.epoch + 1))
                else:
                    _restore(self._parts[name], content[name])
        except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
            raise BadInput(f"{path}: does not fit config.json: {error!r}") from None
        if len(self.rows) != self.epoch or not 0 <= self.step <= self._updates:
            raise BadInput(f"{path}: does not fit config.json: epoch {self.epoch}, step {self.step}")
        if self.epoch + (self.step > 0) > self.epochs:
            raise BadInput(f"--epochs {self.epochs}: the run in {self.folder} is further already")
        try:
            times = [{name: row[name] for name in TIME_COLUMNS} for row in read_rows(self.folder / "metrics.csv")]
        except (BadInput, KeyError):
            times = []
        if len(times) < len(self.rows):
            print(f"{self.folder / 'metrics.csv'}: written anew from the checkpoint, without times", file=sys.stderr)
            times = [dict.fromkeys(TIME_COLUMNS, 0.0)] * len(self.rows)
        # The columns in the order of metrics.csv.
        self.rows = [{"epoch": row["epoch"], **time, **row} for row, time in zip(self.rows, times, strict=False)]

    def remaining_epochs(self) -> Iterator[int]:
        """The numbers of the epochs still to do, the one under way first."""
        from tqdm.auto import tqdm  # in a notebook, its own kind of bar

        total = self.epochs * self._updates
        self._bar = tqdm(total=total, initial=self.updates, unit="updates", disable=not self.watched)
        Run.in_training = True
        try:
            while self.epoch < self.epochs:
                yield self.epoch + 1
                if _stop_asked:  # while the epoch was measured and drawn, its checkpoint written
                    raise Stopped(f"stopped after epoch {self.epoch}{Run.go_on}")
        finally:
            Run.in_training = False
            self._bar.close()
            self._bar = None

    def batches(self) -> Iterator[Tensor]:
        """The index batches (batch_size,) int64 still to do in this epoch. Every image comes once per epoch."""
        order = epoch_order(self._n, self._seed, self.epoch + 1).to(self._device)
        start = time.perf_counter()
        for batch in order.split(self._batch_size)[self.step :]:
            yield batch
            self.step += 1
            self._images += len(batch)
            self._bar.update()
            if _stop_asked:
                self.save()
                raise Stopped(f"stopped in epoch {self.epoch + 1}{Run.go_on}")
        if self._device.type == "cuda":
            torch.cuda.synchronize()  # the time of the work, not of asking for it
        self._seconds = time.perf_counter() - start

    def add(self, **quantities: Tensor) -> None:
        """Add one update's scalars, the same names every time, to the running sums, which stay on the device."""
        values = [value.detach().float() for value in quantities.values()]
        if not self._sums:
            self._sums = {name: torch.zeros_like(value) for name, value in zip(quantities, values, strict=True)}
        torch._foreach_add_(list(self._sums.values()), values)

    def means(self) -> dict[str, float]:
        """The means of what was added in this epoch. Raises RunFailed, naming the loss or weight that is not finite."""
        self._check_health()
        values = torch.stack(list(self._sums.values())).div(self.step).tolist()
        return dict(zip(self._sums, values, strict=True))

    def _check_health(self) -> None:
        """A run with a loss or weight that is no longer a number is stopped, not repaired: what made it so is a fault,
        and a gradient set to 0 would hide it."""
        found = dict(self._sums)
        for name, part in self._parts.items():
            if isinstance(part, nn.Module):
                found |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        for name, value in found.items():
            if not torch.isfinite(value).all():
                what = f"{name} is {value.item()}" if value.ndim == 0 else f"{name} is not finite"
                raise RunFailed(
                    f"epoch {self.epoch + 1}: {what}; checkpoint.pt in {self.folder} is the last good one. "
                    "A lower learning rate often helps."
                )

    def finish_epoch(
        self,
        measured: dict[str, float],
        unshown: tuple[str, ...] = (),
        warn: Callable[[list[dict[str, float]]], str | None] = lambda rows: None,
    ) -> None:
        """Write the epoch's row to metrics.csv, then the checkpoint, then the console's line but for `unshown`.

        `warn` looks at all rows and may say what is wrong with them.
        """
        now = time.perf_counter()
        row = {"epoch": self.epoch + 1, "seconds": now - self._since, "images_per_second": self._images / self._seconds}
        self.rows.append({**row, **measured})
        self._since, self._images = now, 0
        self.epoch, self.step, self._sums = self.epoch + 1, 0, {}
        self._write_metrics()
        self.save()
        shown = {name: value for name, value in measured.items() if name not in unshown}
        line = f"epoch {self.epoch:{len(str(self.epochs))}d}/{self.epochs}  {row['seconds']:6.1f} s"
        line += f"  {row['images_per_second']:6.0f} images/s"
        line += "".join(f"  {name} {_short(value)}" for name, value in shown.items())
        warning = warn(self.rows)
        self.say(line + (f"  WARNING: {warning}" if warning else ""))

    def _write_metrics(self) -> None:
        path = self.folder / "metrics.csv"
        with whole_file(path) as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one, or nothing if the run is to be quiet."""
        if not self._quiet:
            print_line = print if self._bar is None else self._bar.write
            print_line(line, file=sys.stdout)
            sys.stdout.flush()

    def sparingly(self, draw: Callable[[], None]) -> None:
        """Draw something dear, like a plot: at the end of the run, and before that for at most 5 % of the time."""
        start = time.perf_counter()
        if self.epoch == self.epochs or self._drawing <= 0.05 * (start - self._began):
            draw()
            self._drawing += time.perf_counter() - start

    def save(self) -> None:
        """Write checkpoint.pt. Raises RunFailed for weights that are not finite, keeping the last good one."""
        self._check_health()
        # Without times: the same run is the same bytes.
        rows = [{name: value for name, value in row.items() if name not in TIME_COLUMNS} for row in self.rows]
        content = {"epoch": self.epoch, "step": self.step, "sums": self._sums, "rows": rows}
        content["torch_random_state"] = torch.get_rng_state()
        content |= {name: _state(part) for name, part in self._parts.items()}
        write_tensors(self.folder / "checkpoint.pt", _interned(content))

    def report(self, numbers: dict[str, Any]) -> dict[str, Any]:
        """Write report.json, print the scorecard and the folder, and return the numbers."""
        write_json(self.folder / "report.json", numbers)
        self.say(f"\n{self.title}, after {self.epoch} epochs")
        for name, value in numbers.items():
            shown = f"{value:.{4 if abs(value) >= 0.01 else 6}f}" if isinstance(value, float) else value
            self.say(f"  {name:<36} {'none' if shown is None else shown}")
        self.say(f"  folder: {self.folder}")
        return numbers


def _short(value: float) -> str:
    """Six characters at least, with the digits that matter for a loss and for a very small error alike."""
    return f"{value:6d}" if isinstance(value, int) else f"{value:6.3f}" if abs(value) >= 0.05 else f"{value:.6f}"


def _interned(content: Any) -> Any:
    """The same content with one object per name, so that pickle writes the same bytes for names read from a file."""
    if isinstance(content, dict):
        return {
            sys.intern(name) if isinstance(name, str) else name: _interned(value) for name, value in content.items()
        }
    return [_interned(item) for item in content] if isinstance(content, list) else content


def _state(part: Any) -> Any:
    if isinstance(part, torch.Generator):
        return part.get_state()
    if isinstance(part, torch.optim.Optimizer):
        return {"state": part.state_dict()["state"]}  # the rest is said by the Config and the device
    return part if isinstance(part, Tensor) else part.state_dict()


def _restore(part: Any, state: Any) -> None:
    """Fill a part of a run from a checkpoint. Raises ValueError, or what PyTorch raises, for what does not fit."""
    if isinstance(part, torch.Generator):
        part.set_state(state)
    elif isinstance(part, Tensor):
        if not _alike(state, part):
            raise ValueError(f"no {part.dtype} of shape {tuple(part.shape)}")
        part.copy_(state)
    else:
        own = [dict(group) for group in part.param_groups]  # `load_state_dict` copies what a captured step must find
        groups = part.state_dict()["param_groups"]
        part.load_state_dict({"state": _moments(part, state["state"]), "param_groups": groups})
        for group, kept in zip(part.param_groups, own, strict=True):
            group.update(kept)


def _moments(optimizer: torch.optim.Optimizer, states: dict) -> dict:
    """What an optimiser remembers of each weight, from a file. Raises ValueError where it fits no weight."""
    names = {torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.SGD: {"momentum_buffer"}}[type(optimizer)]
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, state in states.items():
        shapes = {name: torch.zeros(()) if name == "step" else weights[index] for name in names}
        if state.keys() != names or not all(_alike(state[name], shape) for name, shape in shapes.items()):
            raise ValueError(f"the optimiser's state {index} fits no weight")
    return states


def next_folder(parent: Path, kind: str = "run") -> Path:
    """Make `parent/run-NNN` with the next free number; making it is what claims it, so two runs never share one.

    Raises BadInput where it can't be made.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        while True:
            taken = [int(m[1]) for path in parent.iterdir() if (m := re.fullmatch(kind + r"-(\d+)", path.name))]
            folder = parent / f"{kind}-{max(taken, default=0) + 1:03d}"
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise BadInput(f"--out: {error.filename}: {error.strerror}") from None


def _scalar(value: Tensor) -> Tensor:
    if not _alike(value, torch.zeros(())):
        raise ValueError("a sum is no number")
    return value


def _row(row: dict[str, float], number: int) -> dict[str, float]:
    """Row `number` (from 1) of metrics.csv as a checkpoint has it. Raises ValueError for anything else."""
    if row["epoch"] != number:
        raise ValueError(f"row {number} is another epoch's")
    if not all(type(value) in (int, float) and math.isfinite(value) for value in row.values()):
        raise ValueError(f"row {number} holds what is no number")
    return row


def read_rows(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, none where there is no such file. Raises BadInput for a damaged one."""
    if not path.exists():  # stopped within the first epoch
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [{name: _number(text) for name, text in row.items()} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise BadInput(f"{path}: is damaged: {error}") from None


def _number(text: str) -> float:
    return int(text) if str(text).isdecimal() else float(text)
