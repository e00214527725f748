"""The place in training: which update comes next, and what has been measured so far."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from common import checkpoint
from common.data import epoch_order
from common.settings import Settings, batch_ends, epochs_of

TIME_COLUMNS = ("seconds", "images_per_second")


class Progress:
    """`epoch` counts the complete epochs, `step` the updates of the one under way; `rows` are those of metrics.csv."""

    def __init__(self, config: Settings, images: int, device: torch.device):
        self.epochs, self.epoch, self.step = epochs_of(config, images), 0, 0
        self.rows: list[dict[str, float]] = []
        self._n, self._seed, self._device = images, config.seed, device
        self._batch_ends = batch_ends(config, images)
        self.updates_per_epoch = len(self._batch_ends) + 1
        self._sums: dict[str, Tensor] = {}

    @property
    def updates(self) -> int:
        """The updates that are done, in all epochs."""
        return self.epoch * self.updates_per_epoch + self.step

    @property
    def progress(self) -> float:
        """The share of all updates that is done, from 0 to 1."""
        return self.updates / (self.epochs * self.updates_per_epoch)

    @property
    def when(self) -> str:
        """The place in training in a picture's title."""
        return f"epoch {self.epoch}" if self.epoch else "untrained"

    def batches_left(self) -> Sequence[Tensor]:
        """The index batches (batch_size,) int64 still to do in this epoch. Every image comes once per epoch."""
        order = epoch_order(self._n, self._seed, self.epoch + 1).to(self._device)
        return order.tensor_split(self._batch_ends)[self.step :]

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        """Add one update's scalars, the same names every time, to the running sums, which stay on the device."""
        values = [value.detach().float() for value in scalars.values()]
        if not self._sums:
            self._sums = {name: torch.zeros_like(value) for name, value in zip(scalars, values, strict=True)}
        torch._foreach_add_(list(self._sums.values()), values)

    def means(self) -> dict[str, float]:
        """The means of what was added in this epoch."""
        values = torch.stack(list(self._sums.values())).div(self.step).tolist()
        return dict(zip(self._sums, values, strict=True))

    def next_epoch(self, row: Mapping[str, float]) -> None:
        """Keep the row of the epoch under way, which is complete."""
        self.rows.append({"epoch": self.epoch + 1, **row})
        self.epoch, self.step, self._sums = self.epoch + 1, 0, {}

    def content(self) -> dict[str, Any]:
        """What a checkpoint holds of it. Without times: the same run is the same bytes."""
        sums = {f"sum.{name}": value for name, value in self._sums.items()}
        return {"epoch": self.epoch, "step": self.step, **sums, **checkpoint.columns_of(self.rows, TIME_COLUMNS)}

    def take(self, content: Mapping[str, Any], times: list[dict[str, float]]) -> bool:
        """Go to the place of a checkpoint, whose rows get their times from those of metrics.csv. Returns whether all
        had one. Raises ValueError or KeyError for a place that can't be."""
        self.epoch, self.step = (int(content[name]) for name in ("epoch", "step"))
        sums = [name for name in content if name.startswith("sum.")]
        scalar = torch.zeros(())
        self._sums = {name[4:]: checkpoint.like(content, name, scalar).to(self._device) for name in sums}
        rows = checkpoint.rows_of(content, self.epoch)
        if not 0 <= self.step <= self.updates_per_epoch:
            raise ValueError(f"epoch {self.epoch}, step {self.step}")
        known = len(times) >= len(rows) and all(name in row for row in times for name in TIME_COLUMNS)
        for number, row in enumerate(rows):
            time = {name: times[number][name] if known else 0.0 for name in TIME_COLUMNS}
            rows[number] = {"epoch": row["epoch"], **time, **row}
        self.rows = rows
        return known
