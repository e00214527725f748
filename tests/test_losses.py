"""The losses and the information bound against values known in advance."""

import math

import pytest
import torch
from torch.distributions import Normal

from infogan import (
    Discriminator,
    categorical_nll,
    discriminator_loss,
    gaussian_information,
    gaussian_nll,
    generator_loss,
    information,
)

FAKE, REAL = torch.tensor([40.0, -40.0]), torch.tensor([-40.0, 40.0])


def test_discriminator_loss_is_2_ln_2_where_it_knows_nothing():
    assert discriminator_loss(torch.zeros(7, 2), torch.zeros(5, 2)).item() == pytest.approx(2 * math.log(2))


def test_discriminator_loss_vanishes_where_it_knows_all():
    assert discriminator_loss(REAL.repeat(7, 1), FAKE.repeat(5, 1)).item() == pytest.approx(0, abs=1e-6)


def test_discriminator_loss_at_perfect_confusion_is_the_sum_of_both_logit_gaps():
    assert discriminator_loss(FAKE.repeat(7, 1), REAL.repeat(5, 1)).item() == pytest.approx(160)


def test_generator_loss_is_ln_2_where_the_discriminator_knows_nothing():
    assert generator_loss(torch.zeros(5, 2)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("logits", "expected"), [(REAL, 0.0), (FAKE, 80.0)])
def test_generator_wants_to_be_taken_for_real(logits, expected):
    assert generator_loss(logits.repeat(5, 1)).item() == pytest.approx(expected, abs=1e-6)


def test_generator_gradient_does_not_saturate_where_the_discriminator_wins():
    logits = FAKE.repeat(1, 1).requires_grad_()
    generator_loss(logits).backward()
    assert logits.grad.abs().sum().item() == pytest.approx(2)


@pytest.mark.parametrize("shift", [0.0, -5.0, 300.0])
def test_categorical_nll_is_ln_10_for_a_uniform_posterior(shift):
    category = torch.arange(10)
    assert categorical_nll(torch.zeros(10, 10) + shift, category).item() == pytest.approx(math.log(10))


def test_categorical_nll_is_zero_for_a_perfect_posterior():
    category = torch.arange(10)
    assert categorical_nll(100 * torch.eye(10), category).item() == pytest.approx(0, abs=1e-6)


def test_gaussian_nll_is_that_of_torch_distributions():
    mean, log_variance, value = torch.randn(3, 500, 2, generator=torch.Generator().manual_seed(0))
    expected = -Normal(mean, (0.5 * log_variance).exp()).log_prob(value).mean(dim=0)
    found = gaussian_nll(mean, log_variance, value)
    assert found.shape == (2,)
    torch.testing.assert_close(found, expected)


def test_gaussian_nll_at_unit_width_is_half_the_squared_error_and_its_constant():
    mean, value = torch.zeros(4, 2), torch.tensor([[1.0, 2.0]]).expand(4, 2)
    expected = torch.tensor([0.5, 2.0]) + 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(gaussian_nll(mean, torch.zeros(4, 2), value), expected)


@pytest.mark.parametrize(
    ("c1_nll", "continuous_nll", "weight", "expected"),
    [
        (math.log(10), [math.log(2), math.log(2)], 1.0, 0.0),
        (0.0, [math.log(2), math.log(2)], 1.0, math.log(10)),
        (math.log(10), [math.log(2) - 0.5, math.log(2) - 0.25], 1.0, 0.75),
        (math.log(10), [math.log(2) - 0.5, math.log(2) - 0.25], 0.1, 0.075),
        (0.0, [9.0, -9.0], 0.0, math.log(10)),
    ],
    ids=["nothing known", "c1 known", "c2 and c3 partly known", "weighed down", "weight zero"],
)
def test_information_is_entropy_minus_cross_entropy(c1_nll, continuous_nll, weight, expected):
    found = information(torch.tensor(c1_nll), torch.tensor(continuous_nll), weight)
    assert found.shape == ()
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_information_on_c1_spans_zero_to_ln_10_through_the_losses():
    category, nothing = torch.arange(10), torch.full((2,), math.log(2))
    uniform, perfect = torch.zeros(10, 10), 100 * torch.eye(10)
    assert information(categorical_nll(uniform, category), nothing, 1.0).item() == pytest.approx(0, abs=1e-6)
    assert information(categorical_nll(perfect, category), nothing, 1.0).item() == pytest.approx(math.log(10))


@pytest.mark.parametrize("squared_error", [1e-3, 0.05, 1 / 3, 1.0])
def test_gaussian_information_is_entropy_minus_the_nll_of_a_normal_of_that_error(squared_error):
    sigma = math.sqrt(squared_error)
    errors = torch.tensor([-sigma, sigma], dtype=torch.float64)
    nll = -Normal(torch.zeros(2, dtype=torch.float64), sigma).log_prob(errors).mean().item()
    assert gaussian_information(squared_error) == pytest.approx(math.log(2) - nll)


def test_gaussian_information_is_not_positive_where_only_the_prior_is_known():
    assert gaussian_information(1 / 3) == pytest.approx(-0.1765, abs=1e-4)


def test_gaussian_information_stays_finite_at_zero_error():
    assert math.isfinite(gaussian_information(0.0))


def test_gaussian_information_is_the_tightest_of_all_widths():
    errors = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 0.3
    best = gaussian_information(errors.square().mean().item())
    for width in (0.1, 0.2, 0.29, 0.31, 0.5, 1.0):
        assert math.log(2) + Normal(0.0, width).log_prob(errors).mean().item() < best + 1e-6


def test_learned_log_variance_has_a_floor_and_is_itself_far_above_it():
    discriminator = Discriminator(learn_variance=True).eval()
    last = discriminator.head_q[-1]
    for raw, expected in ((-1000.0, -6.0), (-6.0, -6.0 + math.log(2)), (3.0, 3.0 + math.log1p(math.exp(-9)))):
        with torch.no_grad():
            last.weight.zero_()
            last.bias.fill_(raw)
        log_variance = discriminator.posterior(torch.zeros(4, 1024)).log_variance
        torch.testing.assert_close(log_variance, torch.full((4, 2), expected))


def test_fixed_variance_is_one():
    q = Discriminator(learn_variance=False).posterior(torch.randn(4, 1024))
    assert torch.equal(q.log_variance, torch.zeros(4, 2))
