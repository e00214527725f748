"""Random streams: every seed, name and number has one of its own, the same every time."""

import itertools

import pytest
import torch

from common.streams import stream, stream_seed

NAMES = ("weights", "training", "pictures", "trainings")
STREAMS = [*itertools.product((0, 1, 2**32 - 1), NAMES, (0, 1)), (0, "", 0), (0, "ö", 0)]


def test_every_seed_name_and_number_has_a_stream_of_its_own():
    assert len({tuple(torch.rand(3, generator=stream(*which)).tolist()) for which in STREAMS}) == len(STREAMS)
    torch.manual_seed(stream_seed(0, "weights"))
    assert not torch.isclose(torch.randn(1000), torch.randn(1000, generator=stream(0, "training"))).any()


@pytest.mark.parametrize("which", STREAMS, ids=str)
def test_a_stream_is_the_same_every_time_and_leaves_the_global_one_alone(which):
    before = torch.get_rng_state()
    one, other = (stream(*which) for _ in range(2))
    assert torch.equal(torch.randn(100, generator=one), torch.randn(100, generator=other))
    assert torch.equal(torch.get_rng_state(), before)
    assert 0 <= stream_seed(*which) < 2**63
    assert one.initial_seed() == stream_seed(*which)
