"""A running average of a network's weights, from which samples are drawn."""

import copy

import torch
from torch import Tensor, nn


class RunningAverage(nn.Module):
    """A copy of a network whose weights and BatchNorm statistics are an exponential moving average of the network's.

    G circles around the point where it would fool D; the mean of the circle draws better than any point on it.
    `updates` is a tensor, so that a CUDA graph can hold `follow`; `torch.optim.swa_utils` counts on the host.
    """

    def __init__(self, network: nn.Module, decay: float):
        super().__init__()
        self.network = copy.deepcopy(network)
        self.decay = decay
        self.register_buffer("updates", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Mix the network's newest weights in, with a share of 1 - decay.

        The first shares are larger, from 0.9 on: the average never holds the untrained weights for long.
        """
        share = (9 / (10 + self.updates)).clamp(min=1 - self.decay)
        for kept, new in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, share)
        self.updates += 1
