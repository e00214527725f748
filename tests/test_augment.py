"""Images deskewed, moved and shifted by known amounts; neighbours against a direct search."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from common import augment
from common.data import to_float
from common.look import metrics


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bar(width: float, length: int = 20, shear: float = 0.0) -> Tensor:
    """An upright stroke (1, 1, 28, 28) with smooth edges; a positive shear moves its top to the right."""
    x, y = torch.arange(28) - (14 if width % 2 == 1 else 13.5), torch.arange(28) - 13.5
    across = (width / 2 + 0.5 - (x[None, :] + shear * y[:, None]).abs()).clamp(0, 1)
    along = (length / 2 + 0.5 - y.abs()).clamp(0, 1)
    return (across * along[:, None])[None, None]


# Slant ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shear", [-0.5, -0.2, 0.0, 0.3, 0.6])
def test_slant_is_the_shear_of_a_bar_wherever_it_is_and_however_pale(shear):
    leaning = bar(3, length=16, shear=shear)
    for x in (leaning, leaning.roll((3, -2), dims=(2, 3)), 0.3 * leaning):
        assert augment.slant(x).item() == pytest.approx(shear, abs=0.03)
    assert augment.slant(torch.zeros(2, 1, 28, 28)).tolist() == [0, 0]


def test_a_sheared_and_shifted_image_comes_out_like_the_upright_one(tiny):
    x = to_float(tiny.train_images)
    rows = torch.tensor([[1.0, 0.25, 0.14], [0.0, 1.0, -0.07]]).expand(len(x), -1, -1)
    copies = F.grid_sample(x, F.affine_grid(rows, list(x.shape), align_corners=False), align_corners=False)
    assert (augment.slant(copies) - augment.slant(x)).abs().min() > 0.2
    upright, again = (augment.deskewed((images * 255).byte().squeeze(1)) for images in (x, copies))
    assert (upright.shape, upright.dtype) == ((len(x), 196), torch.float32)
    assert (upright - again).abs().mean() < 0.1 * (upright - upright.roll(1, dims=0)).abs().mean()
    pictures, axis = again.view(-1, 1, 14, 14), torch.arange(14) - 6.5
    assert augment.slant(pictures).abs().max() < 0.05
    for dims in ((1, 2), (1, 3)):
        assert (pictures.sum(dim=dims) @ axis / pictures.sum(dim=(1, 2, 3))).abs().max() < 0.1


# Neighbours -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "parts"), [(2, 1), (30, 1), (1100, 1), (60, 4), (1700, 3)])
def test_the_nearest_is_that_of_a_direct_search_within_each_random_part(n, parts):
    """1,100 rows in one part are three blocks, two of 500 and a rest."""
    features = torch.randn(n, 20, generator=seeded(1)) + 5
    distance = torch.cdist(features.double(), features.double()).fill_diagonal_(math.inf)
    part_of = torch.empty(n, dtype=torch.long)
    for number, part in enumerate(torch.randperm(n, generator=seeded(3)).tensor_split(parts)):
        part_of[part] = number
    distance[part_of[:, None] != part_of] = math.inf
    assert torch.equal(augment.nearest(features, parts, seeded(3)), distance.argmin(dim=1))
    if n < 100:
        rough = distance.gather(1, augment.nearest(features, parts, seeded(3), torch.bfloat16)[:, None]).squeeze(1)
        assert (rough / distance.amin(dim=1)).max() < 1.1


PARTS = {100: [1] * 5, 899: [2] * 5, 3000: [5, 5, 10, 10, 10], 60_000: [5, 5, 20, 60, 200]}


@pytest.mark.parametrize(("n", "parts"), PARTS.items())
def test_small_sets_have_fewer_parts(monkeypatch, n, parts):
    monkeypatch.setattr(augment, "deskewed", lambda images: images)
    monkeypatch.setattr(augment, "nearest", lambda features, parts, *_: torch.tensor([parts]))
    assert augment.neighbours(torch.zeros(n), seeded()).tolist() == [parts]


# Copies -----------------------------------------------------------------------------------------------------------


def test_copies_of_a_bar_lean_and_thicken_by_what_is_said():
    x = bar(4, length=14)
    copies, put_in = augment.moved(x.expand(3000, -1, -1, -1), seeded())
    assert (copies.shape, 0 <= copies.min() < copies.max() <= 1) == ((3000, 1, 28, 28), True)
    slant, thickness = augment.slant(copies), metrics.thickness(copies) / metrics.thickness(x)
    assert (put_in[:, 0] - slant).abs().mean() < 0.05
    assert metrics.rank_correlation(put_in[:, 0], slant) > 0.97
    assert metrics.rank_correlation(put_in[:, 1], thickness) > 0.7  # a copy's size counts as well
    thicker, thinner = (thickness[put_in[:, 1] * sign > 0.3].mean().item() for sign in (1, -1))
    assert thicker > thinner + 0.2
    assert (put_in[:, 1].min().item(), put_in[:, 1].max().item()) == pytest.approx((-0.4, 0.4), abs=0.01)
    ink = copies.sum(dim=(1, 2, 3))
    size = (ink / x.sum())[put_in[:, 1].abs() < 0.04]
    assert (size.min().item(), size.max().item()) == pytest.approx((0.85**2, 1.15**2), abs=0.05)
    for dims in ((1, 2), (1, 3)):
        centre = copies.sum(dim=dims) @ (torch.arange(28) - 13.5) / ink
        assert 2.8 < centre.abs().max() < 4.9  # a shift of 2.8, seen through shear (1.3), angle and scale (1.15)
        assert centre.mean().abs() < 0.2


def test_copies_come_from_the_random_generator_alone(tiny):
    x, before = to_float(tiny.train_images[:4]), torch.get_rng_state()
    for change in (lambda seed: augment.moved(x, seeded(seed))[0], lambda seed: augment.shifted(x, 3, seeded(seed))):
        assert torch.equal(change(3), change(3))
        assert not torch.equal(change(3), change(4))
    assert torch.equal(torch.get_rng_state(), before)


def test_every_image_is_shifted_by_whole_pixels_on_its_own_and_gradients_flow():
    images, shifts = torch.rand(200, 1, 28, 28), set()
    for image, result in zip(images, augment.shifted(images, 1, seeded()), strict=True):
        wide = F.pad(image, (1, 1, 1, 1))
        places = itertools.product(range(3), repeat=2)
        found = [(i, j) for i, j in places if torch.equal(wide[:, i : i + 28, j : j + 28], result)]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 9
    assert augment.shifted(images, 0, torch.Generator()) is images
    images.requires_grad_()
    augment.shifted(images, 2, seeded()).sum().backward()  # G learns through it
    assert images.grad[:, :, 4:-4, 4:-4].eq(1).all()
