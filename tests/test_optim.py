"""Optimisers: step sizes that are set in place, and the way they go."""

import pytest
import torch
from torch import nn

from common.optim import adam, descend, linear_decay, scale_learning_rates

DECAYS = [(0.4, 0.02, [1, 1, 1, 0.51, 0.02]), (0.0, 0.02, [1, 0.804, 0.608, 0.314, 0.02]), (1.0, 0.02, [1] * 5)]
DECAYS += [(0.5, 0.0, [1, 1, 1, 0.6, 0]), (0.0, 0.0, [1, 0.8, 0.6, 0.3, 0]), (0.9, 0.0, [1, 1, 1, 1, 0])]


@pytest.mark.parametrize(("start", "end", "factors"), DECAYS)
def test_a_step_size_falls_evenly_from_where_it_is_told(start, end, factors):
    found = [linear_decay(progress, start, end) for progress in (0.0, 0.2, 0.4, 0.7, 1.0)]
    assert found == pytest.approx(factors)


def test_the_step_size_is_a_tensor_that_is_set_in_place_as_a_multiple_of_the_first():
    """A CUDA graph reads it from where it was when the step was captured."""
    network = nn.Linear(1, 1)
    optimizer, other = adam(network, 0.5, beta1=0.5), adam(nn.Linear(1, 1), 1e-3)
    rate, before = optimizer.param_groups[0]["lr"], network.weight.item()
    for factor in (0.1, 0.5):
        scale_learning_rates(factor, optimizer, other)
    assert optimizer.param_groups[0]["lr"] is rate
    assert other.param_groups[0]["lr"].item() == pytest.approx(5e-4)
    descend(optimizer, network(torch.ones(1, 1)).sum())
    assert before - network.weight.item() == pytest.approx(0.25, rel=1e-4)  # Adam's first step is as long as its rate
