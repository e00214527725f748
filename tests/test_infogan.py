"""InfoGAN: known losses, what each step moves, what a run writes and goes on from, images from codes and back."""

import contextlib
import copy
import dataclasses
import io
import json
import math
import os
import pickle
import shutil
import sys
from itertools import pairwise, product
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.autograd.functional import jacobian
from torch.distributions import Normal

import infogan
from common import guide, init
from common.cli import parse
from common.data import drawn
from common.look import codes, figures, metrics, plots
from common.optim import descend
from common.streams import stream, stream_seed
from infogan import Coded, Config, Discriminator, Generator, InfoGAN, draw_latent
from tests.helpers import (
    FLOAT32,
    make_quick,
    moved,
    parameter_names,
    rows_without_time,
    same_content,
    tensors,
)

LN_10, LN_2 = math.log(10), math.log(2)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained(config: Config) -> InfoGAN:
    """The model as `main` has it before the first update."""
    torch.manual_seed(stream_seed(config.seed, "weights"))
    return InfoGAN(config)


# Losses -----------------------------------------------------------------------------------------------------------

FAKE, UNSURE, REAL = (torch.tensor([[0.0, gap]]).repeat(7, 1) for gap in (-80.0, 0.0, 80.0))
TEN, NOTHING = torch.arange(10), [LN_2, LN_2]  # what c2 and c3 cost where nothing is known of them
KNOWN = {
    "D that knows nothing": (lambda: infogan.discriminator_loss(UNSURE, UNSURE[:5]), 2 * LN_2),
    "D that knows all": (lambda: infogan.discriminator_loss(REAL, FAKE[:5]), 0),
    "D that takes each for the other": (lambda: infogan.discriminator_loss(FAKE, REAL[:5]), 160),
    "G before a D that knows nothing": (lambda: infogan.generator_loss(UNSURE), LN_2),
    "G taken for real": (lambda: infogan.generator_loss(REAL), 0),
    "G seen through": (lambda: infogan.generator_loss(FAKE), 80),
    "its slope, which does not saturate": (lambda: jacobian(infogan.generator_loss, FAKE).abs().sum(), 2),
    "a uniform Q": (lambda: infogan.categorical_nll(torch.zeros(10, 10), TEN), LN_10),
    "a uniform Q, shifted": (lambda: infogan.categorical_nll(torch.full((10, 10), 300.0), TEN), LN_10),
    "a Q that knows c1": (lambda: infogan.categorical_nll(100 * torch.eye(10), TEN), 0),
    "no information": (lambda: information(LN_10, NOTHING, 1.0), 0),
    "all of c1": (lambda: information(0.0, NOTHING, 1.0), LN_10),
    "some of c2 and c3": (lambda: information(LN_10, [LN_2 - 0.5, LN_2 - 0.25], 1.0), 0.75),
    "weighed down": (lambda: information(LN_10, [LN_2 - 0.5, LN_2 - 0.25], 0.1), 0.075),
    "weighed by nothing": (lambda: information(0.0, [9.0, -9.0], 0.0), LN_10),
    "the prior alone of c2": (lambda: torch.tensor(metrics.gaussian_information(1 / 3)), -0.176485),
}


def information(c1_nll: float, continuous_nll: list[float], weight: float) -> torch.Tensor:
    return infogan.information(torch.tensor(c1_nll), torch.tensor(continuous_nll), weight)


@pytest.mark.parametrize(("loss", "expected"), KNOWN.values(), ids=KNOWN)
def test_losses_and_information_at_known_values(loss, expected):
    assert (loss().shape, loss().item()) == ((), pytest.approx(expected, abs=1e-6))


def test_gaussian_nll_is_that_of_torch_distributions():
    mean, log_variance, value = torch.randn(3, 500, 2, generator=seeded())
    for width in (0 * log_variance, log_variance):  # fixed to 1, and learned
        expected = -Normal(mean, (0.5 * width).exp()).log_prob(value).mean(dim=0)
        torch.testing.assert_close(infogan.gaussian_nll(mean, width, value), expected)


