"""Weights, optimiser moments and random states in and out of a file. What is read is checked before it is used.

A checkpoint is one flat dictionary of tensors and numbers, each under a name of its own such as
`model.generator.dense.0.weight`. So equal states are equal bytes, and a file can be compared with what is expected.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from common import BadInput
from common.device import default_torch_modes
from common.files import atomic_write, read_json
from common.settings import Settings, read_config, run_folder

FORMAT = 3  # of checkpoint.pt
MOMENTS = {torch.optim.Adam: {"step", "exp_avg", "exp_avg_sq"}, torch.optim.SGD: {"momentum_buffer"}}

Content = dict[str, Any]
M = TypeVar("M", bound=nn.Module)


def flat(parts: Mapping[str, Any]) -> Content:
    """Every tensor of the parts (modules, optimisers, random generators, tensors), under `part.name` or `part`."""
    content: Content = {}
    for name, part in parts.items():
        if isinstance(part, Tensor):
            content[name] = part
        elif isinstance(part, torch.Generator):
            content[name] = part.get_state()
        elif isinstance(part, torch.optim.Optimizer):
            for index, moments in part.state_dict()["state"].items():
                content |= {f"{name}.{index}.{key}": moments[key] for key in sorted(moments)}
        else:
            content |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    return content


def restore(content: Content, parts: Mapping[str, Any]) -> None:
    """Fill the parts from the content of a file. A module on the meta device takes the file's tensors as its own.

    Raises ValueError, naming the entry, for one that is missing, unknown, of another shape or type, or not finite.
    """
    for name, part in parts.items():
        if isinstance(part, Tensor):
            part.copy_(like(content, name, part))
        elif isinstance(part, torch.Generator):
            part.set_state(like(content, name, part.get_state()))
        elif isinstance(part, torch.optim.Optimizer):
            _restore_optimizer(content, name, part)
        else:
            expected = part.state_dict()
            if more := [key for key in content if key.startswith(f"{name}.") and key[len(name) + 1 :] not in expected]:
                raise ValueError(f"{more[0]} is unknown")
            state = {key: like(content, f"{name}.{key}", value) for key, value in expected.items()}
            part.load_state_dict(state, assign=any(value.is_meta for value in expected.values()))


def _restore_optimizer(content: Content, name: str, optimizer: torch.optim.Optimizer) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    kept = [dict(group) for group in optimizer.param_groups]  # a CUDA graph must find the same step-size tensor again
    moments = {
        index: {
            key: like(content, f"{name}.{index}.{key}", torch.zeros(()) if key == "step" else weight)
            for key in MOMENTS[type(optimizer)]
        }
        for index, weight in enumerate(weights)
        if any(f"{name}.{index}.{key}" in content for key in MOMENTS[type(optimizer)])
    }
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    for group, own in zip(optimizer.param_groups, kept, strict=True):
        group.update(own)


def like(content: Content, name: str, expected: Tensor) -> Tensor:
    """The entry of this name. Raises ValueError unless it is a plain finite tensor of the expected shape and type."""
    given = content.get(name)
    if not (
        isinstance(given, Tensor)
        and given.layout == torch.strided
        and (given.shape, given.dtype) == (expected.shape, expected.dtype)
        and not given.is_quantized
        and bool(torch.isfinite(given).all())
    ):
        raise ValueError(f"{name} is not finite {expected.dtype} of shape {tuple(expected.shape)}")
    return given


def columns_of(rows: Sequence[Mapping[str, float]], left_out: Sequence[str]) -> Content:
    """Rows of metrics.csv as a tensor per column, `row.name` (epochs,)."""
    columns = [name for name in rows[0] if name not in left_out] if rows else []
    kinds = {int: torch.int64, float: torch.float64}
    return {
        f"row.{name}": torch.tensor([row[name] for row in rows], dtype=kinds[type(rows[0][name])]) for name in columns
    }


def rows_of(content: Content, epochs: int) -> list[dict[str, float]]:
    """The rows of metrics.csv in a checkpoint. Raises ValueError where they are not those of so many epochs."""
    names = [name for name in content if name.startswith("row.")] if epochs else []
    columns = []
    for name in names:
        kind = content[name].dtype if isinstance(content[name], Tensor) else torch.float64
        columns.append(like(content, name, torch.empty(epochs, dtype=kind, device="meta")).tolist())
    keys = [name.removeprefix("row.") for name in names]
    rows = [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]
    if [row.get("epoch") for row in rows] != list(range(1, epochs + 1)):
        raise ValueError(f"it has no rows of {epochs} epochs")
    return rows


def not_finite(content: Content) -> str | None:
    """What to say of the first entry that is not finite, such as "loss_d is nan"; None where all are."""
    for name, value in content.items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():
            return f"{name} is {value.item()}" if value.ndim == 0 else f"{name} is not finite"
    return None


def write_tensors(path: Path, content: Content) -> None:
    """Write what `read_tensors` reads. Raises OSError, naming `path`, where the disk is full."""
    # Through an open file, because torch.save writes a path's name into the archive.
    with atomic_write(path) as scratch, scratch.open("wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # the archive's writer hides the disk's error behind its own
                raise error.__context__ from None
            raise


def read_tensors(path: Path) -> Content:
    """Read a file of tensors to the CPU. It is data only: a pickle that would run code is refused.

    Raises BadInput for a file that is damaged, of another format, or not there.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged archive or pickle can fail in any way, and all of them mean the same
        reason = " ".join(str(error).split())[:200]
        raise BadInput(f"{path}: holds no weights: {type(error).__name__} {reason}") from None
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise BadInput(f"{path}: holds no weights")
    found = content.get("format", 1)
    if type(found) is not int or found != FORMAT:
        raise BadInput(f"{path}: was written by another version, its format is not {FORMAT}")
    return content


def read_module(path: Path, name: str, module: nn.Module) -> None:
    """Fill a module from a file. Raises BadInput, naming the file, for one that can't be read or does not fit."""
    content = read_tensors(path)
    try:
        restore(content, {name: module})
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from None


@default_torch_modes()
def load_model(folder: str | Path, config_class: type[Settings], model_class: type[M]) -> M:
    """The model of a run folder on the CPU, in eval mode. Raises BadInput for a folder without such a run."""
    config = read_config(folder, config_class)
    with torch.device("meta"):  # shapes without memory: the file must fit before anything is made from it
        model = model_class(config)
    read_module(run_folder(folder) / "checkpoint.pt", "model", model)
    report = run_folder(folder) / "report.json"
    model.extra_repr = partial(told, read_json(report) if report.exists() else {"dataset": config.dataset})
    return model.eval()


def told(report: Mapping[str, Any]) -> str:
    """What the repr of a loaded model says of it: what it was trained on, and how good it is."""
    first = ("dataset", "epochs", "accuracy", "frechet_over_floor", "ratio")
    correlations = (name for name in report if name.endswith("rank_correlation"))
    shown = [(name, report[name]) for name in (*first, *correlations) if report.get(name) is not None]
    return ", ".join(f"{name}={value:.3g}" if type(value) is float else f"{name}={value}" for name, value in shown)
