"""What several test files call: the scripts in a process of their own, run folders read and compared."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.data import Dataset
from common.look import infogan as look_infogan
from common.look import scorer
from common.run import run as run_module
from common.run.config import ROOT
from common.run.console import Console
from common.run.run import TIME_COLUMNS
from common.train import guide

FLOAT32 = torch.autocast("cpu", enabled=False)
CPU = torch.device("cpu")


def make_quick(patch: pytest.MonkeyPatch, data: Dataset) -> None:
    """Runs train on `data` with a guide of five updates, an untrained classifier, and few images per code."""
    patch.setattr(run_module, "load_dataset", lambda *_: data)
    patch.setattr(look_infogan, "PER_CATEGORY", 20)
    patch.setattr(guide, "UPDATES", 5)
    patch.setattr(scorer, "_train", lambda *_: None)


def command_line(script: str, *flags: object) -> list[str]:
    return [sys.executable, str(ROOT / script), *map(str, flags)]


def run_script(script: str, *flags: object, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        command_line(script, *flags), cwd=cwd, capture_output=True, text=True, timeout=600, check=False
    )


def rows_without_time(run_folder: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv as they were written, but for the columns that a clock decides."""
    with (run_folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [
            {name: value for name, value in row.items() if name not in TIME_COLUMNS} for row in csv.DictReader(file)
        ]


def pictures(run_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run_folder.iterdir() if path.suffix in (".png", ".gif")}


def tensors(network: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and every buffer."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def moved(network: nn.Module, before: dict[str, Tensor]) -> set[str]:
    """The names of the parameters and buffers that differ from an earlier `tensors`."""
    return {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}


def parameter_names(network: nn.Module) -> set[str]:
    return {name for name, _ in network.named_parameters()}


class Heard(Console):
    """A console whose lines are kept."""

    def __init__(self):
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class OnMeta(TorchDispatchMode):
    """Every operation must leave its result on the meta device, where no tensor has a value to wait for."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **kwargs or {})
        assert all(value.is_meta for value in tree_leaves(made) if isinstance(value, Tensor)), function
        return made
