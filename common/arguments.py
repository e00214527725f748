"""Checks of what `generate`, `encode` and `decode` are called with. Each raises ValueError with one line."""

import torch
from torch import Tensor


def as_tensor(name: str, value: object, dtype: torch.dtype | None = None) -> Tensor:
    """A number, a list, an array or a tensor -> a tensor."""
    try:
        return torch.as_tensor(value, dtype=dtype)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be numbers, not {value!r}") from None


def sample_count(n: int) -> int:
    """How many images to draw: a whole number of at least 1."""
    if type(n) is not int or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, not {n!r}")
    return n


def indices(name: str, value: int | Tensor, n: int, k: int) -> Tensor:
    """One whole number in 0 … k-1 for all, or a tensor (n,) of them -> (n,) int64."""
    chosen = as_tensor(name, value)
    if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.shape not in ((), (n,)):
        raise ValueError(f"{name} must be one whole number or a tensor of {n}, not {value!r}")
    if chosen.min() < 0 or chosen.max() >= k:
        raise ValueError(f"{name} must lie in 0 … {k - 1}, not {value!r}")
    return chosen.long().expand(n)


def numbers(name: str, value: float | Tensor, shape: tuple[int, ...]) -> Tensor:
    """Finite numbers of this shape, or one number for a shape (n,) -> float32 of this shape."""
    given = as_tensor(name, value, torch.float32)
    if given.shape not in ((), shape) or (given.ndim == 0 and len(shape) > 1):
        raise ValueError(f"{name} must have shape {tuple(shape)}, not {tuple(given.shape)}")
    if not given.isfinite().all():
        raise ValueError(f"{name} must be finite")
    return given.expand(shape)


def rows(name: str, value: Tensor, width: int) -> Tensor:
    """Finite numbers (n, width), for any n -> float32."""
    given = as_tensor(name, value, torch.float32)
    return numbers(name, given, (len(given) if given.ndim else 1, width))


def image_batch(x: Tensor) -> Tensor:
    """Images (n, 1, 28, 28) of floats in [0, 1] -> float32."""
    x = as_tensor("images", x)
    if x.ndim != 4 or x.shape[1:] != (1, 28, 28) or not x.is_floating_point():
        raise ValueError(f"images must be float of shape (n, 1, 28, 28), not {x.dtype} of {tuple(x.shape)}")
    if len(x) and not (x.min() >= 0 and x.max() <= 1):
        raise ValueError("grey values must lie in [0, 1]")
    return x.float()
