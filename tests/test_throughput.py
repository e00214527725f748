"""The yardstick compares equal work: from the same weights and latents both sides reach the same losses."""

import pytest
import torch

from benchmarks.throughput import TextbookAutoencoder, TextbookGAN, TextbookInfoGAN, script_side
from common.streams import stream_seed

UPDATES = 4


@pytest.fixture
def reals():
    """A batch of grey values with structure, (32, 1, 28, 28) in [0, 1]."""
    return torch.rand(UPDATES, 32, 1, 28, 28, generator=torch.Generator().manual_seed(5)).square()


def channels_first(weight: torch.Tensor, dim: int) -> torch.Tensor:
    """Reorder an axis of 7 * 7 * 128 features from (7, 7, 128), the scripts' order, to (128, 7, 7)."""
    order = torch.arange(7 * 7 * 128).view(7, 7, 128).permute(2, 0, 1).flatten()
    return weight.index_select(dim, order)


@torch.no_grad()
def give(source: torch.nn.Module, target: torch.nn.Module) -> None:
    """Copy every parameter in order, those of 6272 features in the target's order."""
    for ours, theirs in zip(source.parameters(), target.parameters(), strict=True):
        value = ours
        for dim, size in enumerate(ours.shape):
            if size == 7 * 7 * 128:
                value = channels_first(value, dim)
        theirs.copy_(value)


def losses(update, reals, seed):
    torch.manual_seed(stream_seed(seed, "training"))  # where the textbook draws from
    return [{name: torch.as_tensor(value).item() for name, value in update(x).items()} for x in reals]


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        for name, value in b.items():
            assert a[name] == pytest.approx(value, rel=2e-3), name
    assert theirs[0] != theirs[-1]  # something was trained


def test_infogan_and_its_textbook_reach_the_same_losses(reals):
    """With a tenth of the step sizes: at the full ones Adam's first steps, which know little more of a gradient than
    its sign, let the last bits in which two memory layouts differ grow twentyfold with every update."""
    small = {"learning_rate_d": 2e-5, "learning_rate_g": 1e-4}
    (generator, discriminator), update = script_side("infogan", 3, "float32", **small)
    textbook = TextbookInfoGAN()
    textbook.optimizer_d.param_groups[0]["lr"], textbook.optimizer_g.param_groups[0]["lr"] = small.values()
    give(generator, textbook.generator)
    give(discriminator, textbook.discriminator)
    assert_equal(losses(update, reals, 3), losses(textbook.update, reals, 3))


def test_gan_and_its_textbook_reach_the_same_losses(reals):
    (generator, discriminator), update = script_side("gan_mlp", 3, "float32", shift=0)
    textbook = TextbookGAN(shift=0)
    give(generator, textbook.generator)
    give(discriminator, textbook.discriminator)
    assert_equal(losses(update, reals, 3), losses(textbook.update, reals * 2 - 1, 3))


def test_autoencoder_and_its_textbook_reach_the_same_losses(reals):
    (network,), update = script_side("autoencoder", 3, "float32")
    textbook = TextbookAutoencoder()
    give(network, textbook.network)
    assert_equal(losses(update, reals, 3), losses(textbook.update, reals, 3))
