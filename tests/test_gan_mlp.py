"""The fully connected GAN: losses, networks, what each step moves, the averaged generator, warnings, loading."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.functional import jacobian

import gan_mlp
from common.data import Dataset, render_digits
from common.look.scorer import SampleScorer
from common.run import run as run_module
from common.train.optim import ema_decay
from gan_mlp import GAN, Config, discriminator_loss, generator_loss, random_shift
from tests.helpers import FLOAT32, Heard, make_quick, moved, parameter_names, tensors

SMALL = Config(widths_g=(32, 48), widths_d=(48, 32), dataset="drawn", device="cpu", epochs=2, batch_size=64)
REAL = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def train(monkeypatch, out, tiny) -> Callable[..., GAN]:
    """Calls `main` on these images, without pictures and scores; returns the model."""
    for name in ("save_reals", "save_epoch", "SampleScorer"):
        monkeypatch.setattr(gan_mlp, name, lambda *_: None)
    monkeypatch.setattr(gan_mlp, "report", lambda run, model, *_: model)

    def train(data: Dataset = tiny, config: Config = SMALL) -> GAN:
        monkeypatch.setattr(run_module, "load_dataset", lambda *_: data)
        return gan_mlp.main(dataclasses.replace(config, out=out))

    return train


def test_losses_at_known_logits():
    zero, sure = torch.zeros(8, 1), torch.full((8, 1), 30.0)
    found = discriminator_loss(zero, zero), discriminator_loss(-sure, sure), generator_loss(zero), generator_loss(-sure)
    assert [loss.item() for loss in found] == pytest.approx([2 * math.log(2), 60, math.log(2), 30])
    assert jacobian(generator_loss, -sure).sum() == pytest.approx(-1), "its slope does not saturate"


def test_widths_batchnorm_and_leak_are_fields():
    model = GAN(Config(widths_g=(7, 9, 11), widths_d=(13, 5), batchnorm_g=False, noise_size=3, leak=0.1))
    networks = model.generator.layers, model.discriminator.layers
    widths = [[layer.out_features for layer in layers if isinstance(layer, nn.Linear)] for layers in networks]
    assert widths == [[7, 9, 11, 784], [13, 5, 1]]
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in model.modules())
    assert {layer.negative_slope for layer in networks[1] if isinstance(layer, nn.LeakyReLU)} == {0.1}
    images = model.generator(torch.randn(4, 3))
    assert (images.shape, model.discriminator(images).shape) == ((4, 1, 28, 28), (4, 1))
    assert 0 <= images.min() <= images.max() <= 1


@pytest.mark.parametrize("reach", [1, 3])
def test_every_shift_up_to_the_reach_is_as_frequent_black_comes_in_and_g_learns_through_it(reach):
    x = torch.rand(1, 1, 28, 28).expand(4000, -1, -1, -1).clone().requires_grad_()
    shifted, padded, side = random_shift(x, reach, seeded()), nn.functional.pad(x[0, 0], (reach,) * 4), 2 * reach + 1
    places = [padded[down : down + 28, right : right + 28] for down in range(side) for right in range(side)]
    shares = [(shifted[:, 0] == place).flatten(1).all(dim=1).float().mean().item() for place in places]
    assert shares == pytest.approx([1 / side**2] * side**2, rel=0.35)
    assert sum(shares) == pytest.approx(1)
    assert torch.equal(random_shift(x, 0, seeded()), x)
    shifted[:, :, 5:10, 5:10].sum().backward()
    assert x.grad.sum() == 4000 * 25


@pytest.mark.parametrize(("still", "moving"), [("g", "discriminator."), ("d", "generator.")])
def test_each_step_moves_its_own_network_alone_and_the_average_follows_g(still, moving):
    torch.manual_seed(0)
    model = GAN(dataclasses.replace(SMALL, **{f"learning_rate_{still}": 0.0}))
    before = tensors(model)
    scalars = gan_mlp.update(model, gan_mlp.make_optimizers(model), REAL, seeded(), FLOAT32, 0.25)
    assert scalars.keys() == {"loss_d", "loss_g", "d_real", "d_fake"}
    own = {name for name in parameter_names(model) if not name.startswith("ema.")}
    assert moved(model, before) & own == {name for name in own if name.startswith(moving)}
    assert all(weight.requires_grad for weight in model.discriminator.parameters())
    for name, weight in model.generator.named_parameters():
        torch.testing.assert_close(model.ema.get_parameter(name), 0.25 * before[f"ema.{name}"] + 0.75 * weight)
    assert all(weight.grad is None for weight in model.ema.parameters())


def test_after_a_run_the_batchnorm_of_the_average_fits_what_its_layers_get(train):
    """The average is still near the initial weights, which the generator has long left."""
    config = dataclasses.replace(SMALL, learning_rate_g=0.1, average=1.0, epochs=4)
    layers = train(config=config).ema.eval().layers
    out = torch.randn(20_000, SMALL.noise_size, generator=seeded())
    for linear, norm, relu in (layers[:3], layers[3:6]):
        out = linear(out)
        assert (norm.running_mean - out.mean(dim=0)).abs().max() < 0.05 * out.std()
        torch.testing.assert_close(norm.running_var, out.var(dim=0), rtol=0.1, atol=0)
        out = relu(norm(out)).detach()


def test_the_decay_of_the_average_rises_and_a_collapse_is_warned_of_while_training(train, monkeypatch, capsys):
    class OneClass:
        train_shares = torch.full((10,), 0.1)

        def __init__(self, *_: object):
            self.epoch = 0

        def __call__(self, images: Tensor) -> dict[str, float]:
            self.epoch += 1
            one = self.epoch in (2, 3, 4)
            return {f"share_{digit}": [0.9, 0.1 / 9][digit > 0] if one else 0.1 for digit in range(10)}

    decays = []
    scalars = dict.fromkeys(("loss_d", "loss_g", "d_real", "d_fake"), torch.tensor(0.5))
    monkeypatch.setattr(gan_mlp, "update", lambda *given: decays.append(given[-1]) or scalars)
    monkeypatch.setattr(gan_mlp, "SampleScorer", OneClass)
    train(config=dataclasses.replace(SMALL, epochs=3, average=0.5))
    train(config=dataclasses.replace(SMALL, epochs=41))  # in the first tenth
    assert capsys.readouterr().err == ""
    train(config=dataclasses.replace(SMALL, epochs=5))
    assert capsys.readouterr().err == "WARNING: collapsed: most of the samples are of one class for 3 epochs\n"
    expected = ((0.5, 6), (SMALL.average, 82), (SMALL.average, 10))
    assert decays == [ema_decay(share, n, total) for share, total in expected for n in range(total)]


def test_a_walk_between_parallel_latents_is_shown(out, tiny, monkeypatch):
    """Latents of one number are parallel, where a great circle has no direction."""
    make_quick(monkeypatch, tiny)
    report = gan_mlp.main(dataclasses.replace(SMALL, noise_size=1, epochs=1, out=out))
    assert "save_interpolation" not in (report["warning"] or "")
    assert (out / "gan_mlp" / "run-001" / "interpolation.png").exists()


def test_load_generates_from_the_average(train, out):
    trained = train()
    model = gan_mlp.load(out / "gan_mlp" / "run-001")
    noise, before, images = torch.randn(2, 100), tensors(model), model.generate(5, seed=3)
    assert moved(model, tensors(trained)) == set()
    assert (images.shape, images.dtype, model.generate().shape) == ((5, 1, 28, 28), torch.float32, (1, 1, 28, 28))
    assert (0 <= images.min() < images.max() <= 1, torch.equal(images, model.generate(5, seed=3))) == (True, True)
    assert not torch.equal(images, model.generate(5, seed=4))
    assert not torch.equal(model.generate(5), model.generate(5))
    with torch.no_grad():
        assert torch.equal(model.generate(2, noise=noise), model.ema(noise))
    assert moved(model, before) == set()


@pytest.mark.slow
def test_twenty_seconds_of_training_generate_every_digit(train, tmp_path):
    """8 epochs reach 63 and 59 floors (seeds 0 and 1). A G that does not learn stays above 1,000, and digits are
    missing."""
    data = render_digits(train=6_000, test=2_000)
    model = train(data, Config(epochs=8, batch_size=32, device="cpu"))
    some = {name: getattr(data, name)[:2_000] for name in ("train_images", "train_labels")}
    scorer = SampleScorer(dataclasses.replace(data, **some), tmp_path, Heard())
    report = scorer.summary(scorer(model.generate(2_000, seed=0)))
    assert report["classifier_accuracy"] > 0.97
    assert report["frechet_over_floor"] < 130
    assert report["share_smallest"] > 0.03
    assert report["class_total_variation"] < 0.2
