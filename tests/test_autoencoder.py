"""The autoencoder: loss, PCA's bound, what a step moves, both optimisers, a run's numbers and warnings, loading."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

import autoencoder
from autoencoder import Config, reconstruction_loss
from common.data import Dataset, render_digits
from common.look import metrics
from common.run import run as run_module
from tests.helpers import make_quick

SMALL = Config(hidden=20, dataset="drawn", device="cpu", epochs=2, batch_size=64)


@pytest.fixture
def train(monkeypatch, out, tiny) -> Callable[..., dict]:
    """Calls `main` on these images without pictures; returns the last row of metrics.csv, with the model."""
    for name in ("save_reals", "save_epoch"):
        monkeypatch.setattr(autoencoder, name, lambda *_: None)
    monkeypatch.setattr(autoencoder, "report", lambda run, model, *_: {**run.rows[-1], "model": model})

    def train(data: Dataset = tiny, **fields: object) -> dict:
        monkeypatch.setattr(run_module, "load_dataset", lambda *_: data)
        return autoencoder.main(dataclasses.replace(SMALL, out=out, **fields))

    return train


def test_the_two_reductions_of_a_known_error():
    x, output = torch.zeros(4, 784), torch.full((4, 784), 0.5)
    found = [reconstruction_loss(output, x, optimizer).item() for optimizer in ("adam", "sgd")]
    assert found == pytest.approx([0.25, 0.25 * 784])


def test_pca_error_against_a_direct_svd():
    data = render_digits(train=300, test=100)
    x, y = data.train_images.flatten(1).double() / 255, data.test_images.flatten(1).double() / 255
    mean = x.mean(dim=0)
    for rank in (1, 20, 100):
        basis = torch.linalg.svd(x - mean, full_matrices=False).Vh[:rank]
        expected = ((y - mean) - (y - mean) @ basis.T @ basis).square().mean().item()
        assert metrics.pca_mse(data.train_images, data.test_images, rank) == pytest.approx(expected, rel=1e-6)
    assert metrics.pca_mse(data.train_images, data.test_images, 784) == 0


MADE = {  # the optimiser, its settings, and what its learning rate is after these percent of all updates
    "adam": (torch.optim.Adam, (0, None), {0: 3e-5, 2: 1.5285e-3, 25: 2.5607e-3, 50: 1.5e-3, 75: 4.3934e-4}),
    "sgd": (torch.optim.SGD, (0.1, 0.5), {0: 1e-2, 25: 8.5355e-3, 50: 5e-3, 75: 1.4645e-3}),
}


@pytest.mark.parametrize(("optimizer", "made"), MADE.items())
def test_the_learning_rate_of_adam_rises_over_4_percent_and_falls_along_a_cosine(train, monkeypatch, optimizer, made):
    groups = []

    def update(model, optimizer, *_):
        groups.append((type(optimizer), dict(optimizer.param_groups[0])))
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(autoencoder, "update", update)
    train(optimizer=optimizer, epochs=50)
    rates = [group["lr"] for _, group in groups]
    found = {(kind, (group["weight_decay"], group.get("momentum"))) for kind, group in groups}
    assert (found, len(rates), 0 < rates[-1] < 1e-5) == ({made[:2]}, 100, True)
    assert {percent: rates[percent] for percent in made[2]} == pytest.approx(made[2], rel=1e-3)


NO_RATIO = "PCA of rank 200 leaves no error on these images, so there is no ratio to it"
WARNINGS = [({}, None), ({"hidden_bias": -100.0}, "20 of 20 hidden units are dead"), ({"hidden": 200}, NO_RATIO)]


@pytest.mark.parametrize(("fields", "expected"), WARNINGS)
def test_dead_units_and_a_missing_ratio_are_warned_of_while_training_and_at_the_end(
    monkeypatch, out, tiny, capsys, fields, expected
):
    data = dataclasses.replace(tiny, test_images=tiny.train_images[:64])  # 128 images span at most 128 dimensions
    make_quick(monkeypatch, data)
    report = autoencoder.main(dataclasses.replace(SMALL, out=out, epochs=1, **fields))
    assert report["warning"] == expected
    said = capsys.readouterr()
    assert said.err.split() == (f"WARNING: {expected}".split() if expected else [])
    assert max(len(line) for line in (said.out + said.err).splitlines() if str(out) not in line) <= 80
    assert (report["ratio"] is None) is ("hidden" in fields)


def test_load_encodes_and_decodes_and_units_that_no_image_wakes_are_dead(train, out, tiny):
    trained, x = train(epochs=1, hidden_bias=0.0)["model"], tiny.test_images[:, None] / 255
    model = autoencoder.load(out / "autoencoder" / "run-001")
    hidden = model.encode(x.half())
    assert (hidden.shape, hidden.requires_grad, hidden.min()) == ((64, 20), False, 0)
    torch.testing.assert_close(hidden, trained.hidden_values(x.flatten(1)), rtol=1e-3, atol=1e-3)
    decoded = model.decode(hidden * 100)
    assert torch.equal(decoded, trained.output(hidden * 100).clamp(0, 1).view(64, 1, 28, 28))
    assert (decoded.min(), decoded.max()) == (0, 1)
    model.encoder.bias.data[:] = torch.tensor([50.0] * 17 + [-50.0] * 3)
    assert autoencoder.measure(model, tiny, 0.01)["dead_units"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "epochs", "batch_size"), [("adam", 60, 64), ("sgd", 20, 128)])
def test_training_comes_close_to_pca_and_sgd_does_not_collapse(train, optimizer, epochs, batch_size):
    """The mean image, to which weight decay on a mean over pixels collapses, has the error `spread`."""
    data = render_digits(train=6_000, test=1_000)
    last = train(data, hidden=50, optimizer=optimizer, epochs=epochs, batch_size=batch_size)
    spread = (data.test_images / 255).var(dim=0).mean().item()
    assert last["test_mse"] < 0.5 * spread
    assert last["train_mse"] > metrics.pca_mse(data.train_images, data.train_images, 50), "no such network beats PCA"
    assert optimizer == "sgd" or (last["ratio"] < 1.1 and last["dead_units"] == 0)