@pytest.mark.parametrize("squared_error", [1e-3, 0.05, 1 / 3, 1.0])
def test_gaussian_information_is_that_of_the_best_normal(squared_error):
    sigma, best = squared_error**0.5, metrics.gaussian_information(squared_error)
    errors = torch.tensor([-sigma, sigma], dtype=torch.float64)
    exact, *others = (LN_2 + Normal(0.0, k * sigma).log_prob(errors).mean().item() for k in (1, 0.5, 0.95, 1.05, 2))
    assert best == pytest.approx(exact)
    assert max(others) < best < metrics.gaussian_information(0.0) < math.inf


# Networks ---------------------------------------------------------------------------------------------------------


def sizes(*parts: nn.Module) -> list[int]:
    return [sum(parameter.numel() for parameter in part.parameters()) for part in parts]


def test_generator_goes_from_noise_and_codes_through_7_and_14_pixels():
    shapes, network = [], Generator(5)
    for layer in (network.dense[0], network.dense[3], network.upsample[0], network.upsample[3]):
        layer.register_forward_hook(lambda module, _, out: shapes.append(tuple(out.shape)))
    images = network(draw_latent(3, 5, seeded()).joined())
    assert shapes == [(3, 1024), (3, 7 * 7 * 128), (3, 64, 14, 14), (3, 1, 28, 28)]
    assert (images.shape, images.dtype, 0 <= images.min() < images.max() <= 1) == (shapes[3], torch.float32, True)
    # The last layer alone has a bias; before a BatchNorm one would do nothing.
    dense = (5 + 10 + 2) * 1024 + 2 * 1024 + 1024 * 6272 + 2 * 6272
    assert sizes(network.dense, network.upsample) == [dense, 128 * 64 * 16 + 2 * 64 + 64 * 16 + 1]


@pytest.mark.parametrize(("learn_variance", "outputs"), [(False, 12), (True, 14)])
def test_discriminator_and_posterior_share_1024_features(learn_variance, outputs):
    network, x = Discriminator(learn_variance), torch.rand(5, 1, 28, 28)
    features, q = network.features(x), network.posterior(network.features(x))
    read = [network.convolutions(x), features, network.real_or_fake(features), *q]
    assert [tuple(part.shape) for part in read] == [(5, 128, 7, 7), (5, 1024), (5, 2), (5, 10), (5, 2), (5, 2)]
    assert [module.negative_slope for module in network.modules() if isinstance(module, nn.LeakyReLU)] == [0.1] * 4
    expected = [64 * 16 + 64 + 64 * 128 * 16 + 2 * 128, 6272 * 1024 + 2 * 1024, 1024 * 2 + 2]
    expected.append(1024 * 128 + 2 * 128 + 128 * outputs + outputs)
    assert sizes(network.convolutions, network.dense, network.head_d, network.head_q) == expected
    assert sizes(network) == [sum(expected)]


@pytest.mark.parametrize(("raw", "expected"), [(None, 0.0), (-1000.0, -6.0), (-6.0, -6 + LN_2), (9.0, 9.0)])
def test_posterior_has_columns_for_each_part_and_a_soft_floor_of_the_variance(raw, expected):
    network = Discriminator(raw is not None).eval()
    network.head_q[-1].weight.data.zero_()
    network.head_q[-1].bias.data = torch.tensor([*map(float, range(12)), *([] if raw is None else [raw, raw])])
    q = network.posterior(torch.randn(3, 1024))
    assert (q.logits[0].tolist(), q.mean[0].tolist()) == (list(range(10)), [10, 11])
    torch.testing.assert_close(q.log_variance, torch.full((3, 2), expected))


def test_latent_comes_from_the_prior_as_noise_then_one_hot_then_continuous():
    noise, category, continuous = latent = draw_latent(20_000, 3, seeded())
    assert torch.equal(latent.joined(), torch.cat((noise, torch.eye(10)[category], continuous), dim=1))
    assert max(noise.mean(dim=0).abs().max(), noise.std(dim=0).sub(1).abs().max()) < 0.03
    assert torch.bincount(category, minlength=10).div(20_000).sub(0.1).abs().max() < 0.01
    assert continuous.abs().max() <= 1
    assert max(continuous.mean(dim=0).abs().max(), continuous.var(dim=0).sub(1 / 3).abs().max()) < 0.02


