"""Weights, optimiser moments and random states to a file and back.

A checkpoint is one flat dictionary of tensors and numbers, each under a name of its own such as
`model.generator.dense.0.weight`. So equal states are equal bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common import BadInput
from common.run.config import Settings, read_config, run_folder
from common.run.files import atomic_write
from common.train.device import default_torch_modes

FORMAT = 5  # of checkpoint.pt

Content = dict[str, Any]


def flatten_state(parts: Mapping[str, Any]) -> Content:
    """The state of parts (modules, optimisers, random generators) as one dictionary, each value under `part.name`."""
    content: Content = {}
    for name, part in parts.items():
        if isinstance(part, torch.Generator):
            content[name] = part.get_state()
        elif isinstance(part, torch.optim.Optimizer):
            for index, moments in part.state_dict()["state"].items():
                content |= {f"{name}.{index}.{key}": moments[key] for key in sorted(moments)}
        else:
            content |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
    return content


def load_state(content: Content, parts: Mapping[str, Any]) -> None:
    """Fill the parts from what `flatten_state` returned. A module on the meta device takes the tensors as its own.

    Raises RuntimeError, KeyError or ValueError for content that does not fit.
    """
    for name, part in parts.items():
        own = {key.removeprefix(f"{name}."): value for key, value in content.items() if key.startswith(f"{name}.")}
        if isinstance(part, torch.Generator):
            part.set_state(content[name])
        elif isinstance(part, torch.optim.Optimizer):
            state: dict[int, Content] = {}
            for key, value in own.items():
                index, _, moment = key.partition(".")
                state.setdefault(int(index), {})[moment] = value
            weights = [weight for group in part.param_groups for weight in group["params"]]
            # PyTorch does not check this, and a fused step would write beyond a smaller tensor.
            if state and not (
                sorted(state) == list(range(len(weights)))
                and len({frozenset(moments) for moments in state.values()}) == 1
                and all(v.shape in ((), weights[index].shape) for index in state for v in state[index].values())
            ):
                raise ValueError(f"the moments of {name} do not fit its weights")
            part.load_state_dict({"state": state, "param_groups": part.state_dict()["param_groups"]})
        else:
            part.load_state_dict(own, assign=any(value.is_meta for value in part.state_dict().values()))


def not_finite(content: Content) -> str | None:
    """The first entry that is not finite, such as "loss_d is nan"; None if all are."""
    for name, value in content.items():
        if isinstance(value, Tensor) and not torch.isfinite(value).all():
            return f"{name} is {value.item()}" if value.ndim == 0 else f"{name} is not finite"
    return None


def write_checkpoint(path: Path, content: Content) -> None:
    """Write a checkpoint. Raises OSError, naming `path`, if the disk is full."""
    # Through an open file, because torch.save writes a path's name into the archive.
    with atomic_write(path) as scratch, scratch.open("wb") as file:
        try:
            torch.save({"format": FORMAT, **content}, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # the archive's writer hides the disk's error behind its own
                raise error.__context__ from None
            raise


def read_checkpoint(path: Path) -> Content:
    """The content of a checkpoint, on the CPU. It is data only: a pickle that would run code is refused.

    Raises BadInput for a file that is damaged, of another format, or not there.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # a damaged archive or pickle can fail in any way, and all of them mean the same
        raise BadInput(f"{path}: holds no weights: {type(error).__name__} {one_line(error)}") from None
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise BadInput(f"{path}: was written by another version, its format is {found} and not {FORMAT}")
    return content


def one_line(error: Exception) -> str:
    """What an error says, shortened to one line."""
    return " ".join(str(error).split())[:200]


@default_torch_modes()
def load_model(folder: str | Path, config_class: type[Settings], model_class: type[nn.Module]) -> Any:
    """The model of a run folder on the CPU, in eval mode. Raises BadInput for a folder without such a run."""
    folder = run_folder(folder)
    config = read_config(folder, config_class)
    content = read_checkpoint(folder / "checkpoint.pt")
    with torch.device("meta"):  # shapes without memory
        model = model_class(config)
    try:
        load_state(content, {"model": model})
    except (RuntimeError, KeyError, ValueError) as error:
        raise BadInput(f"{folder / 'checkpoint.pt'}: does not fit config.json: {one_line(error)}") from None
    return model.eval()
