"""Drawn digits: shapes, seeds, factors, and what they look like."""

import pytest
import torch
from torch import Tensor

from common.data import Dataset, drawn, to_float


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return drawn(train=2000, test=500)


def tensors(data: Dataset) -> list[Tensor]:
    return [data.train_images, data.train_labels, data.test_images, data.test_labels, *data.factors.values()]


def test_shapes_and_types_are_those_of_mnist(digits):
    assert (digits.name, digits.title, digits.source) == ("drawn", "drawn digits, not MNIST", "drawn")
    assert digits.classes == tuple("0123456789")
    assert [x.shape for x in tensors(digits)[:4]] == [(2000, 28, 28), (2000,), (500, 28, 28), (500,)]
    assert [x.dtype for x in tensors(digits)[:4]] == [torch.uint8, torch.int64] * 2


def test_the_seed_decides_everything_and_the_global_random_state_is_left_alone():
    before = torch.manual_seed(7).get_state()
    first, same, other = (tensors(drawn(50, 20, seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, first, same))
    assert not any(map(torch.equal, first, other))


def test_classes_are_about_equally_frequent(digits):
    for labels in (digits.train_labels, digits.test_labels):
        count = torch.bincount(labels, minlength=10)
        assert len(count) == 10
        assert (count / len(labels)).sub(0.1).abs().max() < 0.05


@pytest.mark.parametrize(("name", "low", "high"), [("slant", -0.3, 0.3), ("thickness", 2.2, 4.5)])
def test_factors_fill_their_ranges(digits, name, low, high):
    factor = digits.factors[name]
    assert (factor.shape, factor.dtype) == ((2500,), torch.float32)
    assert low <= factor.min() < low + 0.02
    assert high - 0.02 < factor.max() <= high
    assert factor.mean().item() == pytest.approx((low + high) / 2, abs=0.05)


def test_digits_are_centred_by_mass_and_white_on_black_with_smooth_edges(digits):
    ink = to_float(digits.train_images).squeeze(1)
    axis, mass = torch.arange(28.0), ink.sum(dim=(1, 2))
    for centre in (ink.sum(dim=1) @ axis / mass, ink.sum(dim=2) @ axis / mass):
        assert centre.mean().item() == pytest.approx(13.5, abs=0.1)
        assert centre.sub(13.5).abs().max() < 2.5
    assert torch.cat((ink[:, [0, -1]].flatten(1), ink[:, :, [0, -1]].flatten(1)), dim=1).mean() < 0.01
    brightest = ink.amax(dim=(1, 2))
    assert (brightest == 1).float().mean() > 0.95
    assert brightest.min() > 0.5
    assert (ink.amin(dim=(1, 2)) == 0).all()
    assert 0.05 < ink.mean() < 0.25
    assert 0.02 < ((ink > 0) & (ink < 1)).float().mean() < 0.3


def test_most_digits_are_nearest_to_the_mean_of_their_class(digits):
    x = to_float(digits.train_images).flatten(1)
    means = torch.stack([x[digits.train_labels == digit].mean(dim=0) for digit in range(10)])
    nearest = torch.cdist(to_float(digits.test_images).flatten(1), means).argmin(dim=1)
    assert (nearest == digits.test_labels).float().mean() > 0.6