def test_first_weights_are_normal_0_002_and_gains_normal_1_002_and_the_average_begins_with_them():
    model = untrained(Config(learn_variance=True))
    for name, layer in model.named_modules():
        if isinstance(getattr(layer, "weight", None), nn.Parameter):
            found = layer.weight.mean().item(), layer.weight.std().item()
            expected = 1.0 if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)) else 0.0, 0.02
            assert found == pytest.approx(expected, abs=5 * 0.02 / layer.weight.numel() ** 0.5), name
            assert layer.bias is None or layer.bias.eq(0).all(), name
    assert moved(model.ema.network, tensors(model.generator)) == set()


UNKNOWN = [nn.PReLU(), nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.Embedding(10, 4), nn.GRU(4, 4), nn.Conv1d(1, 1, 3)]
UNKNOWN += [nn.MultiheadAttention(4, 2), nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))]


@pytest.mark.parametrize("layer", UNKNOWN, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("recipe", [init.dcgan_, init.fan_in_uniform_, lambda network: init.gaussian_(network, 0.01)])
def test_init_refuses_a_layer_it_has_no_recipe_for_and_skips_those_without_parameters(recipe, layer):
    recipe(nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4, affine=False), nn.ReLU()))
    with pytest.raises(TypeError, match="no initialisation"):
        recipe(nn.Sequential(nn.Linear(4, 4), layer))


# What a step moves ------------------------------------------------------------------------------------------------

BATCH = 16
READ = torch.arange(BATCH) % 10, torch.linspace(-0.9, 0.9, 2 * BATCH).view(2, BATCH).T  # as the guide reads reals
NEVER_AVERAGED = {f"{norm}.num_batches_tracked" for norm in ("dense.1", "dense.4", "upsample.1")}
COUNTED = "discriminator.head_q.1.num_batches_tracked"
GUIDED = {"guide_c1_nll", "guide_c2_error", "guide_c3_error"}


class Trial:
    """A model with its optimisers and one batch, the same at every call."""

    def __init__(self, read: tuple = (), **fields: object):
        torch.manual_seed(0)
        self.model = InfoGAN(Config(**{"learning_rate_d": 1e-3} | fields))
        self.optimizers, self.latent = infogan.make_optimizers(self.model), draw_latent(BATCH, 62, seeded(1))
        self.real = Coded(torch.rand(BATCH, 1, 28, 28), *read)

    def fake(self) -> Coded:
        return Coded(self.model.generator(self.latent.joined()), self.latent.category, self.latent.continuous)

    def d(self, fake: Coded | None = None) -> dict[str, torch.Tensor]:
        loss, scalars = infogan.discriminator_objective(self.model, self.real, fake or self.fake())
        descend(self.optimizers[0], loss)
        return scalars

    def g(self, fake: Coded | None = None) -> dict[str, torch.Tensor]:
        loss, scalars = infogan.generator_objective(self.model, fake or self.fake())
        descend(self.optimizers[1], loss)
        return scalars


MODES = [((), {}), (READ, {}), (READ, {"learn_variance": True}), ((), {"info_weight": 0.0})]


@pytest.mark.parametrize(("read", "fields"), MODES)
def test_discriminator_step_moves_the_trunk_and_both_heads_and_nothing_else(read, fields):
    trial = Trial(read, **fields)
    fake, before = trial.fake(), tensors(trial.model)
    numbers = trial.d(fake)
    assert moved(trial.model, before) == {name for name in before if name.startswith("discriminator.")}
    assert all(weight.grad is None for weight in trial.model.generator.parameters())
    expected = {"loss_d", "d_real", "d_fake", "c1_nll", "c2_error", "c3_error"}
    assert numbers.keys() == (expected | GUIDED if read else expected)
    assert all(value.shape == () and value.isfinite() for value in numbers.values())


def test_generator_step_moves_the_generator_and_nothing_else_judged_by_statistics_of_its_own_batch():
    trial, normed = Trial(), []
    fake, before, d = trial.fake(), tensors(trial.model), trial.model.discriminator
    d.dense[1].register_forward_hook(lambda module, inputs, out: normed.append(out.detach()))
    assert trial.g(fake).keys() == {"loss_g"}
    assert moved(trial.model, before) == {f"generator.{name}" for name in parameter_names(trial.model.generator)}
    assert all(weight.grad is None and weight.requires_grad for weight in d.parameters())
    trial.d()
    assert [len(out) for out in normed] == [BATCH] * 3  # reals and fakes pass the norms separately
    assert max(out.mean(dim=0).abs().max() for out in normed) < 1e-5
    assert d.dense[1].num_batches_tracked.item() == 2


