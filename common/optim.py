"""Optimisers whose step sizes are tensors, and how these go."""

import torch
from torch import Tensor, nn


def adam(network: nn.Module, learning_rate: float, beta1: float = 0.9) -> torch.optim.Adam:
    """Fused Adam. Its step size is a tensor on the device, so that a CUDA graph reads the current value."""
    device = next(network.parameters()).device
    rate = torch.tensor(learning_rate, device=device)
    weights = [{"params": network.parameters(), "initial_lr": learning_rate}]
    return torch.optim.Adam(weights, lr=rate, betas=(beta1, 0.999), fused=True, capturable=device.type == "cuda")


def scale_learning_rates(factor: float, *optimizers: torch.optim.Optimizer) -> None:
    """Set step sizes, which are tensors, to this multiple of their groups' `initial_lr`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"].fill_(factor * group["initial_lr"])


def linear_decay(progress: float, start: float, end: float) -> float:
    """The factor on a step size after this share of all updates: 1 up to `start`, from there evenly down to `end`."""
    return 1 - (1 - end) * (progress - start) / (1 - start) if progress > start else 1.0


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of the optimiser down the gradient of the loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
