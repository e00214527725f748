"""The autoencoder: loss, PCA's bound, what a step moves, both optimisers, files, loading, the sweep."""

import csv
import dataclasses
import json
import math

import pytest
import torch
from torch import nn

import autoencoder
from autoencoder import Autoencoder, Config, reconstruction_loss
from common import init, metrics
from common.data import drawn
from tests.helpers import (
    FLOAT32,
    moved,
    parameter_names,
    pictures,
    rows_without_time,
    run_script,
    tensors,
)

SMALL = Config(hidden=20, smoke=True, epochs=2, batch_size=64)


@pytest.fixture
def small(out):
    return dataclasses.replace(SMALL, out=out)


@pytest.fixture
def some_drawn(monkeypatch):
    data = drawn(train=6_000, test=1_000)
    monkeypatch.setattr(autoencoder, "load_dataset", lambda *_: data)
    return data


def test_the_two_reductions_of_a_known_error():
    x, output = torch.zeros(4, 784), torch.full((4, 784), 0.5)
    assert reconstruction_loss(output, x).item() == pytest.approx(0.25)
    assert reconstruction_loss(output, x, "sgd").item() == pytest.approx(0.25 * 784)


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


def test_no_linear_code_beats_pca_on_its_training_set():
    data = drawn(train=400, test=10)
    floor = metrics.pca_mse(data.train_images, data.train_images, 5)
    torch.manual_seed(0)
    network = Autoencoder(5)
    init.gaussian_(network, std=0.01)
    nn.init.constant_(network.encoder.bias, 1.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    x = data.train_images.flatten(1) / 255
    with torch.no_grad():
        network.decoder.bias.copy_(x.mean(dim=0))
    for _ in range(1_000):
        loss = autoencoder.update(network, optimizer, x, Config(), FLOAT32)["loss"]
    assert floor <= loss.item() < 1.5 * floor


def test_initial_weights_are_a_gaussian_of_one_hundredth():
    torch.manual_seed(0)
    network = Autoencoder(100)
    init.gaussian_(network, std=0.01)
    for layer in (network.encoder, network.decoder):
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.02)
        assert layer.bias.eq(0).all()
    with pytest.raises(TypeError, match="PReLU"):
        init.gaussian_(nn.PReLU(), std=0.01)


def test_hidden_values_are_not_negative_and_outputs_are_linear():
    network = Autoencoder(7)
    hidden = network.encode(torch.rand(5, 784))
    assert hidden.shape == (5, 7)
    assert hidden.min() >= 0
    assert network.decode(-1000 * torch.ones(5, 7)).abs().max() > 10


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_moves_every_parameter(optimizer):
    network = Autoencoder(20)
    nn.init.constant_(network.encoder.bias, 1.0)
    before = tensors(network)
    kind = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
    config = Config(optimizer=optimizer)
    autoencoder.update(network, kind(network.parameters(), lr=1e-3), torch.rand(8, 784), config, FLOAT32)
    assert moved(network, before) == parameter_names(network)


def test_dead_units_are_those_that_no_image_wakes():
    data = drawn(train=64, test=64)
    network = Autoencoder(10)
    with torch.no_grad():
        network.encoder.bias.fill_(50.0)
        network.encoder.bias[[2, 5, 6]] = -50.0
    assert autoencoder.measure(network, data, 0.01)["dead_units"] == 3


def test_smoke_run_from_another_folder_writes_every_file(tmp_path, out):
    process = run_script("autoencoder.py", "--smoke", "--out", out, cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    folder = out / "autoencoder" / "run-001"
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.pt", "config.json", "curves.pdf", "curves.png", "epoch_000.png", "epoch_001.png", "epoch_002.png",
        "extremes.png", "hidden_units.png", "metrics.csv", "range.png", "reals.png", "report.json", "training.gif",
    }  # fmt: skip
    header = (folder / "metrics.csv").read_text().splitlines()[0]
    assert header == "epoch,seconds,images_per_second,train_mse,test_mse,pca_test_mse,ratio,dead_units"
    assert list(tmp_path.iterdir()) == [out]


def test_same_seed_same_bytes(small):
    for seed in (0, 0, 1):
        autoencoder.main(dataclasses.replace(small, seed=seed))
    runs = [small.out / "autoencoder" / f"run-00{i}" for i in (1, 2, 3)]
    assert (runs[0] / "checkpoint.pt").read_bytes() == (runs[1] / "checkpoint.pt").read_bytes()
    assert rows_without_time(runs[0]) == rows_without_time(runs[1])
    assert pictures(runs[0]) == pictures(runs[1])
    assert (runs[0] / "checkpoint.pt").read_bytes() != (runs[2] / "checkpoint.pt").read_bytes()


def test_load_encodes_and_decodes(small):
    autoencoder.main(small)
    model = autoencoder.load(small.out / "autoencoder" / "run-001")
    images = torch.rand(3, 1, 28, 28)
    hidden = model.encode(images)
    assert hidden.shape == (3, 20)
    decoded = model.decode(hidden * 100)
    assert decoded.shape == (3, 1, 28, 28)
    assert decoded.min() == 0
    assert decoded.max() == 1
    for bad in (torch.rand(3, 28, 28), images * 2, images - 1, (images * 255).byte()):
        with pytest.raises(ValueError, match=r"must"):
            model.encode(bad)
    for bad in (torch.rand(3, 21), torch.rand(20), torch.full((1, 20), math.nan)):
        with pytest.raises(ValueError, match="hidden values"):
            model.decode(bad)


def test_sweep_trains_every_width_and_draws_it(small, monkeypatch):
    monkeypatch.setattr(autoencoder, "WIDTHS", (3, 7))
    result = autoencoder.main(dataclasses.replace(small, sweep=True))
    folder = small.out / "autoencoder" / "sweep-001"
    with (folder / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["hidden"] for row in rows] == ["3", "7"]
    assert result == {f"test_mse_{row['hidden']}": float(row["test_mse"]) for row in rows}
    assert (folder / "sweep.png").stat().st_size > 5_000


@pytest.mark.slow
def test_training_comes_close_to_pca_and_keeps_every_unit_alive(out, some_drawn):
    report = autoencoder.main(Config(hidden=50, epochs=60, batch_size=64, out=out))
    assert report["ratio"] < 1.1
    assert report["dead_units"] == 0
    assert json.loads((out / "autoencoder" / "run-001" / "report.json").read_text()) == report


@pytest.mark.slow
def test_the_textbooks_recipe_trains_and_does_not_collapse(out, some_drawn):
    """The mean image, to which weight decay on a mean over pixels collapses, has a ratio above 5."""
    report = autoencoder.main(Config(hidden=50, optimizer="sgd", epochs=20, out=out))
    variance = (some_drawn.test_images / 255).var(dim=0).mean().item()
    assert report["test_mse"] < 0.5 * variance
