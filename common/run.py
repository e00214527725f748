"""A run: its folder, its place in training, its means, its lines, its report.

Training can stop after any update: checkpoint.pt holds all that is needed to go on to the same bytes.
"""

import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from common import BadInput, RunFailed, Stopped, checkpoint, settings
from common.console import Console, joined
from common.data import DATASETS, NAMED_SETS, load_dataset
from common.device import choose_device, choose_precision, mixed_precision
from common.files import numbered_folder, read_numbers, remove_partial, write_csv, write_json
from common.progress import Progress
from common.settings import Settings, as_stored, batch_ends
from common.signals import Deferred
from common.streams import stream, stream_seed

PLOT_EVERY = 20.0  # seconds at least between two plots of the curves, each of which takes about one


class Run(Progress):
    """One run, used as `with Run(config) as run`. `data` lies on `device`; `autocast` is the context for training."""

    def __init__(self, config: Settings):
        """Load the data, then make the next free folder `out/script/run-NNN`, or take the one to resume.

        Raises BadInput where that can't be done, or where the run to resume had other fields than `config`.
        """
        self.config = config
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.autocast = mixed_precision(self.device, self.precision)
        if config.dataset in DATASETS and not config.smoke:
            batch_ends(config, NAMED_SETS)  # before a download is tried
        self.console = Console(config.quiet)
        with self.console.hushed():
            self.data = load_dataset(config.dataset, config.data_dir, config.smoke).to(self.device)
        self.n = len(self.data.train_images)
        super().__init__(config, self.n, self.device)
        self.title = f"{config.SCRIPT} on {self.data.title}"
        self.say = self.console.say
        self._stop, self._hushed = Deferred(), self.console.hushed()
        self._parts: dict[str, Any] = {}
        self._images, self._seconds, self._since, self._plotted = 0, 0.0, 0.0, -math.inf
        # What was decided is stored in place of `auto`: a resumed run must not decide anew.
        decided = {"dataset": self.data.source, "device": self.device.type, "precision": self.precision}
        self._stored = as_stored(config, **decided)
        if config.resume is None:
            self.folder, self._moved = numbered_folder(Path(config.out) / config.SCRIPT), False
            return
        self.folder = settings.run_folder(config.resume)
        self._moved = settings.config_to_resume(self.folder, type(config), self._stored).device != self.device.type

    def __enter__(self) -> Self:
        self._hushed.__enter__()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._stop.__exit__()
        self._hushed.__exit__(kind, error, traceback)
        self.console.close()
        if error and (self.folder / "config.json").exists() and not isinstance(error, (BadInput, RunFailed)):
            error.add_note(f"go on with: {self._resume_command()}")

    def plot_due(self) -> bool:
        """Whether to plot the curves now: at the end of the run, and every PLOT_EVERY seconds before it."""
        due = self.epoch == self.epochs or time.perf_counter() - self._plotted > PLOT_EVERY
        self._plotted = time.perf_counter() if due else self._plotted
        return due

    def stream(self, name: str) -> torch.Generator:
        """The random generator of this name, from the run's seed, on its device."""
        return stream(self.config.seed, name, device=self.device)

    def restore(self, **parts: Any) -> None:
        """Name what a checkpoint holds (modules, optimisers, random generators, tensors), and write the first one; when
        resuming, fill it from the checkpoint instead.

        Raises BadInput, with nothing written, for a checkpoint that does not fit.
        """
        if self.config.resume:
            self._read(parts)
        self._parts = parts
        how = ", ".join(f"{name} {self._stored[name]}" for name in ("device", "precision", "seed"))
        left = f"epochs {self.epoch + 1} to {self.epochs} of {self.updates_per_epoch} updates on {self.n:,} images"
        self.say(f"{self.title}, {left if self.epoch < self.epochs else 'complete, drawn again'}, {how}")
        self.say(f"folder {self.folder}")
        if self.data.note:
            self.say(self.data.note)
        for doubt in self.data.warnings:
            print(f"WARNING: {doubt}", file=sys.stderr)
        remove_partial(self.folder)
        if not self.config.resume:
            self.save()
        elif self.rows:
            write_csv(self.folder / "metrics.csv", self.rows)  # a killed run may have left one row too many
        write_json(self.folder / "config.json", self._stored)
        self._since = time.perf_counter()  # what comes before the first update counts to its epoch

    def _read(self, parts: Mapping[str, Any]) -> None:
        path = self.folder / "checkpoint.pt"
        content = checkpoint.read_tensors(path)
        # The state of a generator means nothing to another kind of device, where it begins a new sequence.
        anew = [name for name, part in parts.items() if self._moved and isinstance(part, torch.Generator)]
        try:
            times = read_numbers(self.folder / "metrics.csv")
        except BadInput:
            times = []
        try:
            checkpoint.restore(content, {name: part for name, part in parts.items() if name not in anew})
            torch.set_rng_state(checkpoint.like(content, "torch_random_state", torch.get_rng_state()))
            timed = self.take(content, times)
        except (LookupError, TypeError, ValueError, OverflowError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BadInput(f"{path}: does not fit config.json: {reason}") from None
        for name in anew:
            parts[name].manual_seed(stream_seed(self.config.seed, name, self.epoch + 1))
        if self.epoch + (self.step > 0) > self.epochs:
            raise BadInput(f"--epochs {self.epochs}: the run in {self.folder} is further already")
        if not timed:
            print(f"{self.folder / 'metrics.csv'}: written anew from the checkpoint, without times", file=sys.stderr)

    def save(self) -> None:
        """Write checkpoint.pt. Raises RunFailed for weights that are not finite, keeping the last good one."""
        content = {**self.content(), "torch_random_state": torch.get_rng_state(), **checkpoint.flat(self._parts)}
        self._check_finite(content)
        checkpoint.write_tensors(self.folder / "checkpoint.pt", content)

    def _check_finite(self, content: dict[str, Any]) -> None:
        if wrong := checkpoint.not_finite(content):
            raise RunFailed(
                f"epoch {self.epoch + 1}: {wrong}; checkpoint.pt in {self.folder} is the last good one. "
                "A lower learning rate often helps."
            )

    def remaining_epochs(self) -> Iterator[int]:
        """The numbers of the epochs still to do, the one under way first. Raises Stopped after Ctrl-C or SIGTERM."""
        self.console.start_bar(self.epochs * self.updates_per_epoch, self.updates)
        self._stop.__enter__()
        while self.epoch < self.epochs:
            yield self.epoch + 1
            if self._stop.asked:  # while the epoch was measured and drawn, its checkpoint written
                raise Stopped(f"stopped after epoch {self.epoch}")
        self._stop.__exit__()
        self.console.close()

    def batches(self) -> Iterator[Tensor]:
        """The index batches (batch_size,) int64 still to do in this epoch. Every image comes once per epoch."""
        start = time.perf_counter()
        for batch in self.batches_left():
            yield batch
            self.step += 1
            self._images += len(batch)
            self.console.advance()
            if self._stop.asked:
                self.save()
                raise Stopped(f"stopped in epoch {self.epoch + 1}")
        if self.device.type == "cuda":
            torch.cuda.synchronize()  # the time of the work, not of asking for it
        self._seconds = time.perf_counter() - start

    def means(self) -> dict[str, float]:
        """The means of what was added in this epoch. Raises RunFailed for a loss or weight that is not finite."""
        self._check_finite(self._sums | checkpoint.flat(self._parts))
        return super().means()

    def end_epoch(
        self, measured: dict[str, float], shown: Mapping[str, str], warnings: Sequence[str | None] = ()
    ) -> None:
        """Write the epoch's row to metrics.csv, then the checkpoint, then the console's line: {column: heading}."""
        now = time.perf_counter()
        self.next_epoch({"seconds": now - self._since, "images_per_second": self._images / self._seconds, **measured})
        self._since, self._images = now, 0
        write_csv(self.folder / "metrics.csv", self.rows)
        self.save()
        self.console.say_epoch(self.rows[-1], self.epochs, shown, joined(warnings))

    def finish(
        self, numbers: dict[str, Any], told: Mapping[str, str], picture: str, warnings: Sequence[str | None] = ()
    ) -> dict[str, Any]:
        """Write report.json, print the scorecard, lines {name: text}, and where to look; return the numbers."""
        numbers = {"dataset": self.data.name, "epochs": self.epoch, **numbers, "warning": joined(warnings)}
        numbers["seconds"] = sum(row["seconds"] for row in self.rows)
        write_json(self.folder / "report.json", numbers)
        longer = f"{self._resume_command()} --epochs {2 * self.epoch}"
        where = {"look at": self.folder / picture, "folder": self.folder, "train on with": longer}
        self.console.say_scorecard(f"{self.title}, after {self.epoch} epochs", numbers["warning"], {**told, **where})
        return {**numbers, "folder": str(self.folder)}

    def _resume_command(self) -> str:
        return settings.resume_command(self.config, self.folder, self.data.folder)