WEIGHTS = [(Trial.d, "discriminator", (), "info_weight"), (Trial.g, "generator", (), "info_weight")]
WEIGHTS += [(step, network, (), "continuous_weight") for step, network, *_ in WEIGHTS]
WEIGHTS += [(Trial.d, "discriminator", READ, "guide_weight")]


@pytest.mark.parametrize(("step", "network", "read", "name"), WEIGHTS)
def test_the_information_moves_the_shared_trunk_and_the_generator_by_its_weight(step, read, name, network):
    slopes = []
    for weight in (0.0, 1.0, 2.0):
        trial = Trial(read, **{name: weight})
        step(trial)
        slopes.append(getattr(trial.model, network).dense[0].weight.grad)
    first, second = (b - a for a, b in pairwise(slopes))
    assert first.abs().max() > 1e-4
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("read", "weight", "names"), [(READ, 1e-6, GUIDED), ((), 0.0, {"c1_nll"})], ids=["of reals", "of a plain GAN"]
)
def test_q_learns_to_read_the_codes(read, weight, names):
    """Those of reals with hardly any information on generated images, which Q could learn from as well."""
    trial = Trial(read, info_weight=weight)
    seen = [trial.d() for _ in range(25)]
    assert [name for name in names if seen[-1][name] > 0.5 * seen[0][name]] == []


def test_plain_gan_updates_generator_trunk_and_d_whatever_q_is():
    usual, other = Trial(info_weight=0.0), Trial(info_weight=0.0)
    for parameter in other.model.discriminator.head_q.parameters():
        parameter.data += torch.randn(parameter.shape, generator=seeded(9))
    for trial in (usual, other):
        trial.d()
        trial.g()
    differ = moved(other.model, tensors(usual.model))
    assert differ == {name for name in tensors(usual.model) if name.startswith("discriminator.head_q.")} - {COUNTED}


def test_an_update_moves_g_and_then_mixes_it_into_the_average():
    trial = Trial(READ, average=0.0)
    before = tensors(trial.model.generator)
    infogan.update(trial.model, trial.optimizers, trial.real, seeded(), FLOAT32)
    assert moved(trial.model.generator, before) == set(before)
    assert moved(trial.model.ema.network, tensors(trial.model.generator)) == NEVER_AVERAGED


def test_pictures_and_measurements_move_nothing_and_restore_the_mode(monkeypatch, tiny):
    monkeypatch.setattr(codes, "PER_CATEGORY", 2)
    model, latent = untrained(Config()), draw_latent(20, 62, seeded())
    before = tensors(model)
    codes.sheets(model, latent.noise, latent.continuous)
    codes.measure(model, latent.noise, latent.continuous)
    codes.contingencies(model, tiny)
    assert moved(model, before) == set()
    assert all(module.training for module in model.modules())
    model.generator(latent.joined())
    assert moved(model, before) == {f"generator.{name}" for name, _ in model.generator.named_buffers()}


# Runs -------------------------------------------------------------------------------------------------------------

EPOCHS = 2  # of two updates each


def stored(folder: Path, name: str) -> dict:
    path = folder / name
    return torch.load(path, weights_only=True) if path.suffix == ".pt" else json.loads(path.read_text())


def tiny_config(out: Path, **fields: object) -> Config:
    usual = {"dataset": "drawn", "epochs": EPOCHS, "batch_size": 64, "device": "cpu"}
    return Config.make(out=out, data_dir=out.parent / "data", **usual | fields)


@pytest.fixture
def undrawn(monkeypatch, on_tiny):
    """Runs draw no picture, and `main` returns their folder."""
    monkeypatch.setattr(figures, "draw_reals", lambda *_: None)
    monkeypatch.setattr(infogan, "draw_epoch", lambda *_: None)
    monkeypatch.setattr(infogan, "report", lambda run, *_: run.folder)


