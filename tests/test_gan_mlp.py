"""The fully connected GAN: losses, networks, what each step moves, the averaged generator, files, loading."""

import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

import gan_mlp
from common import run as run_module
from common.data import drawn
from common.look.scorer import SampleScorer
from common.optim import descend
from common.run import Run
from common.streams import stream_seed
from gan_mlp import GAN, Config, discriminator_loss, generator_loss
from tests.helpers import FLOAT32, Heard, make_quick, moved, parameter_names, tensors

SMALL = Config(widths_g=(32, 48), widths_d=(48, 32), dataset="drawn", device="cpu", epochs=2, batch_size=64)
REALS = torch.rand(16, 1, 28, 28)
ZERO, SURE = torch.zeros(8, 1), torch.full((8, 1), 30.0)
KNOWN = {
    "D that knows nothing": (lambda: discriminator_loss(ZERO, ZERO), 2 * math.log(2)),
    "D that knows all": (lambda: discriminator_loss(SURE, -SURE), 0),
    "D that takes each for the other": (lambda: discriminator_loss(-SURE, SURE), 60),
    "G before a D that knows nothing": (lambda: generator_loss(ZERO), math.log(2)),
    "G taken for real": (lambda: generator_loss(SURE), 0),
    "G seen through": (lambda: generator_loss(-SURE), 30),
    "its slope": (lambda: jacobian(generator_loss, -SURE).sum(), -1),
}


@pytest.mark.parametrize(("loss", "expected"), KNOWN.values(), ids=KNOWN)
def test_losses_at_known_logits(loss, expected):
    assert loss().item() == pytest.approx(expected, abs=1e-6)


def untrained(config: Config = SMALL) -> GAN:
    torch.manual_seed(stream_seed(config.seed, "weights"))
    return GAN(config)


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


def test_an_update_shows_both_players_the_same_shifted_images_and_moves_everything(monkeypatch):
    model, reach, seen = untrained(), [], []
    monkeypatch.setattr(gan_mlp, "shifted", lambda x, shift, _: reach.append(shift) or x.roll(1, dims=-1))
    model.discriminator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    before = tensors(model)
    optimizers = gan_mlp.make_optimizers(model)
    scalars = gan_mlp.update(model, optimizers, REALS, torch.Generator().manual_seed(0), FLOAT32)
    assert (scalars.keys(), reach) == ({"loss_d", "loss_g", "d_real", "d_fake"}, [1, 1])
    assert torch.equal(seen[0], torch.cat((REALS.roll(1, dims=-1), seen[1])))
    assert moved(model, before) >= parameter_names(model)


@pytest.mark.parametrize(("moving", "still"), [(0, "generator."), (1, "discriminator.")])
def test_a_step_moves_its_own_network_alone(monkeypatch, moving, still):
    model = untrained()
    optimizers, before = gan_mlp.make_optimizers(model), tensors(model)
    own = optimizers[moving]
    monkeypatch.setattr(gan_mlp, "descend", lambda optimizer, loss: optimizer is own and descend(optimizer, loss))
    gan_mlp.update(model, optimizers, REALS, torch.Generator().manual_seed(0), FLOAT32)
    networks = {name for name in moved(model, before) & parameter_names(model) if not name.startswith("ema.")}
    assert networks == {name for name in parameter_names(model) if not name.startswith(("ema.", still))}
    assert {name for name, weight in model.named_parameters() if weight.grad is not None} == networks
    assert all(weight.requires_grad for weight in model.parameters())


def test_batchnorm_of_the_average_has_statistics_of_what_its_layers_really_get():
    model = untrained()
    model.ema.network.layers[0].weight.data *= 7
    gan_mlp.refresh_batchnorm(model, torch.Generator().manual_seed(0))
    out = model.ema.eval().network.layers[:2](torch.randn(20_000, SMALL.noise_size))
    assert max(out.mean(dim=0).abs().max(), (out.std(dim=0) - 1).abs().max()) < 0.06


def test_load_draws_by_the_average(tiny, out, monkeypatch):
    make_quick(monkeypatch, tiny)
    run, trained = Run(dataclasses.replace(SMALL, out=out)), untrained()
    gan_mlp.update(trained, gan_mlp.make_optimizers(trained), REALS, torch.Generator().manual_seed(0), FLOAT32)
    run.restore(model=trained)  # writes it, as that of a new run
    model = gan_mlp.load(run.folder)
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
def test_half_a_minute_of_training_draws_every_digit(out, tmp_path, monkeypatch):
    """8 epochs reach 40 to 52 floors (seeds 0 to 2, both precisions). A G that does not learn stays above 1,000, and
    digits are missing."""
    data = drawn(train=12_000, test=2_000)
    monkeypatch.setattr(run_module, "load_dataset", lambda *_: data)
    monkeypatch.setattr(gan_mlp, "SampleScorer", lambda *_: None)  # samples are judged after the last epoch alone
    monkeypatch.setattr(gan_mlp, "draw_epoch", lambda *_: None)
    monkeypatch.setattr(gan_mlp, "report", lambda run, model, *_: model)
    model = gan_mlp.main(Config(epochs=8, batch_size=32, device="cpu", out=out))
    some = {name: getattr(data, name)[:4_000] for name in ("train_images", "train_labels")}
    scorer = SampleScorer(dataclasses.replace(data, **some), tmp_path, Heard())
    report = scorer.summary(scorer(model.generate(2_000, seed=0)))
    assert report["classifier_accuracy"] > 0.97
    assert report["frechet_over_floor"] < 100
    assert report["share_smallest"] > 0.03
    assert report["class_total_variation"] < 0.2
