"""The fully connected GAN: losses, networks, what each step moves, the averaged generator, files, loading."""

import copy
import dataclasses
import itertools
import json
import math

import pytest
import torch
from torch import nn

import gan_mlp
from common.classifier import SHARES, Judge, look
from common.data import drawn
from common.run import TIME_COLUMNS
from common.streams import stream_seed
from gan_mlp import Config, Discriminator, Generator, discriminator_loss, generator_loss, shifted
from tests.helpers import (
    FLOAT32,
    moved,
    parameter_names,
    pictures,
    rows_without_time,
    run_script,
    tensors,
)

SMALL = Config(widths_g=(32, 48), widths_d=(48, 32), smoke=True, epochs=2, batch_size=64)


@pytest.fixture
def small(out, monkeypatch):
    """Fields of a small run. Its classifier, which is trained elsewhere, stays untrained."""
    monkeypatch.setattr("common.classifier._train", lambda *_: None)
    return dataclasses.replace(SMALL, out=out, data_dir=out.parent / "data")


@pytest.fixture
def networks():
    torch.manual_seed(0)
    generator, discriminator = Generator(SMALL), Discriminator(SMALL)
    return generator, discriminator


def optimizer(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(network.parameters(), lr=1e-3)


def test_losses_at_known_logits():
    zero, sure = torch.zeros(8, 1), torch.full((8, 1), 30.0)
    assert discriminator_loss(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert discriminator_loss(sure, -sure).item() == pytest.approx(0, abs=1e-6)
    assert discriminator_loss(-sure, sure).item() == pytest.approx(60)
    assert generator_loss(zero).item() == pytest.approx(math.log(2))
    assert generator_loss(sure).item() == pytest.approx(0, abs=1e-6)
    assert generator_loss(-sure).item() == pytest.approx(30)


def test_generator_loss_has_a_slope_where_the_discriminator_is_sure():
    logits = torch.full((1, 1), -20.0, requires_grad=True)
    generator_loss(logits).backward()
    assert logits.grad.item() == pytest.approx(-1, abs=1e-6)


def test_widths_batchnorm_and_leak_are_fields():
    config = Config(widths_g=(7, 9, 11), widths_d=(13, 5), batchnorm_g=False, noise_size=3, leak=0.1)
    generator, discriminator = Generator(config), Discriminator(config)
    assert [layer.out_features for layer in generator.layers if isinstance(layer, nn.Linear)] == [7, 9, 11, 784]
    assert [layer.out_features for layer in discriminator.layers if isinstance(layer, nn.Linear)] == [13, 5, 1]
    assert not any(isinstance(layer, nn.BatchNorm1d) for layer in generator.modules())
    assert {layer.negative_slope for layer in discriminator.layers if isinstance(layer, nn.LeakyReLU)} == {0.1}
    images = generator(torch.randn(4, 3))
    assert images.shape == (4, 1, 28, 28)
    assert 0 <= images.min() <= images.max() <= 1
    assert discriminator(images).shape == (4, 1)


def test_discriminator_step_moves_the_discriminator_alone(networks):
    generator, discriminator = networks
    fakes = generator(torch.randn(16, SMALL.noise_size))
    before_g, before_d = tensors(generator), tensors(discriminator)
    gan_mlp.discriminator_step(discriminator, optimizer(discriminator), torch.rand(16, 1, 28, 28), fakes, FLOAT32)
    assert moved(discriminator, before_d) == parameter_names(discriminator)
    assert moved(generator, before_g) == set()
    assert all(weight.grad is None for weight in generator.parameters())


def test_generator_step_moves_the_generator_alone(networks):
    generator, discriminator = networks
    fakes = generator(torch.randn(16, SMALL.noise_size))
    before_g, before_d = tensors(generator), tensors(discriminator)
    gan_mlp.generator_step(discriminator, optimizer(generator), fakes, FLOAT32)
    assert moved(generator, before_g) == parameter_names(generator)
    assert moved(discriminator, before_d) == set()
    assert all(weight.grad is None and weight.requires_grad for weight in discriminator.parameters())


def test_every_image_is_moved_by_whole_pixels_on_its_own():
    images = torch.rand(200, 1, 28, 28)
    shifts = set()
    for image, result in zip(images, shifted(images, 1, torch.Generator().manual_seed(0)), strict=True):
        wide = nn.functional.pad(image, (1, 1, 1, 1))
        found = [
            (i, j)
            for i, j in itertools.product(range(3), repeat=2)
            if torch.equal(wide[:, i : i + 28, j : j + 28], result)
        ]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) == 9
    assert shifted(images, 0, torch.Generator()) is images


def test_gradients_flow_through_the_moving():
    images = torch.rand(5, 1, 28, 28, requires_grad=True)
    shifted(images, 2, torch.Generator().manual_seed(0)).sum().backward()
    assert images.grad[:, :, 4:-4, 4:-4].eq(1).all()


def test_average_of_weights_at_known_values():
    generator = Generator(SMALL)
    averaged = copy.deepcopy(generator)
    with torch.no_grad():
        for weight, mean in zip(generator.parameters(), averaged.parameters(), strict=True):
            weight.fill_(1.0)
            mean.fill_(0.0)
    gan_mlp.average_weights(averaged, generator, 0.9)
    gan_mlp.average_weights(averaged, generator, 0.9)
    assert all(weight.allclose(torch.tensor(0.19)) for weight in averaged.parameters())
    assert all(weight.eq(1).all() for weight in generator.parameters())


def test_refreshed_batchnorm_normalises_what_the_layer_really_gets(networks):
    generator, _ = networks
    with torch.no_grad():
        generator.layers[0].weight.mul_(7)
    gan_mlp.refresh_batchnorm(generator, SMALL.noise_size, torch.Generator().manual_seed(0))
    assert not generator.training
    out = generator.layers[:2](torch.randn(20_000, SMALL.noise_size))
    assert out.mean(dim=0).abs().max() < 0.06
    assert (out.std(dim=0) - 1).abs().max() < 0.06


def test_smoke_run_from_another_folder_writes_every_file(tmp_path, out):
    process = run_script("gan_mlp.py", "--smoke", "--out", out, "--data-dir", tmp_path / "data", cwd=tmp_path)
    assert process.returncode == 0, process.stderr
    folder = out / "gan_mlp" / "run-001"
    assert {path.name for path in folder.iterdir()} == {
        "checkpoint.pt", "config.json", "curves.pdf", "curves.png", "digits.pdf", "digits.png",
        "epoch_000.png", "epoch_001.png", "epoch_002.png",
        "interpolation.png", "metrics.csv", "neighbours.png", "reals.png", "report.json", "training.gif",
    }  # fmt: skip
    header = (folder / "metrics.csv").read_text().splitlines()[0].split(",")
    expected = ["epoch", *TIME_COLUMNS, "loss_d", "loss_g", "d_real", "d_fake", *SHARES, "share_distance", "frechet"]
    assert header == expected
    report = json.loads((folder / "report.json").read_text())
    assert report["frechet_floor"] > 0
    assert report["frechet_in_floors"] == pytest.approx(report["frechet"] / report["frechet_floor"])
    assert {path.name for path in tmp_path.iterdir()} == {"data", out.name}


def test_same_seed_same_bytes_and_every_parameter_moves(small):
    torch.manual_seed(stream_seed(small.seed, "weights"))
    before = tensors(Generator(small)), tensors(Discriminator(small))
    for seed in (0, 0, 1):
        gan_mlp.main(dataclasses.replace(small, seed=seed))
    runs = [small.out / "gan_mlp" / f"run-00{i}" for i in (1, 2, 3)]
    assert (runs[0] / "checkpoint.pt").read_bytes() == (runs[1] / "checkpoint.pt").read_bytes()
    assert rows_without_time(runs[0]) == rows_without_time(runs[1])
    assert pictures(runs[0]) == pictures(runs[1])
    assert (runs[0] / "checkpoint.pt").read_bytes() != (runs[2] / "checkpoint.pt").read_bytes()
    content = torch.load(runs[0] / "checkpoint.pt", weights_only=True)
    for name, old in zip(("generator", "discriminator"), before, strict=True):
        assert all(not torch.equal(content[name][key], value) for key, value in old.items())
    for row in rows_without_time(runs[0]):
        assert sum(float(row[name]) for name in SHARES) == pytest.approx(1)
        assert all(math.isfinite(float(value)) for value in row.values())


def test_load_draws_what_the_run_drew(small):
    gan_mlp.main(small)
    model = gan_mlp.load(small.out / "gan_mlp" / "run-001")
    images = model.generate(5, seed=3)
    assert images.shape == (5, 1, 28, 28)
    assert images.dtype == torch.float32
    assert 0 <= images.min() <= images.max() <= 1
    assert torch.equal(images, model.generate(5, seed=3))
    assert not torch.equal(images, model.generate(5, seed=4))
    noise = torch.randn(2, 100)
    assert torch.equal(model.generate(2, noise=noise), model.generate(2, noise=noise))
    for bad in (
        {"n": 0},
        {"n": 2.0},
        {"n": 2, "noise": torch.zeros(2, 99)},
        {"n": 1, "noise": torch.full((1, 100), math.nan)},
    ):
        with pytest.raises(ValueError, match="must be"):
            model.generate(**bad)


@pytest.mark.slow
def test_a_minute_of_training_draws_every_digit(out, tmp_path, monkeypatch):
    """On 12,000 drawn digits: a GAN that does not learn stays above 500 floors with digits missing. 16 epochs reach 44
    floors; 12 reach 83 to 104, by seed.
    """
    data = drawn(train=12_000, test=2_000)
    monkeypatch.setattr(gan_mlp, "load_dataset", lambda *_: data)
    report = gan_mlp.main(Config(epochs=16, batch_size=64, out=out, data_dir=tmp_path))
    assert report["classifier_accuracy"] > 0.97
    assert report["frechet_in_floors"] < 100
    assert report["share_smallest"] > 0.03
    assert report["share_distance"] < 0.15


def test_judge_finds_nothing_wrong_with_the_test_images(tmp_path):
    data = drawn(train=512, test=256)
    judged = Judge(data, tmp_path)(data.test_images[:, None] / 255)
    assert judged["frechet"] == pytest.approx(0, abs=1e-6)


def test_a_category_that_stands_for_no_class_does_not_count_as_missed(tmp_path, monkeypatch):
    monkeypatch.setattr("common.classifier._train", lambda *_: None)
    data = dataclasses.replace(drawn(train=64, test=64), classes=("a", "b", "c"))
    judge, images = Judge(data, tmp_path), data.test_images[:, None] / 255
    found = look(judge.classifier, images).logits.argmax(dim=1)
    meant = torch.where(found < 3, found, 9)
    meant[0] = (found[0] + 1) % 3
    named = int((meant < 3).sum())
    assert judge(images, meant)["as_meant"] == pytest.approx((named - 1) / named)
    assert judge(images, torch.full_like(meant, 9))["as_meant"] is None
