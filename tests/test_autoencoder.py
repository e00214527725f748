"""The autoencoder: loss, PCA's bound, what a step moves, both optimisers, a run's numbers and warnings, loading."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import autoencoder
from autoencoder import Autoencoder, Config, reconstruction_loss
from common.data import Dataset, render_digits
from common.look import metrics
from common.run import run as run_module
from tests.helpers import make_quick

SMALL = Config(hidden=20, dataset="drawn", device="cpu", epochs=2, batch_size=64)
Train = Callable[..., dict]


@pytest.fixture
def train(monkeypatch, out, tiny) -> Train:
    """Calls `main` on these images without pictures; returns the last row of metrics.csv, with the model."""
    for name in ("save_reals", "save_epoch"):
        monkeypatch.setattr(autoencoder, name, lambda *_: None)
    monkeypatch.setattr(autoencoder, "report", lambda run, model, *_: {**run.rows[-1], "model": model})

    def train(data: Dataset = tiny, **fields: object) -> dict:
        monkeypatch.setattr(run_module, "load_dataset", lambda *_: data)
        return autoencoder.main(dataclasses.replace(SMALL, out=out, **fields))

    return train


@pytest.mark.parametrize(("optimizer", "expected"), [("adam", 0.25), ("sgd", 0.25 * 784)])
def test_the_two_reductions_of_a_known_error(optimizer, expected):
    x, output = torch.zeros(4, 784), torch.full((4, 784), 0.5)
    assert reconstruction_loss(output, x, optimizer).item() == pytest.approx(expected)


def test_pca_error_against_a_direct_svd():
    data = render_digits(train=300, test=100)
    x, y = data.train_images.flatten(1).double() / 255, data.test_images.flatten(1).double() / 255
    mean = x.mean(dim=0)
    for rank in (1, 20, 100):
        basis = torch.linalg.svd(x - mean, full_matrices=False).Vh[:rank]
        expected = ((y - mean) - (y - mean) @ basis.T @ basis).square().mean().item()
        assert metrics.pca_mse(data.train_images, data.test_images, rank) == pytest.approx(expected, rel=1e-6)
    assert metrics.pca_mse(data.train_images, data.test_images, 784) == 0


def test_pca_error_on_mnist(mnist):
    assert metrics.pca_mse(mnist.train_images, mnist.test_images, 100) == pytest.approx(0.005616, abs=1e-6)


MADE = {  # the optimiser, its settings, and what its learning rate is after these shares of all updates
    "adam": (torch.optim.Adam, (0, None), {0: 3e-5, 0.02: 1.5285e-3, 0.25: 2.5607e-3, 0.5: 1.5e-3, 0.75: 4.3934e-4}),
    "sgd": (torch.optim.SGD, (0.1, 0.5), {0: 1e-2, 0.25: 8.5355e-3, 0.5: 5e-3, 0.75: 1.4645e-3}),
}


@pytest.mark.parametrize("optimizer", MADE)
def test_the_learning_rate_of_adam_rises_over_4_percent_and_falls_along_a_cosine(train, monkeypatch, optimizer):
    seen = []

    def update(model, optimizer, *_):
        [group] = optimizer.param_groups
        seen.append((type(optimizer), (group["weight_decay"], group.get("momentum")), group["lr"]))
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(autoencoder, "update", update)
    train(optimizer=optimizer, epochs=50)
    kinds, settings, rates = zip(*seen, strict=True)
    expected, setting, curve = MADE[optimizer]
    assert ({*kinds}, {*settings}, len(rates)) == ({expected}, {setting}, 100)
    assert {share: rates[round(100 * share)] for share in curve} == pytest.approx(curve, rel=1e-3)
    assert 0 < rates[-1] < 1e-5


def test_dead_units_are_those_that_no_image_wakes(tiny):
    model = Autoencoder(Config(hidden=10, hidden_bias=50.0))
    model.encoder.bias.data[[2, 5, 6]] = -50.0
    assert autoencoder.measure(model, tiny, 0.01)["dead_units"] == 3


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, None),
        ({"hidden_bias": -100.0}, "20 of 20 hidden units are dead"),
        ({"hidden": 200}, "PCA of rank 200 leaves no error on these images, so there is no ratio to it"),
    ],
)
def test_dead_units_and_a_missing_ratio_are_warned_of_while_training_and_at_the_end(
    monkeypatch, out, tiny, capsys, fields, expected
):
    data = dataclasses.replace(tiny, test_images=tiny.train_images[:64])  # 128 images span at most 128 dimensions
    make_quick(monkeypatch, data)
    report = autoencoder.main(dataclasses.replace(SMALL, out=out, epochs=1, **fields))
    assert report == json.loads(Path(report["folder"], "report.json").read_text()) | {"folder": report["folder"]}
    assert report["warning"] == expected
    assert capsys.readouterr().err == (f"WARNING: {expected}\n" if expected else "")
    assert (report["ratio"] is None) is ("hidden" in fields)


def test_load_encodes_and_decodes(train, out, tiny):
    trained, x = train(epochs=1, hidden_bias=0.0)["model"], tiny.test_images[:, None] / 255
    model = autoencoder.load(out / "autoencoder" / "run-001")
    hidden = model.encode(x.half())
    assert (hidden.shape, hidden.requires_grad, hidden.min()) == ((64, 20), False, 0)
    torch.testing.assert_close(hidden, trained.hidden_values(x.flatten(1)), rtol=1e-3, atol=1e-3)
    decoded = model.decode(hidden * 100)
    assert torch.equal(decoded, trained.output(hidden * 100).clamp(0, 1).view(64, 1, 28, 28))
    assert (decoded.min(), decoded.max()) == (0, 1)
    assert (model.encode(x[:0]).shape, model.decode(torch.zeros(0, 20)).shape) == ((0, 20), (0, 1, 28, 28))


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "epochs", "batch_size"), [("adam", 60, 64), ("sgd", 20, 128)])
def test_training_comes_close_to_pca_and_sgd_does_not_collapse(train, optimizer, epochs, batch_size):
    """The mean image, to which weight decay on a mean over pixels collapses, has a ratio above 5. No such network beats
    PCA on its training set."""
    data = render_digits(train=6_000, test=1_000)
    last = train(data, hidden=50, optimizer=optimizer, epochs=epochs, batch_size=batch_size)
    assert last["train_mse"] > metrics.pca_mse(data.train_images, data.train_images, 50)
    if optimizer == "adam":
        assert last["ratio"] < 1.1
        assert last["dead_units"] == 0
    else:
        assert last["test_mse"] < 0.5 * (data.test_images / 255).var(dim=0).mean().item()