@pytest.fixture(scope="module")
def notebook(tmp_path_factory, tiny):
    """What a run called from Python, as in a notebook, returned and said; and its folder."""
    out, said, bar = tmp_path_factory.mktemp("notebook") / "outputs", io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, tiny)
        patch.setitem(sys.modules, "ipykernel", type(sys)("ipykernel"))
        with contextlib.redirect_stderr(bar), contextlib.redirect_stdout(said):
            report = infogan.main(tiny_config(out))
    yield report, said.getvalue(), bar.getvalue(), out / "infogan" / "run-001"
    shutil.rmtree(out)


@pytest.fixture
def whole(notebook) -> Path:
    """The folder of a run that was never stopped."""
    return notebook[-1]


@pytest.fixture
def finished(whole, out) -> Path:
    """A copy of it. Links will do: a run replaces its files and never writes into them."""
    return shutil.copytree(whole, out / "infogan" / "run-001", copy_function=os.link)


def resume(folder: Path, *flags: object) -> object:
    return infogan.main(parse(Config, ["--resume", str(folder), *map(str, flags)]))


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("times", [0, 2], ids=["never", "twice per epoch"])
def test_how_often_pictures_are_drawn_changes_no_weight_and_quiet_says_nothing(whole, out, monkeypatch, capfd, times):
    def draw_epoch(run: object, model: InfoGAN, latent: infogan.Latent) -> None:
        for _ in range(times):
            codes.sheets(model, latent.noise, latent.continuous)

    monkeypatch.setattr(infogan, "draw_epoch", draw_epoch)
    assert same_content(infogan.main(tiny_config(out, quiet=True)), whole)
    assert capfd.readouterr() == ("", "")


SETTINGS = [{"paper": True}, {"info_weight": 0.0, "continuous_weight": 0.0, "batch_size": 50}]
SETTINGS += [{"learn_variance": True, "noise_size": 5}, {"guide_weight": 0.5, "average": 0.9, "decay_from": 0.0}]


@pytest.mark.usefixtures("on_tiny")
@pytest.mark.parametrize("fields", SETTINGS, ids=str)
def test_other_settings_run_to_the_end_and_load_and_without_a_guide_nothing_is_read(out, monkeypatch, fields):
    for room, save in ((figures, "save_grid"), (plots, "save_figure")):
        monkeypatch.setattr(room, save, lambda path, *_, **__: Image.new("L", (9, 9)).save(path))
    config, folder = tiny_config(out, epochs=1, **fields), out / "infogan" / "run-001"
    if not config.guided:
        monkeypatch.setattr(guide, "read", None)
    report = infogan.main(config)
    assert {**stored(folder, "report.json"), "folder": str(folder)} == report
    assert ("guide_accuracy" in report) == ("guide_c1_nats" in rows_without_time(folder)[0]) == config.guided
    for again in (infogan.load(folder).config, parse(Config, ["--resume", str(folder)])):
        assert {name: getattr(again, name) for name in fields} == {name: getattr(config, name) for name in fields}
    content = stored(folder, "checkpoint.pt")
    assert len(content["guide.c1"]) == (128 if config.guided else 0)
    ema, last = (content[f"model.{network}.dense.0.weight"] for network in ("ema.network", "generator"))
    assert torch.equal(ema, last) == (config.average == 0)


@pytest.mark.usefixtures("undrawn")
def test_step_sizes_fall_to_2_percent(out, monkeypatch):
    rates, update = [], infogan.update

    def noted(model, optimizers, *rest):
        rates.extend(optimizer.param_groups[0]["lr"].item() for optimizer in optimizers)
        return update(model, optimizers, *rest)

    monkeypatch.setattr(infogan, "update", noted)
    infogan.main(tiny_config(out, decay_from=0.5, guide_weight=0.0))
    assert rates == pytest.approx([8e-4, 1e-3] * 3 + [0.51 * 8e-4, 0.51 * 1e-3])


