"""Optimisers, how learning rates change, and the exponential moving average of weights."""

import torch
from torch import Tensor, nn


def adam(network: nn.Module, learning_rate: float, beta1: float = 0.9) -> torch.optim.Adam:
    """Fused Adam of a network's parameters."""
    weights = [{"params": network.parameters(), "initial_lr": learning_rate}]
    return torch.optim.Adam(weights, lr=learning_rate, betas=(beta1, 0.999), fused=True)


def scale_learning_rates(factor: float, *optimizers: torch.optim.Optimizer) -> None:
    """Set learning rates to this multiple of their groups' `initial_lr`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]


def linear_decay(progress: float, start: float, end: float) -> float:
    """The factor on a learning rate after this share of all updates: 1 up to `start`, then evenly down to `end`."""
    return 1 - (1 - end) * (progress - start) / (1 - start) if progress > start else 1.0


def optimizer_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimiser down the gradient of the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def ema_decay(share: float, updates: int, total: int) -> float:
    """The decay of a moving average of weights after this many of all updates: 1 - 1 / (1 + n).

    Over the last `share` of the updates n counts them, so that the average becomes about their mean. Before that n is a
    third of that share of the updates so far, so that pictures on the way are good, too: the average soon forgets the
    untrained weights. A constant decay would have to be chosen again for each length of a run.
    """
    n = max(share / 3 * (updates + 1), updates + 1 - (1 - share) * total)
    return 1 - 1 / (1 + max(0, n))


@torch.no_grad()
def update_ema(average: nn.Module, network: nn.Module, decay: float) -> None:
    """Set `average`, a copy of `network`, to decay * average + (1 - decay) * network: the weights and the BatchNorm
    statistics, except their count of batches.

    G circles around the point where it would fool D; samples from the mean of the circle are better.
    """
    # Not torch.optim.swa_utils.AveragedModel: its update asks a counter on the device for its value, so every update
    # would wait for the GPU.
    pairs = zip(average.state_dict().values(), network.state_dict().values(), strict=True)
    kept, new = zip(*((old, new) for old, new in pairs if old.is_floating_point()), strict=True)
    torch._foreach_lerp_(kept, new, 1 - decay)
