"""The autoencoder: loss, PCA's bound, what a step moves, both optimisers, files, loading."""

import dataclasses

import pytest
import torch

import autoencoder
from autoencoder import Autoencoder, Config, reconstruction_loss
from common import run as run_module
from common.data import drawn
from common.look import metrics
from common.run import Run
from tests.helpers import FLOAT32, make_quick, moved, parameter_names, tensors

SMALL = Config(hidden=20, dataset="drawn", device="cpu", epochs=2, batch_size=64)


@pytest.mark.parametrize(("optimizer", "expected"), [("adam", 0.25), ("sgd", 0.25 * 784)])
def test_the_two_reductions_of_a_known_error(optimizer, expected):
    x, output = torch.zeros(4, 784), torch.full((4, 784), 0.5)
    assert reconstruction_loss(output, x, optimizer).item() == pytest.approx(expected)


def test_pca_error_against_a_direct_svd():
    data = drawn(train=300, test=100)
    x, y = data.train_images.flatten(1).double() / 255, data.test_images.flatten(1).double() / 255
    mean = x.mean(dim=0)
    for rank in (1, 20, 100):
        basis = torch.linalg.svd(x - mean, full_matrices=False).Vh[:rank]
        expected = ((y - mean) - (y - mean) @ basis.T @ basis).square().mean().item()
        assert metrics.pca_mse(data.train_images, data.test_images, rank) == pytest.approx(expected, rel=1e-6)
    assert metrics.pca_mse(data.train_images, data.test_images, 784) == 0


def test_pca_error_on_mnist(mnist):
    assert metrics.pca_mse(mnist.train_images, mnist.test_images, 100) == pytest.approx(0.005616, abs=1e-6)


def test_initial_weights_are_a_gaussian_of_one_hundredth_hidden_values_not_negative_and_outputs_linear():
    torch.manual_seed(0)
    model, x = Autoencoder(Config(hidden_bias=0.02)), torch.rand(5, 784)
    for layer, bias in ((model.encoder, 0.02), (model.decoder, 0)):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert layer.bias.eq(bias).all()
    hidden = model.hidden_values(x)
    assert (hidden.shape, hidden.min() == 0 < hidden.max()) == ((5, 100), True)
    assert torch.equal(model(x), model.output(hidden))
    assert model.output(-1000 * torch.ones(5, 100)).abs().max() > 10


RISES = ((0, 0.01), (0.02, 0.51 * 0.999))  # to the whole of it after 4 % of the updates
MADE = {"adam": (torch.optim.Adam, 3e-3, 0, RISES), "sgd": (torch.optim.SGD, 1e-2, 0.1, ((0, 1),))}


@pytest.mark.parametrize("optimizer", MADE)
def test_a_step_moves_every_parameter_by_a_step_size_that_falls_along_a_cosine(optimizer):
    kind, rate, decay, first = MADE[optimizer]
    model = Autoencoder(Config(hidden=20, optimizer=optimizer))
    made, before = autoencoder.make_optimizer(model), tensors(model)
    group = made.param_groups[0]
    assert (type(made), group["weight_decay"], group.get("momentum", 0.5)) == (kind, decay, 0.5)
    assert group["lr"].item() == pytest.approx(rate)
    autoencoder.update(model, made, torch.rand(8, 784), FLOAT32)
    assert moved(model, before) == parameter_names(model)
    for progress, factor in (*first, (1 / 3, 0.75), (0.5, 0.5), (1, 0)):
        autoencoder.schedule(made, model.config, progress)
        assert group["lr"].item() == pytest.approx(rate * factor, rel=1e-3, abs=1e-9)


def test_no_linear_code_beats_pca_on_its_training_set():
    data = drawn(train=400, test=10)
    floor = metrics.pca_mse(data.train_images, data.train_images, 5)
    torch.manual_seed(0)
    model, x = Autoencoder(Config(hidden=5)), data.train_images.flatten(1) / 255
    optimizer = autoencoder.make_optimizer(model)
    model.decoder.bias.data = x.mean(dim=0)
    for _ in range(800):
        loss = autoencoder.update(model, optimizer, x, FLOAT32)["loss"]
    assert floor <= loss.item() < 1.5 * floor


def test_dead_units_are_those_that_no_image_wakes(tiny):
    model = Autoencoder(Config(hidden=10, hidden_bias=50.0))
    model.encoder.bias.data[[2, 5, 6]] = -50.0
    assert autoencoder.measure(model, tiny, 0.01)["dead_units"] == 3


def test_the_output_starts_at_the_mean_image(tiny, out, monkeypatch):
    make_quick(monkeypatch, tiny)
    first = []
    monkeypatch.setattr(autoencoder, "draw_epoch", lambda run, model: first.append(model.decoder.bias.detach().clone()))
    monkeypatch.setattr(autoencoder, "report", lambda *_: {})
    autoencoder.main(dataclasses.replace(SMALL, epochs=1, out=out))
    torch.testing.assert_close(first[0], (tiny.train_images / 255).flatten(1).mean(dim=0))


def test_load_encodes_and_decodes(tiny, out, monkeypatch):
    make_quick(monkeypatch, tiny)
    run, trained, x = Run(dataclasses.replace(SMALL, out=out)), Autoencoder(SMALL), tiny.test_images[:, None] / 255
    run.restore(model=trained)  # writes it, as that of a new run
    model = autoencoder.load(run.folder)
    hidden = model.encode(x.half())
    assert (hidden.shape, hidden.requires_grad) == ((64, 20), False)
    torch.testing.assert_close(hidden, trained.hidden_values(x.flatten(1)), rtol=1e-3, atol=1e-3)
    decoded = model.decode(hidden * 100)
    assert torch.equal(decoded, trained.output(hidden * 100).clamp(0, 1).view(64, 1, 28, 28))
    assert (decoded.min(), decoded.max()) == (0, 1)
    assert (model.encode(x[:0]).shape, model.decode(torch.zeros(0, 20)).shape) == ((0, 20), (0, 1, 28, 28))


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "epochs", "batch_size"), [("adam", 60, 64), ("sgd", 20, 128)])
def test_training_comes_close_to_pca_and_sgd_does_not_collapse(out, monkeypatch, optimizer, epochs, batch_size):
    """The mean image, to which weight decay on a mean over pixels collapses, has a ratio above 5."""
    data = drawn(train=6_000, test=1_000)
    monkeypatch.setattr(run_module, "load_dataset", lambda *_: data)
    monkeypatch.setattr(autoencoder, "draw_epoch", lambda *_: None)
    monkeypatch.setattr(autoencoder, "report", lambda run, _: run.rows[-1])
    fields = {"optimizer": optimizer, "epochs": epochs, "batch_size": batch_size, "device": "cpu", "out": out}
    last = autoencoder.main(Config(hidden=50, **fields))
    if optimizer == "adam":
        assert last["ratio"] < 1.1
        assert last["dead_units"] == 0
    else:
        assert last["test_mse"] < 0.5 * (data.test_images / 255).var(dim=0).mean().item()