@pytest.mark.usefixtures("undrawn")
def test_no_label_reaches_training(out, tiny, whole, monkeypatch):
    """With every label wrong, the same codes, weights, optimisers and latents come out, to the bit."""
    wrong = {part: (getattr(tiny, part) + 3) % 10 for part in ("train_labels", "test_labels")}
    make_quick(monkeypatch, dataclasses.replace(tiny, **wrong))
    other, right = (stored(folder, "checkpoint.pt") for folder in (infogan.main(tiny_config(out)), whole))
    assert other.keys() == right.keys()
    differ = {name for name in right if not torch.equal(torch.as_tensor(other[name]), torch.as_tensor(right[name]))}
    assert differ - {"row.accuracy"} == {"model.digit_of_category"}  # the labels were read


@pytest.mark.usefixtures("undrawn")
def test_more_epochs_go_on_to_the_bytes_of_a_longer_run(out):
    """Where step sizes do not fall: otherwise those of a longer run fall later."""
    longer, folder = (infogan.main(tiny_config(out, epochs=n, decay_from=1.0)) for n in (EPOCHS, EPOCHS - 1))
    resume(folder, "--epochs", EPOCHS)
    assert same_content(folder, longer)
    assert rows_without_time(folder) == rows_without_time(longer)


@pytest.mark.usefixtures("on_tiny")
def test_a_call_returns_the_report_and_resuming_draws_again(notebook, finished, capfd):
    report, said, bar, whole = notebook
    assert ({**stored(whole, "report.json"), "folder": str(whole)}, "4/4" in bar) == (report, True)
    assert said.startswith("infogan on drawn digits, not MNIST, epochs 1 to 2 of 2 updates on 128 images, device cpu")
    for path in finished.iterdir():
        if path.suffix not in (".pt", ".csv") and path.name[:9] not in ("config.js", "epoch_000", "epoch_001"):
            path.unlink()
    resume(finished, "--quiet")
    assert capfd.readouterr() == ("", "")
    assert same_content(finished, whole)
    for path in whole.iterdir():
        if path.suffix not in (".csv", ".pt") and path.name != "config.json":
            assert (finished / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(("module", "function", "calls"), [(guide, "train_step", 8), (infogan, "update", 1)])
def test_an_interrupted_run_reads_again_unless_it_has_read(monkeypatch, whole, out, module, function, calls):
    real, left, known = getattr(module, function), iter(range(calls)), module is infogan
    with monkeypatch.context() as patch:
        patch.setattr(module, function, lambda *given: (next(left), real(*given))[1])
        with pytest.raises(StopIteration):
            infogan.main(tiny_config(out))
    folder = out / "infogan" / "run-001"
    assert stored(folder, "checkpoint.pt")["guide.c1"].eq(guide.UNREAD).unique().tolist() == [not known]
    if known:
        monkeypatch.setattr(guide, "read", None)
    resume(folder)
    assert (folder / "checkpoint.pt").read_bytes() == (whole / "checkpoint.pt").read_bytes()


# A finished run as a model ----------------------------------------------------------------------------------------

PERMUTED = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])  # the digit of each category; not its own inverse


@pytest.fixture(scope="module")
def model(smoke_run) -> InfoGAN:
    return infogan.load(smoke_run.folder)


@pytest.fixture
def permuted(model) -> InfoGAN:
    model = copy.deepcopy(model)
    model.digit_of_category.copy_(PERMUTED)
    return model


def test_images_and_codes_have_their_shapes_types_and_ranges_and_a_seed_repeats_them(model):
    before, random = tensors(model), torch.get_rng_state()
    images = model.generate(37, seed=1)
    assert (images.shape, images.dtype, model.generate().shape) == ((37, 1, 28, 28), torch.float32, (1, 1, 28, 28))
    assert (0 <= images.min() < images.max() <= 1, images.requires_grad) == (True, False)
    for n in (37, 1, 0):
        found = model.encode(images[:n].double())
        assert [tuple(part.shape) for part in found] == [(n, 10), (n,), (n,)]
        assert all(part.dtype == torch.float32 and not part.requires_grad for part in found)
        torch.testing.assert_close(found.c1.sum(dim=1), torch.ones(n))
    assert torch.equal(model.generate(37, seed=1), images)
    assert not torch.equal(model.generate(37, seed=2), images)
    assert not torch.equal(model.generate(4), model.generate(4))
    assert (moved(model, before), torch.equal(torch.get_rng_state(), random)) == (set(), True)


