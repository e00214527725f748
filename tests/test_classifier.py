"""The digit classifier and the distances that are measured with it."""

import pytest
import torch

from common import BadInput, metrics
from common.classifier import DigitClassifier, Judge, Seen, digit_classifier, look
from common.data import drawn
from common.run import ROOT


def test_frechet_distance_of_equal_sets_is_zero():
    features = torch.randn(500, 16)
    assert metrics.frechet_distance(features, features) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_of_two_known_gaussians():
    """Diagonal covariances: |m_a - m_b|^2 + sum (s_a - s_b)^2."""
    random = torch.Generator().manual_seed(0)
    mean_a, mean_b = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([1.0, 1.0, 0.5])
    std_a, std_b = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.0, 0.5, 3.0])
    a = torch.randn(400_000, 3, generator=random) * std_a + mean_a
    b = torch.randn(400_000, 3, generator=random) * std_b + mean_b
    expected = (mean_a - mean_b).square().sum() + (std_a - std_b).square().sum()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected.item(), rel=0.01)


def test_frechet_distance_of_rotated_gaussians_against_the_matrix_root():
    from scipy.linalg import sqrtm

    random = torch.Generator().manual_seed(0)
    a, b = (
        torch.randn(5_000, 4, generator=random, dtype=torch.float64)
        @ torch.randn(4, 4, dtype=torch.float64, generator=random)
        for _ in "ab"
    )
    cov_a, cov_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + (cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real).trace()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_share_distance_of_known_shares():
    uniform, one = torch.full((10,), 0.1), torch.eye(10)[3]
    assert metrics.share_distance(uniform, uniform) == 0
    assert metrics.share_distance(one, torch.eye(10)[4]) == 1
    assert metrics.share_distance(one, uniform) == pytest.approx(0.9)


def test_shares_count_the_most_likely_class():
    counts = torch.tensor([5, 0, 1, 0, 0, 2, 0, 0, 1, 1])
    logits = torch.eye(10)[torch.arange(10).repeat_interleave(counts)] - 3
    assert torch.equal(Seen(logits, torch.zeros(10, 128)).shares(), counts / 10)


def test_the_classifier_is_trained_once_and_kept(tmp_path, monkeypatch):
    data = drawn(train=512, test=256)
    random_state = torch.get_rng_state()
    first = digit_classifier(data, tmp_path)
    assert torch.equal(torch.get_rng_state(), random_state)
    [kept] = (tmp_path / "classifiers").iterdir()
    monkeypatch.setattr("common.classifier._train", lambda *_: pytest.fail("trained twice"))
    again = digit_classifier(data, tmp_path)
    assert torch.equal(look(first, data.test_images).logits, look(again, data.test_images).logits)
    kept.write_bytes(b"not weights")
    with pytest.raises(BadInput, match="holds no weights"):
        digit_classifier(data, tmp_path)


def test_another_training_set_gets_a_classifier_of_its_own(tmp_path):
    for seed in (0, 1):
        digit_classifier(drawn(train=300, test=10, seed=seed), tmp_path)
    assert len(list((tmp_path / "classifiers").iterdir())) == 2


def test_a_few_hundred_images_are_enough_to_tell_drawn_digits_apart(tmp_path):
    assert Judge(drawn(train=256, test=128), tmp_path).accuracy > 0.95


def test_training_the_classifier_twice_gives_the_same_bytes(tmp_path):
    data = drawn(train=512, test=16)
    for folder in "ab":
        digit_classifier(data, tmp_path / folder)
    a, b = (next((tmp_path / folder / "classifiers").iterdir()).read_bytes() for folder in "ab")
    assert a == b


def test_uint8_and_float_images_look_the_same():
    data = drawn(train=16, test=16)
    classifier = DigitClassifier().eval()
    a, b = look(classifier, data.test_images), look(classifier, data.test_images[:, None] / 255)
    assert torch.allclose(a.logits, b.logits, atol=1e-6)


@pytest.mark.slow
def test_on_mnist_the_classifier_reaches_99_percent_and_sees_the_known_shares(mnist):
    judge = Judge(mnist, ROOT / "data")
    assert judge.accuracy >= 0.99
    images = mnist.test_images[mnist.test_labels < 5]
    known = torch.bincount(mnist.test_labels[mnist.test_labels < 5], minlength=10) / len(images)
    assert metrics.share_distance(look(judge.classifier, images).shares(), known) < 0.01
    assert judge.floor < 5
