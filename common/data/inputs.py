"""Checks of what a model is given, where a wrong value would silently give a wrong result. Each raises ValueError."""

import operator
from typing import NoReturn

import torch
from torch import Tensor

from common.train.random import stream_seed


def whole_number(name: str, value: int, least: int) -> int:
    """A whole number of any kind, as an int."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, not {value!r}") from None
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {number}")
    return number


def sampling_generator(seed: int | None) -> torch.Generator:
    """The random generator of a model's `generate`, on the CPU. Without a seed its numbers differ every time."""
    random = torch.Generator()
    if seed is None:
        random.seed()
        return random
    return random.manual_seed(stream_seed(whole_number("seed", seed, 0), "generate"))


def indices(name: str, value: int | Tensor, n: int, k: int) -> Tensor:
    """One whole number in 0 … k-1 for all of n, or n of them -> (n,) int64 on the CPU."""
    given = torch.as_tensor(value, device="cpu")
    if given.is_floating_point() or given.dtype == torch.bool or given.shape not in ((), (n,)):
        raise ValueError(f"{name} must be one whole number or a tensor of {n}, not {value!r}")
    if given.min() < 0 or given.max() >= k:
        raise ValueError(f"{name} must lie in 0 … {k - 1}, not {value!r}")
    return given.long().expand(n)


def numbers(name: str, value: float | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Finite numbers of this shape, or one number for a shape (n,) -> float32 of this shape on the CPU."""
    given = torch.as_tensor(value, dtype=torch.float32, device="cpu")
    if given.shape not in ((), shape) or (given.ndim == 0 and len(shape) > 1):
        _refuse_shape(name, given, shape)
    if not given.isfinite().all():
        raise ValueError(f"{name} must be finite, not {given[~given.isfinite()][0].item()}")
    return given.expand(shape)


def rows(name: str, value: Tensor, width: int) -> Tensor:
    """Finite numbers (n, width), for any n -> float32 on the CPU."""
    given = torch.as_tensor(value, dtype=torch.float32, device="cpu")
    if given.ndim != 2:
        _refuse_shape(name, given, ("n", width))
    return numbers(name, given, (len(given), width))


def image_batch(x: Tensor) -> Tensor:
    """Images (n, 1, 28, 28) of floats in [0, 1], as they are."""
    x = torch.as_tensor(x)
    if x.ndim != 4 or x.shape[1:] != (1, 28, 28):
        _refuse_shape("images", x, ("n", 1, 28, 28))
    if not x.is_floating_point():
        raise ValueError(f"images must be of floats, not {x.dtype}")
    if len(x) and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError(f"grey values must lie in [0, 1], not {x.min().item():g} to {x.max().item():g}")
    return x


def _refuse_shape(name: str, given: Tensor, shape: tuple[int | str, ...]) -> NoReturn:
    """Raise the ValueError for another shape than this one."""
    missing = f"; the batch dimension is missing: {name}[None] has one" if given.shape == shape[1:] else ""
    text = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    raise ValueError(f"{name} must have shape ({text}), not {tuple(given.shape)}{missing}")
