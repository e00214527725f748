"""A run: its folder, its place in training, the means of its epochs, its report.

Training can stop after any update: checkpoint.pt and metrics.csv hold all that is needed to continue to the same bytes.
"""

import errno
import hashlib
import math
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from common import BadInput, RunFailed, Stopped
from common.data import DATASETS, NAMED_SETS, Dataset, epoch_order, load_dataset
from common.run.checkpoint import flatten_state, load_state, not_finite, one_line, read_checkpoint, write_checkpoint
from common.run.config import ACTIONS, FREE_ON_RESUME, ROOT, Settings, flag, read_config, run_folder
from common.run.console import Console, DeferredSignals, join_warnings, wrapped
from common.run.files import numbered_folder, read_json, read_rows, remove_partial, write_csv, write_json
from common.train.device import choose_device, choose_precision, mixed_precision
from common.train.random import stream

TIME_COLUMNS = ("seconds", "images_per_second")
LEAST_UPDATES = 1000  # of a run whose length was not chosen: with fewer neither GAN learns anything
PLOT_EVERY = 20.0  # seconds at least between two plots of the curves, each of which takes about one


class Run:
    """One run, used as `with Run(config) as run`. `data` lies on `device`; `autocast` is the context for training.

    `epoch` counts the complete epochs, `step` the updates of the one under way; `rows` are those of metrics.csv, one
    each tenth of an epoch. Those of whole epochs, which have more columns, are `epoch_rows`.
    """

    def __init__(self, config: Settings):
        """Load the data, then make the next free folder `out/script/run-NNN`, or take the one to resume.

        Raises BadInput if that can't be done, or if the run to resume had other fields or images.
        """
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.autocast = mixed_precision(self.device, self.precision)
        if config.dataset in DATASETS and not config.smoke:
            batch_ends(config, NAMED_SETS)  # before a download is tried
        self.console = Console(config.quiet)
        self.say = self.console.say
        self.data = load_dataset(config.dataset, config.data_dir, config.smoke, self.console.interactive).to(
            self.device
        )
        self.config = config = config.for_classes(len(self.data.classes))
        self.n = len(self.data.train_images)
        self.title = f"{config.NAME} on {self.data.title}"
        self.epochs, self.epoch, self.step = epochs_of(config, self.n), 0, 0
        self.rows: list[dict[str, float]] = []
        self._batch_ends = batch_ends(config, self.n)
        self.updates_per_epoch = len(self._batch_ends) + 1
        self._sums: dict[str, Tensor] = {}
        self._parts: dict[str, Any] = {}
        self._warned: str | None = None
        self._failed: list[str] = []  # pictures that could not be made
        self._signals, self._bar = DeferredSignals(), None
        self._images, self._seconds, self._since, self._plotted = 0, 0.0, 0.0, -math.inf
        # What was decided is stored in place of `auto`: a resumed run must not decide again.
        decided = {"dataset": self.data.source, "device": self.device.type, "precision": self.precision}
        self._stored = as_stored(config) | decided | {"images": checksum(self.data)}
        if config.resume is None:
            self.folder = numbered_folder(config.out / config.SCRIPT)
        else:
            self.folder = run_folder(config.resume)
            self._compare(vars(read_config(self.folder, type(config))))
        self._lock = FileLock(self.folder / ".lock", blocking=False)  # the system frees it when a process dies
        try:
            self._lock.acquire()
        except Timeout:
            raise BadInput(f"{self.folder}: another process trains this run; wait for its end, or stop it") from None

    def _compare(self, before: Mapping[str, Any]) -> None:
        """Raise BadInput if the run to resume had another field that may not change, or other images."""
        for name, old in before.items():
            if name not in FREE_ON_RESUME and old != self._stored[name]:
                raise BadInput(f"--resume {self.folder}: {flag(name)} was {old} there, not {self._stored[name]}")
        if read_json(self.folder / "config.json").get("images") != self._stored["images"]:
            found = self.data.source if self.data.folder else f"{self.data.source} in {self.config.data_dir}"
            raise BadInput(f"--resume {self.folder}: its training and test images were others than those of {found}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._signals.__exit__()
        (self.folder / ".lock").unlink(missing_ok=True)  # before the lock is free, or it could be another's
        self._lock.release()
        if self._bar is not None:
            self._bar.close()
        if error and (self.folder / "config.json").exists() and not isinstance(error, (BadInput, RunFailed)):
            error.add_note(f"continue with: {self._resume_command()}")

    @property
    def updates(self) -> int:
        """The updates that are done, in all epochs."""
        return self.epoch * self.updates_per_epoch + self.step

    @property
    def total_updates(self) -> int:
        """The updates of the whole run."""
        return self.epochs * self.updates_per_epoch

    @property
    def progress(self) -> float:
        """The share of all updates that is done, from 0 to 1."""
        return self.updates / self.total_updates

    @property
    def epoch_rows(self) -> list[dict[str, float]]:
        """The rows at the ends of epochs: their `epoch` is a whole number, that of the others has decimals. Row 0 has
        the time before the first update."""
        return [row for row in self.rows if isinstance(row["epoch"], int) and row["epoch"]]

    @property
    def headline(self) -> str:
        """What a picture shows, for its title: the model, its data and how long it has trained."""
        when = f" after {self.epoch} epoch{'s' * (self.epoch > 1)}" if self.epoch else ", untrained"
        return self.title + when

    def plot_due(self) -> bool:
        """Whether to plot the curves now: at the end of the run, and every PLOT_EVERY seconds before it."""
        due = self.epoch == self.epochs or time.perf_counter() - self._plotted > PLOT_EVERY
        self._plotted = time.perf_counter() if due else self._plotted
        return due

    @property
    def picture_due(self) -> bool:
        """Whether this epoch keeps its pictures: about a hundred of a run do, the first and the last among them."""
        return self.epoch % math.ceil(self.epochs / 100) == 0 or self.epoch in (1, self.epochs)

    def attempt(self, save: Callable[..., Any], *given: Any) -> Any:
        """Call what only makes pictures or measures them. An error there is a warning: it must not cost the report.

        A full disk still ends the run, which can be resumed.
        """
        try:
            return save(self, *given)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            self._failed.append(f"{save.__name__} failed: {type(error).__name__}: {one_line(error)}")
            self.console.warn(self._failed[-1])
            return None

    def stream(self, name: str) -> torch.Generator:
        """The random generator of this name, from the run's seed, on its device."""
        return stream(self.config.seed, name, device=self.device)

    def remaining_epochs(self) -> Iterator[int]:
        """The numbers of the epochs still to do, the one under way first. Raises Stopped after Ctrl-C or SIGTERM."""
        if not self.rows:
            self.rows.append({"epoch": 0, "seconds": self.elapsed})
            self._since = time.perf_counter()
        self._bar = self.console.bar(self.total_updates, "training", self.updates)
        with self._signals, self._bar:
            while self.epoch < self.epochs:
                yield self.epoch + 1
                if self._signals.received:  # while the epoch was measured, after its checkpoint was written
                    raise Stopped(f"stopped after epoch {self.epoch}")

    def batches(self, columns: Callable[[dict[str, float]], dict[str, float]] = dict) -> Iterator[Tensor]:
        """The index batches (batch_size,) int64 still to do in this epoch. Every image comes once per epoch.

        Each tenth of the epoch but the last becomes a row of metrics.csv, `columns` of the means since the row before.
        """
        order = epoch_order(self.n, self.config.seed, self.epoch + 1).to(self.device)
        start = time.perf_counter()
        for batch in order.tensor_split(self._batch_ends)[self.step :]:
            yield batch
            self.step += 1
            self._images += len(batch)
            self._bar.update()
            if self.step < self.updates_per_epoch and self._row_due(self.step):
                means = self.means()  # waits for the device, so that the time is that of the work
                self._seconds, start = time.perf_counter() - start, time.perf_counter()
                self._add_row(round(self._place, 4), columns(means))
            if self._signals.received:
                self.save()
                raise Stopped(f"stopped in epoch {self.epoch + 1}")
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # the time of the work, not of asking for it
        self._seconds = time.perf_counter() - start

    def log(self, scalars: Mapping[str, Tensor]) -> None:
        """Add the scalars of one update, the same names every time, to the epoch's sums, which stay on the device."""
        values = [value.detach().float() for value in scalars.values()]
        if not self._sums:
            self._sums = {name: torch.zeros_like(value) for name, value in zip(scalars, values, strict=True)}
        torch._foreach_add_(list(self._sums.values()), values)

    def means(self) -> dict[str, float]:
        """The means of what was logged since the row before. Raises RunFailed for a loss or weight that is not
        finite."""
        self._check_finite(self._sums | flatten_state(self._parts))
        before = next((step for step in range(self.step - 1, 0, -1) if self._row_due(step)), 0)
        values = torch.stack(list(self._sums.values())).div(self.step - before).tolist()
        return dict(zip(self._sums, values, strict=True))

    @property
    def elapsed(self) -> float:
        """The seconds since the last row of metrics.csv; before the first since the run began."""
        return time.perf_counter() - self._since

    @property
    def _place(self) -> float:
        """The place in training in epochs."""
        return self.epoch + self.step / self.updates_per_epoch

    def _row_due(self, step: int) -> bool:
        """Whether this update of an epoch completes a tenth of it."""
        return 10 * step // self.updates_per_epoch > 10 * (step - 1) // self.updates_per_epoch

    def _add_row(self, place: float, measured: Mapping[str, float]) -> None:
        now = time.perf_counter()
        times = {"seconds": now - self._since, "images_per_second": self._images / self._seconds}
        self.rows.append({"epoch": place, **times, **measured})
        self._since, self._images, self._sums = now, 0, {}

    def end_epoch(
        self,
        measured: dict[str, float],
        columns: Mapping[str, str],
        legend: str = "",
        warnings: Sequence[str | None] = (),
    ) -> None:
        """Add the epoch's row, write metrics.csv and the checkpoint, print the console's {column: heading}, once with
        the legend above them."""
        self._add_row(self.epoch + 1, measured)
        self.epoch, self.step = self.epoch + 1, 0
        self.save()
        seconds = sum(row["seconds"] for row in self.rows if row["epoch"] > self.epoch - 1)
        self.console.say_epoch(self.rows[-1] | {"seconds": seconds}, self.epochs, columns, legend)
        # What ten updates of a smoke run look like is no warning.
        warning = None if self.config.smoke else join_warnings(warnings)
        if warning != self._warned:  # not again in every epoch
            self.console.warn(warning)
        self._warned = warning

    def finish(
        self, numbers: dict[str, Any], scorecard: Mapping[str, str], picture: str, warnings: Sequence[str | None] = ()
    ) -> dict[str, Any]:
        """Write report.json, print the scorecard, lines {name: text}, and where to look; return the numbers."""
        warnings = [*self._failed, *(() if self.config.smoke else warnings)]
        numbers = {"dataset": self.data.name, "epochs": self.epoch, **numbers, "warning": join_warnings(warnings)}
        numbers["seconds"] = sum(row["seconds"] for row in self.rows)
        write_json(self.folder / "report.json", numbers)
        longer = f"{self._resume_command()} --epochs {2 * self.epoch}"
        minutes, seconds = divmod(round(numbers["seconds"]), 60)
        where = {
            "time": f"{minutes} min {seconds} s before judging",
            "look at": self.folder / picture,
            "folder": self.folder,
        }
        where["train longer"] = longer
        if self.config.smoke:
            del where["train longer"]
            where["smoke"] = f"everything works; after only {self.updates} updates the pictures are noise"
        self.console.say_scorecard(self.headline, numbers["warning"], scorecard, where)
        return {**numbers, "folder": str(self.folder)}

    def restore(self, **parts: Any) -> None:
        """Name what a checkpoint holds (modules, optimisers, random generators), and write the first one; when
        resuming, fill it from the checkpoint instead.

        Raises BadInput, with nothing written, for a checkpoint that does not fit.
        """
        self._parts = parts
        if self.config.resume:
            self._load()
        how = ", ".join(f"{name} {self._stored[name]}" for name in ("device", "precision", "seed"))
        what = f"{self.epochs} epoch{'s' * (self.epochs > 1)} of {self.updates_per_epoch} updates, {self.n:,} images"
        if self.epoch == self.epochs:
            what = "complete, its pictures and its report are made again"
        elif self.config.resume:
            what = f"continues in epoch {self.epoch + 1} of {self.epochs}, {self.progress:.0%} are done"
        self.say(wrapped(f"{self.title}: {what}"))
        self.say(how)
        self.say(f"folder {self.folder}")
        if self.data.note:
            self.say(wrapped(self.data.note))
        for warning in self.data.warnings:
            self.console.warn(warning)
        remove_partial(self.folder)
        if not self.config.resume:
            self.save()
        elif self.rows:
            write_csv(self.folder / "metrics.csv", self.rows)  # a killed run may have left rows too many
        else:
            (self.folder / "metrics.csv").unlink(missing_ok=True)
        write_json(self.folder / "config.json", self._stored)
        self._since = time.perf_counter()

    def _load(self) -> None:
        path, table = self.folder / "checkpoint.pt", self.folder / "metrics.csv"
        content = read_checkpoint(path)
        sums = [name for name in content if name.startswith("sum.")]
        try:
            load_state(content, self._parts)
            torch.set_rng_state(content["torch_random_state"])
            self.epoch, self.step = content["epoch"], content["step"]
            self._sums = {name.removeprefix("sum."): content[name].to(self.device) for name in sums}
            if not (self.epoch >= 0 and 0 <= self.step <= self.updates_per_epoch):
                raise ValueError(f"epoch {self.epoch}, step {self.step}")
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise BadInput(f"{path}: does not fit config.json: {one_line(error)}") from None
        if self.epoch + (self.step > 0) > self.epochs:
            raise BadInput(f"--epochs {self.epochs}: the run in {self.folder} is further already")
        self.rows = [row for row in read_rows(table) if row["epoch"] <= round(self._place, 4)]
        if (found := len(self.epoch_rows)) < self.epoch:
            raise BadInput(f"{table}: has rows of {found} epochs, but checkpoint.pt is after epoch {self.epoch}")

    def save(self) -> None:
        """Write metrics.csv and checkpoint.pt. Raises RunFailed for weights that are not finite, keeping the last good
        one."""
        sums = {f"sum.{name}": value for name, value in self._sums.items()}
        content = {"epoch": self.epoch, "step": self.step, **sums, "torch_random_state": torch.get_rng_state()}
        content |= flatten_state(self._parts)
        self._check_finite(content)
        if self.rows:
            write_csv(self.folder / "metrics.csv", self.rows)
        write_checkpoint(self.folder / "checkpoint.pt", content)

    def _check_finite(self, content: dict[str, Any]) -> None:
        if wrong := not_finite(content):
            raise RunFailed(
                f"epoch {self.epoch + 1}: {wrong}; checkpoint.pt in {self.folder} is the last good one. "
                "A lower learning rate often helps."
            )

    def _resume_command(self) -> str:
        script = program() or ROOT / f"{self.config.SCRIPT}.py"
        return shlex.join(["python", str(script), "--resume", str(self.folder)])


def batch_ends(config: Settings, images: int) -> list[int]:
    """Where the batches of an epoch end, except the last. A single image left over joins the batch before it.

    The default batch size is smaller on a small set: a tenth of it, at least 16. One that was chosen and is larger than
    the set raises BadInput.
    """
    size = config.batch_size
    if size == type(config).batch_size:
        size = min(size, max(16, images // 10))
    elif size > images:
        raise BadInput(f"--batch-size {size} is larger than the training set of {images} images")
    return list(range(size, images - 1, size))


def epochs_of(config: Settings, images: int) -> int:
    """The epochs of a run. If no number was chosen, n < 20,000 images get 20,000 / n times the default, at most 20
    times, and in any case at least 1,000 updates."""
    if config.epochs != type(config).epochs:
        return config.epochs
    longer = config.epochs * min(20, max(1, 20_000 / images))
    return math.ceil(max(longer, LEAST_UPDATES / (len(batch_ends(config, images)) + 1)))


def program() -> Path | None:
    """The script that is being run from the shell, perhaps a copy of one; None where none is, as in a notebook."""
    path = Path(sys.argv[0]).resolve()
    return path if path.parent == ROOT and path.suffix == ".py" else None


def as_stored(config: Settings) -> dict[str, Any]:
    """What config.json holds: the fields, paths in full, and where the run comes from."""
    packages = ("torch", "torchvision", "numpy", "scipy", "matplotlib")
    fields = {name: value for name, value in vars(config).items() if name not in ACTIONS}
    return fields | {
        "data_dir": config.data_dir.resolve(),
        "out": config.out.resolve(),
        "script": config.SCRIPT,
        "command": shlex.join(sys.argv) if program() else None,  # a notebook has no command line of its own
        "git_commit": git_commit(),
        "versions": {"python": sys.version.split()[0], **{name: metadata.version(name) for name in packages}},
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def git_commit() -> str | None:
    """The commit of this repository, with "-dirty" behind it if files differ from it; None outside a checkout."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    if not shutil.which("git") or Path(git("rev-parse", "--show-toplevel")).resolve() != ROOT:
        return None
    return git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def checksum(data: Dataset) -> str:
    """A checksum of the training and test images, in their order."""
    found = hashlib.sha256()
    for images in (data.train_images, data.test_images):
        found.update(str(len(images)).encode())
        found.update(images.cpu().numpy())
    return found.hexdigest()[:16]