def test_an_image_does_not_depend_on_those_beside_it(model, monkeypatch):
    monkeypatch.setattr(infogan, "PIECE", 2)
    given = {"noise": torch.randn(5, 62), "category": torch.arange(5), "c2": torch.rand(5), "c3": torch.rand(5) - 2}
    before = copy.deepcopy(given)
    together = model.generate(5, **given)
    read = model.encode(together)
    assert all(torch.equal(given[name], before[name]) for name in given)
    for i in range(5):
        alone = model.generate(1, **{name: value[i : i + 1] for name, value in given.items()})
        torch.testing.assert_close(alone[0], together[i], rtol=0, atol=1e-5)
        for one, all_of_them in zip(model.encode(alone), read, strict=True):
            torch.testing.assert_close(one[0], all_of_them[i], rtol=1e-3, atol=1e-4)


def test_given_codes_are_for_one_or_all_images_and_leave_the_others_as_the_seed_has_them(model):
    latent = draw_latent(3, 62, stream(5, "generate"))
    c2, c3 = latent.continuous.unbind(dim=1)
    with torch.no_grad():
        drawn_by_average = model.ema(latent.joined())
    for given in ({}, {"c2": c2}, {"category": latent.category, "c3": c3}, {"noise": latent.noise}):
        assert torch.equal(model.generate(3, seed=5, **given), drawn_by_average)
    for name, value, other in (("digit", 3, 4), ("category", 3, 4), ("c2", 2, 0), ("c3", -0.5, 0.5)):
        one, each, another = ({name: given} for given in (value, torch.full((3,), value), other))
        assert torch.equal(model.generate(3, seed=1, **one), model.generate(3, seed=1, **each))
        assert not torch.equal(model.generate(3, seed=1, **one), model.generate(3, seed=1, **another))


def test_a_digit_is_drawn_by_the_category_that_stands_for_it_and_read_as_its_probability(permuted):
    by_category = permuted.generate(10, seed=1, category=torch.arange(10))
    assert torch.equal(permuted.generate(10, seed=1, digit=PERMUTED), by_category)
    assert torch.equal(permuted.generate(2, seed=1, digit=4), permuted.generate(2, seed=1, category=2))
    permuted.discriminator.head_q[-1].weight.data.zero_()
    permuted.discriminator.head_q[-1].bias.data.copy_(torch.arange(12.0))
    found = permuted.encode(torch.rand(2, 1, 28, 28))
    torch.testing.assert_close(found.c1, torch.arange(10.0).softmax(dim=0).expand(2, 10))
    assert (found.c2.tolist(), found.c3.tolist()) == ([10, 10], [11, 11])


def test_sheets_have_a_row_per_category_in_the_order_of_the_digits_and_move_one_code(permuted):
    noise, _, continuous = draw_latent(10, 62, seeded())
    found = codes.sheets(permuted, noise, continuous)
    sweep, one = torch.linspace(-2, 2, 9), noise[codes.typical(permuted, noise)].expand(9, -1)
    columns = {"c1": (noise, *continuous.T), "c2": (one, sweep, 0), "c3": (one, 0, sweep)}
    for (category, digit), (code, (z, c2, c3)) in product(enumerate(PERMUTED.tolist()), columns.items()):
        expected = permuted.generate(len(z), category=category, noise=z, c2=c2, c3=c3).squeeze(1)
        torch.testing.assert_close(found[code][digit], expected, rtol=0, atol=1e-5)


def test_a_loaded_model_reads_what_the_run_measured(model, smoke_run):
    data = drawn(train=512, test=256)
    digit = model.digit_of_category[model.encode(data.test_images[:, None] / 255).c1.argmax(dim=1)]
    accuracy = (digit == data.test_labels).float().mean().item()
    assert accuracy == pytest.approx(stored(smoke_run.folder, "report.json")["accuracy"])
    assert f"dataset=drawn, epochs=2, accuracy={accuracy:.3g}, " in repr(model)
    assert "c3_thickness_rank_correlation=" in repr(pickle.loads(pickle.dumps(copy.deepcopy(model))))
    assert sorted(model.digit_of_category.tolist()) == list(range(10))
