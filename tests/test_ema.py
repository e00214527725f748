"""The running average of a network's weights."""

import pytest
import torch
from torch import nn

from common.ema import RunningAverage

SHARES = [(0.999, 0, 0.9), (0.999, 8, 0.5), (0.999, 99_990, 0.001), (0.9, 999, 0.1), (0.0, 8, 1)]


@pytest.mark.parametrize(("decay", "updates", "share"), SHARES)
def test_every_weight_and_statistic_is_mixed_in_by_a_share_that_is_large_at_first(decay, updates, share):
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    average = RunningAverage(network, decay)
    average.updates.fill_(updates)
    for kept, new in zip(average.network.state_dict().values(), network.state_dict().values(), strict=True):
        kept.fill_(8)
        new.fill_(18)
    average.follow(network)
    mixed = {name: value.flatten()[0].item() for name, value in average.network.state_dict().items()}
    assert mixed.pop("1.num_batches_tracked") == 8
    assert list(mixed.values()) == pytest.approx([8 + 10 * share] * 6)
    assert (average.updates.item(), network[0].weight.mean().item()) == (updates + 1, 18)
    x = torch.randn(4, 3)
    assert torch.equal(average.eval()(x), average.network(x))
