"""InfoGAN: known losses, what an update moves, what a run trains and goes on from, what the codes do and show."""

import copy
import dataclasses
import json
import math
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.autograd.functional import jacobian
from torch.distributions import Categorical, Normal

import infogan
from common.data import DIGITS, render_digits, to_float
from common.data.inputs import sampling_generator
from common.look import figures, metrics, plots
from common.look import infogan as look
from common.run.cli import parse
from common.train import guide
from common.train.optim import ema_decay
from infogan import Config, Discriminator, Generator, InfoGAN
from tests.helpers import CPU, FLOAT32, make_quick, moved, parameter_names, rows_without_time, tensors

LN_10, LN_2 = math.log(10), math.log(2)
PERMUTED = torch.tensor([3, 1, 4, 0, 5, 9, 2, 6, 8, 7])  # the digit of each category; not its own inverse


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Losses and networks ----------------------------------------------------------------------------------------------


def test_losses_at_known_logits_and_the_information_of_known_errors():
    fake, unsure, real = (torch.tensor([[0.0, gap]]).repeat(7, 1) for gap in (-80.0, 0.0, 80.0))
    loss_d, loss_g = infogan.discriminator_loss, infogan.generator_loss
    found = loss_d(unsure, unsure[:5]), loss_d(fake, real[:5]), loss_g(unsure), loss_g(fake)
    assert [loss.item() for loss in found] == pytest.approx([2 * LN_2, 160, LN_2, 80])
    assert jacobian(loss_g, fake).abs().sum() == pytest.approx(2), "its slope does not saturate"
    found = [metrics.gaussian_information(error) for error in (1 / 3, 0.0)]  # of the prior alone, of a known code
    assert found == pytest.approx([-0.176485, 13.089719], abs=1e-5)


def test_the_information_is_the_entropy_of_the_codes_less_the_nll_of_torch_distributions():
    mean, log_variance, values = torch.randn(3, 500, 2, generator=seeded())
    logits, c1 = torch.randn(500, 10, generator=seeded(1)), torch.arange(500) % 10
    c1_nll, error = -Categorical(logits=logits).log_prob(c1).mean(), (mean - values).square().mean(dim=0)
    for width in (0 * log_variance, log_variance):  # fixed to 1, and learned
        nll = -Normal(mean, (0.5 * width).exp()).log_prob(values).mean(dim=0)
        torch.testing.assert_close(infogan.gaussian_nll(mean, width, values), nll)
        bound, logged = infogan.information(infogan.Posterior(logits, mean, width), c1, values, 0.3)
        torch.testing.assert_close(bound, LN_10 - c1_nll + 0.3 * (LN_2 - nll).sum())
        torch.testing.assert_close(logged, {"c1_nll": c1_nll, "c2_error": error[0], "c3_error": error[1]})


@pytest.mark.parametrize(("learn_variance", "outputs"), [(False, 12), (True, 14)])
def test_networks_are_those_of_the_appendix(learn_variance, outputs):
    g, d = Generator(17), Discriminator(10, 2, learn_variance)
    # The last layer alone has a bias; before a BatchNorm one would do nothing.
    of_g = (5 + 10 + 2) * 1024 + 2 * 1024 + 1024 * 6272 + 2 * 6272 + 128 * 64 * 16 + 2 * 64 + 64 * 16 + 1
    of_d = 64 * 16 + 64 + 64 * 128 * 16 + 2 * 128 + 6272 * 1024 + 2 * 1024 + 1024 * 2 + 2
    of_q = 1024 * 128 + 2 * 128 + 128 * outputs + outputs
    sizes = [sum(parameter.numel() for parameter in network.parameters()) for network in (g, d)]
    assert sizes == [of_g, of_d + of_q]
    assert {layer.negative_slope for layer in d.modules() if isinstance(layer, nn.LeakyReLU)} == {0.1}
    x = g(torch.randn(3, 17))
    assert (x.shape, x.dtype, 0 <= x.min() < x.max() <= 1) == ((3, 1, 28, 28), torch.float32, True)


@pytest.mark.parametrize(("raw", "expected"), [(None, 0.0), (-1000.0, -6.0), (-6.0, -6 + LN_2), (9.0, 9.0)])
def test_posterior_has_columns_for_each_part_and_a_soft_floor_of_the_variance(raw, expected):
    model = InfoGAN(Config(learn_variance=raw is not None))
    d = model.discriminator.eval()
    d.head_q[-1].weight.data.zero_()
    d.head_q[-1].bias.data = torch.tensor([*map(float, range(12)), *([] if raw is None else [raw, raw])])
    q, codes = d.posterior(torch.randn(2, 1024)), model.encode(torch.rand(2, 1, 28, 28))
    assert (q.logits[0].tolist(), q.mean[0].tolist()) == (list(range(10)), [10, 11])
    torch.testing.assert_close(q.log_variance, torch.full((2, 2), expected))
    torch.testing.assert_close(codes.c1, q.logits.softmax(dim=1))
    assert (codes.c2.tolist(), codes.c3.tolist()) == ([10, 10], [11, 11])


def test_latents_come_from_the_prior_and_join_as_noise_then_one_hot_then_continuous():
    uniform = InfoGAN(Config(noise_size=3, noise="uniform")).sample_latent(20_000, seeded()).noise
    assert (uniform.abs().max() < 1, uniform.var().item()) == (True, pytest.approx(1 / 3, abs=0.01))
    noise, category, continuous = latent = InfoGAN(Config(noise_size=3)).sample_latent(20_000, seeded())
    assert torch.equal(latent.joined(10), torch.cat((noise, torch.eye(10)[category], continuous), dim=1))
    assert max(noise.mean(dim=0).abs().max(), noise.std(dim=0).sub(1).abs().max()) < 0.03
    assert torch.bincount(category, minlength=10).div(20_000).sub(0.1).abs().max() < 0.01
    assert continuous.abs().max() <= 1
    assert max(continuous.mean(dim=0).abs().max(), continuous.var(dim=0).sub(1 / 3).abs().max()) < 0.02


# Updates ----------------------------------------------------------------------------------------------------------

BATCH = 16
PSEUDO_LABELS = torch.arange(BATCH) % 10, torch.linspace(-0.9, 0.9, 2 * BATCH).view(2, BATCH).T
LOGGED = {"loss_d", "loss_g", "d_real", "d_fake", "c1_nll", "c2_error", "c3_error"}


def untrained(**fields: object) -> InfoGAN:
    torch.manual_seed(0)
    return InfoGAN(Config(**fields))


def update(model: InfoGAN, pseudo_labels: tuple | None = None, penalise: bool = False) -> dict[str, Tensor]:
    """The first update of the optimisers, the same at every call. With a learning rate of 0 a network is still."""
    real, optimizers = torch.rand(BATCH, 1, 28, 28, generator=seeded(1)), infogan.make_optimizers(model)
    return infogan.update(model, optimizers, real, pseudo_labels, seeded(2), FLOAT32, 0.25, penalise)


MODES = [(None, {}), (PSEUDO_LABELS, {"learn_variance": True}), (None, {"info_weight": 0.0})]
STEPS = [*(("discriminator", {"learning_rate_g": 0.0} | fields, labels) for labels, fields in MODES)]
STEPS.append(("generator", {"learning_rate_d": 0.0}, None))


@pytest.mark.parametrize(("network", "fields", "pseudo_labels"), STEPS)
def test_each_step_moves_its_own_network_alone_and_the_average_follows_g(network, fields, pseudo_labels):
    model = untrained(**fields)
    before, d = tensors(model), model.discriminator
    scalars = update(model, pseudo_labels)
    own = {name for name in parameter_names(model) if not name.startswith("ema.")}
    assert moved(model, before) & own == {name for name in own if name.startswith(network)}
    assert all(weight.requires_grad for weight in d.parameters())
    # Real and generated images pass D's norms separately, and in G's step without a trace.
    assert (d.dense[1].num_batches_tracked, d.head_q[1].num_batches_tracked) == (2, 2 if pseudo_labels else 1)
    assert scalars.keys() == LOGGED | {f"guide_{name}" for name in LOGGED if name[0] == "c" and pseudo_labels}
    assert all(value.shape == () and value.isfinite() for value in scalars.values())
    for name, weight in model.generator.named_parameters():
        torch.testing.assert_close(model.ema.get_parameter(name), 0.25 * before[f"ema.{name}"] + 0.75 * weight)


WEIGHTS = [
    ("generator", "info", None, 1.0),
    *((name, "continuous", None, 1.0) for name in ("discriminator", "generator")),
]
WEIGHTS += [("discriminator", name, PSEUDO_LABELS, 0.0) for name in ("guide", "continuous")]


@pytest.mark.parametrize(("network", "name", "labels", "info_weight"), WEIGHTS)
def test_the_information_moves_the_shared_trunk_and_the_generator_by_its_weight(network, name, labels, info_weight):
    """With pseudo-labels it is that of real images alone: at weight 0 the other does not reach the trunk."""
    slopes = []
    for weight in (0.0, 1.0, 2.0):
        model = untrained(**{"learning_rate_d": 0.0, "info_weight": info_weight, f"{name}_weight": weight})
        update(model, labels)
        slopes.append(getattr(model, network).dense[0].weight.grad)
    first, second = (b - a for a, b in pairwise(slopes))
    assert first.abs().max() > 1e-4
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-6)


def test_the_weight_of_the_information_is_that_of_g_alone():
    d = []
    for weight in (0.5, 2.0):
        model = untrained(learning_rate_d=0.0, learning_rate_g=0.0, info_weight=weight)
        update(model)
        d.append(model.discriminator.head_q[0].weight.grad)
    assert torch.equal(*d)


def test_the_gradient_penalty_is_that_of_a_linear_d_and_moves_d_by_its_weight():
    real, slope = torch.rand(5, 1, 28, 28, generator=seeded(1)).requires_grad_(), torch.rand(784, generator=seeded(2))
    logits = torch.stack((-real.flatten(1) @ slope, 2 * real.flatten(1) @ slope), dim=1)
    assert infogan.gradient_penalty(logits, real).item() == pytest.approx(9 / 2 * slope.square().sum().item(), rel=1e-5)
    slopes = []
    for weight, penalise in ((0.3, False), (0.0, True), (1.0, True), (2.0, True)):
        model = untrained(learning_rate_d=0.0, gradient_penalty=weight)
        update(model, PSEUDO_LABELS, penalise)
        slopes.append(model.discriminator.dense[0].weight.grad)
    torch.testing.assert_close(slopes[0], slopes[1])
    first, second = (b - a for a, b in pairwise(slopes[1:]))
    assert first.abs().max() > 1e-4
    torch.testing.assert_close(second, first, rtol=1e-3, atol=1e-5)


def test_a_plain_gan_is_the_same_whatever_q_is():
    usual, other = untrained(info_weight=0.0), untrained(info_weight=0.0)
    for parameter in other.discriminator.head_q.parameters():
        parameter.data += torch.randn(parameter.shape, generator=seeded(9))
    nlls = [[update(model)["c1_nll"] for _ in range(3)] for model in (usual, other)]
    assert nlls[0][-1] < nlls[0][0]  # Q learns all the same
    assert {name[:20] for name in moved(other, tensors(usual))} == {"discriminator.head_q"}


# Runs -------------------------------------------------------------------------------------------------------------


def checkpoint(folder: Path) -> dict:
    return torch.load(folder / "checkpoint.pt", weights_only=True)


def tiny_config(out: Path, **fields: object) -> Config:
    usual = {"dataset": "drawn", "epochs": 2, "batch_size": 64, "device": "cpu"}
    return Config.make(out=out, data_dir=out.parent / "data", **usual | fields)


@pytest.fixture
def without_pictures(monkeypatch, on_tiny):
    """Runs save no picture, and `main` returns their folder."""
    for name in ("save_reals", "save_epoch"):
        monkeypatch.setattr(infogan, name, lambda *_: None)
    monkeypatch.setattr(infogan, "report", lambda run, *_: run.folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny) -> Iterator[Path]:
    """The folder of a run that was never stopped, with pictures."""
    out = tmp_path_factory.mktemp("whole") / "outputs"
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch, tiny)
        yield Path(infogan.main(tiny_config(out))["folder"])
    shutil.rmtree(out)


SETTINGS = [{"paper": True}, {"info_weight": 0.0, "continuous_weight": 0.0, "batch_size": 50}]
SETTINGS.append({"learn_variance": True, "noise_size": 5, "guide_weight": 0.5, "average": 0.9, "decay_from": 0.0})
SETTINGS += [{"categories": 13, "continuous": 0}, {"categories": 4, "continuous": 5}]


@pytest.mark.usefixtures("on_tiny")
@pytest.mark.parametrize("fields", SETTINGS, ids=str)
def test_other_settings_run_to_the_end_and_load_and_without_a_guide_nothing_is_clustered(out, monkeypatch, fields):
    for room, save in ((figures, "save_grid"), (plots, "save_figure")):
        monkeypatch.setattr(room, save, lambda path, *_, **__: Image.new("L", (9, 9)).save(path))
    config, folder = tiny_config(out, epochs=1, **fields), out / "infogan" / "run-001"
    if not config.guided:
        monkeypatch.setattr(guide, "fit_pseudo_labels", None)
    report = infogan.main(config)
    columns = rows_without_time(folder)[0].keys()
    assert (
        ("guide_accuracy" in report)
        == ("guide_accuracy_on_training_images" in report)
        == ("guide_c1_nats" in columns)
        == config.guided
    )
    codes = [f"c{number}" for number in range(1, 2 + config.continuous)]
    assert [name for name in columns if name.startswith("info")] == [f"info_{code}_nats" for code in codes]
    assert [name[:2] for name in report if name.endswith("slant_rank_correlation")] == codes[1:]
    assert sorted(path.name for path in folder.glob("epoch_001*")) == [f"epoch_001_{code}.png" for code in codes]
    assert report["info_c1_maximum_nats"] == math.log(config.categories or 10)
    assert ("accuracy_at_most" in report) >= (config.categories == 4)
    again = infogan.load(folder).config
    assert {name: getattr(again, name) for name in fields} == {name: getattr(config, name) for name in fields}
    assert len(checkpoint(folder)["guide.c1"]) == (128 if config.guided else 0)


@pytest.mark.usefixtures("without_pictures")
def test_learning_rates_fall_the_decay_rises_and_a_failed_guide_and_a_collapse_are_warned_of(out, monkeypatch, capfd):
    rates, decays, penalised = [], [], []

    def update(model: InfoGAN, optimizers: tuple, *rest: object) -> dict[str, Tensor]:
        rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        decays.append(rest[-2])
        penalised.append(rest[-1])
        return {name: torch.tensor(0.999 if name == "d_real" else 0.001) for name in LOGGED}

    monkeypatch.setattr(infogan, "update", update)
    infogan.main(tiny_config(out, decay_from=0.5, guide_weight=0.0))
    assert rates == [pytest.approx([8e-4 * factor, 1e-3 * factor]) for factor in (1, 1, 1, 0.51)]
    assert penalised == [True, False, False, False]  # every fourth
    assert (decays, capfd.readouterr().err) == ([ema_decay(0.3, n, 4) for n in range(4)], "")
    of_one_category = torch.zeros(128), torch.zeros(128, 2), torch.ones(()), torch.zeros(64)
    monkeypatch.setattr(guide, "fit_pseudo_labels", lambda *_: of_one_category)
    infogan.main(tiny_config(out, epochs=4, batch_size=128))
    failed = "the guide failed: its smallest category has 0.0% of the images"
    collapsed = "collapsed: D(x) and D(G(z)) at their stops for 3 epochs"
    assert capfd.readouterr().err.split() == f"WARNING: {failed}\nWARNING: {failed}; {collapsed}".split()


@pytest.mark.usefixtures("without_pictures")
def test_no_label_reaches_training(out, tiny, whole, monkeypatch):
    """With every label wrong, the same pseudo-labels, weights, optimisers and latents come out, to the bit."""
    wrong = {part: (getattr(tiny, part) + 3) % 10 for part in ("train_labels", "test_labels")}
    make_quick(monkeypatch, dataclasses.replace(tiny, **wrong))
    other, right = (checkpoint(folder) for folder in (infogan.main(tiny_config(out)), whole))
    assert other.keys() == right.keys()
    differ = {name for name in right if not torch.equal(torch.as_tensor(other[name]), torch.as_tensor(right[name]))}
    assert differ == {"model.digit_of_category"}  # the labels were there


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(("module", "function", "calls"), [(guide, "train_step", 8), (infogan, "update", 1)])
def test_an_interrupted_run_clusters_again_unless_it_has_clustered(monkeypatch, whole, out, module, function, calls):
    real, left, fitted = getattr(module, function), iter(range(calls)), module is infogan
    folder = out / "infogan" / "run-001"
    with monkeypatch.context() as patch:
        patch.setattr(module, function, lambda *given: (next(left), real(*given))[1])
        with pytest.raises(StopIteration):
            infogan.main(tiny_config(out))
    assert checkpoint(folder)["guide.c1"].eq(guide.UNLABELLED).unique().tolist() == [not fitted]
    if fitted:
        monkeypatch.setattr(guide, "fit_pseudo_labels", None)
    infogan.main(parse(Config, ["--resume", str(folder)]))
    assert (folder / "checkpoint.pt").read_bytes() == (whole / "checkpoint.pt").read_bytes()


@pytest.mark.slow
@pytest.mark.usefixtures("without_pictures")
def test_a_minute_of_training_finds_the_digits_their_slant_and_their_thickness(out, monkeypatch):
    """Over seeds 1 to 5: accuracy 0.91 to 0.99, c2 with slant 0.95, c3 with thickness 0.82 to 0.86, each with the other
    at most 0.17. Without the balance weight the accuracy is 0.5; without the term on slant and thickness c2 follows
    slant by 0.38 and c3 thickness by 0.32."""
    data = render_digits(train=2_400, test=1_000)
    make_quick(monkeypatch, data)
    for name, value in {"UPDATES": 700, "BATCH_SIZE": 128, "RESTARTS": 1}.items():
        monkeypatch.setattr(guide, name, value)
    model = infogan.load(infogan.main(tiny_config(out, seed=1)))
    codes = model.encode(to_float(data.test_images))
    digit = model.digit_of_category[codes.c1.argmax(dim=1)]
    assert (digit == data.test_labels).float().mean() > 0.8
    of_digit = [data.test_labels == label for label in range(10)]
    least = {("c2", "slant"): 0.8, ("c3", "thickness"): 0.6}
    for code, factor in product(("c2", "c3"), ("slant", "thickness")):
        values = data.factors[factor][len(data.train_images) :]
        within = [metrics.rank_correlation(getattr(codes, code)[rows], values[rows]) for rows in of_digit]
        assert sum(within) / 10 > least.get((code, factor), -0.35)
        assert sum(within) / 10 < 0.35 or (code, factor) in least


@pytest.fixture(scope="module")
def model(smoke_run) -> InfoGAN:
    return infogan.load(smoke_run.folder)


@pytest.fixture
def permuted(model) -> InfoGAN:
    model = copy.deepcopy(model)
    model.digit_of_category.copy_(PERMUTED)
    return model


def test_images_and_codes_have_their_shapes_types_and_ranges_and_a_seed_repeats_them(model, monkeypatch):
    before, random = tensors(model), torch.get_rng_state()
    images = model.generate(37, seed=1)
    assert (images.shape, images.dtype, model.generate().shape) == ((37, 1, 28, 28), torch.float32, (1, 1, 28, 28))
    assert (0 <= images.min() < images.max() <= 1, images.requires_grad) == (True, False)
    whole = model.encode(images.double())
    monkeypatch.setattr(infogan, "EVAL_BATCH", 2)
    torch.testing.assert_close(model.generate(37, seed=1), images, rtol=0, atol=1e-5)
    for n in (37, 1, 0):
        found = model.encode(images[:n])  # an image does not depend on those beside it
        assert [tuple(part.shape) for part in found] == [(n, 10), (n, 2)]
        assert torch.equal(found.continuous, torch.stack((found.c2, found.c3), dim=1))
        assert all(part.dtype == torch.float32 and not part.requires_grad for part in found)
        torch.testing.assert_close(tuple(found), tuple(part[:n] for part in whole), rtol=1e-3, atol=1e-4)
    assert not torch.equal(model.generate(37, seed=2), images)
    assert not torch.equal(model.generate(4), model.generate(4))
    assert (moved(model, before), torch.equal(torch.get_rng_state(), random)) == (set(), True)


def test_given_codes_are_for_one_or_all_images_and_leave_the_others_as_the_seed_has_them(permuted):
    latent = permuted.sample_latent(3, sampling_generator(5))
    c2, c3 = latent.continuous.unbind(dim=1)
    with torch.no_grad():
        of_average = permuted.ema(latent.joined(10))
    known = [{}, {"c2": c2}, {"category": latent.category, "c3": c3}, {"noise": latent.noise}]
    known.append({"continuous": latent.continuous})
    for given in (*known, {"digit": PERMUTED[latent.category]}):
        assert torch.equal(permuted.generate(3, seed=5, **given), of_average)
    for name, value, other in (("digit", 3, 4), ("category", 3, 4), ("c2", 2, 0), ("c3", -0.5, 0.5)):
        one, each, another = ({name: given} for given in (value, torch.full((3,), value), other))
        assert torch.equal(permuted.generate(3, seed=1, **one), permuted.generate(3, seed=1, **each))
        assert not torch.equal(permuted.generate(3, seed=1, **one), permuted.generate(3, seed=1, **another))


def test_a_class_takes_any_of_its_categories_and_one_without_is_refused_as_is_a_code_that_is_not_there():
    model = untrained(categories=4, continuous=3)
    model.digit_of_category.copy_(torch.tensor([1, 1, 0, 3]))
    same = {"noise": torch.ones(50, 62), "continuous": torch.zeros(50, 3)}
    of_category = [model.generate(50, category=category, **same)[0] for category in range(4)]
    found = {
        [torch.equal(image, one) for one in of_category].index(True) for image in model.generate(50, digit=1, **same)
    }
    assert found == {0, 1}
    assert torch.equal(model.generate(50, digit=3, **same)[0], of_category[3])
    for given, line in (
        ({"digit": 2}, "one of [0, 1, 3], not 2"),
        ({"c5": 0.0}, "no c5; the continuous codes are c2, c3, c4"),
    ):
        with pytest.raises(ValueError, match=re.escape(line)):
            model.generate(**given)


def test_sheets_have_a_row_per_category_in_the_order_of_the_digits_and_move_one_code(permuted):
    sizes, (noise, _, continuous) = torch.tensor([[0.0], [1.0], [0.4]]), permuted.sample_latent(10, seeded())
    rows = PERMUTED.argsort().tolist()
    found = look.sheets(permuted, infogan.Latent(noise, None, continuous), rows)
    model = SimpleNamespace(generate=lambda n, noise, **rest: noise.view(n, 1, 1, 1).expand(n, 1, 28, 28))
    model.config = permuted.config
    assert look.typical(model, sizes) == 2, "its images are nearest to the mean"
    sweep, one = torch.linspace(-2, 2, 9), noise[look.typical(permuted, noise)].expand(9, -1)
    columns = {"c1": (noise, *continuous.T), "c2": (one, sweep, 0), "c3": (one, 0, sweep)}
    for (category, digit), (code, (z, c2, c3)) in product(enumerate(PERMUTED.tolist()), columns.items()):
        expected = permuted.generate(len(z), category=category, noise=z, c2=c2, c3=c3).squeeze(1)
        torch.testing.assert_close(found[code][digit], expected, rtol=0, atol=1e-5)


def test_a_loaded_model_encodes_as_the_run_measured(model, smoke_run):
    data, report = render_digits(train=512, test=256), json.loads((smoke_run.folder / "report.json").read_text())
    digit = model.digit_of_category[model.encode(to_float(data.test_images)).c1.argmax(dim=1)]
    assert (digit == data.test_labels).float().mean().item() == pytest.approx(report["accuracy"])


# What the codes do, of a model that draws bars --------------------------------------------------------------------

NUMBERS = {"c2_slant_rank_correlation": -0.684, "c2_thickness_rank_correlation": 0.1}
NUMBERS |= {"c3_slant_rank_correlation": 0.2, "c3_thickness_rank_correlation": 0.6}


class Bars:
    """Upright strokes that c2 makes thick and c3 slants to the left, by as much as `lean` says for their category."""

    digit_of_category = PERMUTED
    ema = discriminator = None
    lean = torch.ones(10)
    config = Config(categories=10)

    def sample_latent(self, n: int, random: torch.Generator) -> infogan.Latent:
        return infogan.Latent(torch.zeros(n, 62), torch.zeros(n), torch.rand(n, 2, generator=random) * 2 - 1)

    def generate(self, n: int, category: Tensor, continuous: Tensor, noise: Tensor) -> Tensor:
        c2, c3 = continuous.T
        x, y = torch.arange(28) - 13.5, torch.arange(28)[:, None] - 13.5
        across = x - (0.5 * c3 * self.lean[category])[:, None, None] * y
        stroke = (2.5 + c2[:, None, None] - across.abs()).clamp(0, 1)
        return (stroke * (y.abs() < 10))[:, None]


@pytest.fixture
def run(tmp_path, tiny, monkeypatch):
    """A run in its last epoch. `saved` has what the functions that write a file were called with."""
    run = SimpleNamespace(
        folder=tmp_path, data=tiny, title="a run", epoch=7, headline="a run after 7 epochs", rows=[{"accuracy": 0.5}]
    )
    run.config = Bars.config
    run.picture_due, run.attempt, run.saved = True, lambda save, *given: save(run, *given), []
    for room, name in ((figures, "save_grid"), (plots, "save_figure"), (plots, "save_confusion"), (look, "save_page")):
        monkeypatch.setattr(room, name, lambda path, *call: run.saved.append((path.name, *call)))
    monkeypatch.setattr(plots, "save_curves", lambda *_, **__: None)
    return run


@pytest.mark.parametrize("lean", [torch.ones(10), torch.tensor([1.0, -1.0] * 5)])
def test_each_code_is_measured_with_its_direction_and_none_if_half_of_the_digits_go_the_other_way(monkeypatch, lean):
    monkeypatch.setattr(look, "PER_CATEGORY", 60)
    monkeypatch.setattr(Bars, "lean", lean)
    found = look.measure_codes(Bars(), seeded())
    assert found["c2_thickness_rank_correlation"] > 0.95
    assert found["c3_slant_rank_correlation"] == pytest.approx(-lean.mean().item(), abs=0.05)
    assert abs(found["c2_slant_rank_correlation"]) < 0.2
    assert abs(found["c3_thickness_rank_correlation"]) < 0.2


def test_pictures_say_what_their_rows_and_columns_are_and_what_each_code_does(run, monkeypatch):
    monkeypatch.setattr(look, "sheets", lambda *_: dict.fromkeys(("c1", "c2", "c3"), torch.full((10, 9, 28, 28), 0.5)))
    look.save_epoch(run, Bars(), infogan.Latent(None, None, None), guide.PseudoLabels(0, 0, 10, 2, CPU))
    look.save_codes(run, Bars(), infogan.Latent(None, None, None), NUMBERS)
    *grids, (name, figure) = run.saved
    first = ", named by the class it matches; columns share one noise vector"
    swept = ("c1", first), *((code, f"; {code} goes from -2 to 2 (trained on -1 to 1)") for code in ("c2", "c3"))
    for (grid, _, title, rows, columns), (code, what) in zip(grids, swept, strict=True):
        said = f"a run after 7 epochs, c1 right on 50.0% of the test images\neach row is one value of c1{what}"
        assert (grid, title, rows) == (f"epoch_007_{code}.png", said, list(DIGITS))
        assert " ".join(columns) == ("" if code == "c1" else "-2 -1.5 -1 -0.5 0 0.5 1 1.5 2")
    titles = ["c1: the category", "c2: slant", "c3: thickness"]
    assert (name, [axes.get_title() for axes in figure.axes]) == ("codes.png", titles)


def test_the_accuracy_of_the_guide_is_a_line_among_the_curves_once_it_is_known(run, monkeypatch):
    shown, labels = [], guide.PseudoLabels(128, 64, 10, 2, CPU)
    run.config = dataclasses.replace(run.config, continuous=4)

    def save(_, panels: dict, reference: dict, limits: dict, names: dict, **how: object) -> None:
        assert {column for columns in panels.values() for column in columns} <= names.keys()
        shown.append((reference, limits))

    monkeypatch.setattr(plots, "save_curves", save)
    run.rows = [{"accuracy": 0.97}, {"loss_d": 1.0}]
    look.save_curves(run, labels)
    labels.c1.copy_((run.data.train_labels + 3) % 10)
    for wrong in (4, 16):
        labels.test_c1.copy_((run.data.test_labels + 3) % 10)
        labels.test_c1[:wrong] = (run.data.test_labels[:wrong] + 1) % 10
        look.save_curves(run, labels)
    found = [(reference[panel], limits[panel]) for reference, limits in shown for panel in limits if "c1" in panel]
    assert found == [((0.1, "chance"), (0.9, 1)), ((60 / 64, "guide"), (0.9, 1)), ((48 / 64, "guide"), (0, 1))]


def test_the_animation_of_the_codes_moves_one_after_the_other_and_begins_each_where_it_ends(run, monkeypatch):
    monkeypatch.setattr(figures, "save_sweep", lambda path, sweeps: run.saved.append(sweeps))
    look.save_codes_animation(run, Bars(), Bars().sample_latent(3, seeded()))
    [sweeps] = run.saved
    assert {code: sweep.shape for code, sweep in sweeps.items()} == dict.fromkeys(("c2", "c3"), (20, 10, 28, 28))
    ink, slant = sweeps["c2"].sum(dim=(1, 2, 3)), metrics.slant(sweeps["c3"][:, :1])
    assert ((ink.argmax(), ink.argmin()), (slant.argmin(), slant.argmax())) == ((5, 15), (5, 15))
    assert torch.equal(sweeps["c2"][0], sweeps["c3"][0])


def test_agreement_with_labels_is_that_of_the_test_images_under_the_map_of_the_training_images(run):
    train, test = np.zeros((2, 10, 10), dtype=int)
    train[range(10), PERMUTED] = test[range(10), PERMUTED] = 9
    train[0, 7], test[0, 7] = 10, 30  # 7 is the majority of category 0, but of training images category 9's
    model, tables = SimpleNamespace(digit_of_category=torch.arange(10)), look.Tables(train, test)
    run.means = lambda: dict.fromkeys(LOGGED, 0.25)
    row = infogan.measure(run, model, tables)
    assert torch.equal(model.digit_of_category, PERMUTED)
    found = look.compare_with_labels(run, model, tables)
    assert found["accuracy"] == row["accuracy"] == pytest.approx(90 / 120)
    assert (found["accuracy_majority_map"], found["classes"]) == (pytest.approx(111 / 120), ", ".join(DIGITS))
    [(name, shown, _, rows, columns, _)] = run.saved
    assert (name, shown.diagonal().tolist()) == ("confusion.png", [9] * 10)
    assert (rows[0], rows[3], columns) == ("category 3 (mostly 0)", "category 0 (mostly 3)", DIGITS)


# {classes: names of the rows} of ten categories; of two classes the even ones are cats
NAMES = {DIGITS: DIGITS, (): [f"category {PERMUTED.tolist().index(number)}" for number in range(10)]}
NAMES["cat", "dog"] = [f"{name}{again}" for name in ("cat", "dog") for again in ("", " b", " c", " d", " e")]


@pytest.mark.parametrize("classes", NAMES)
def test_the_page_names_the_classes_and_what_a_code_follows_in_either_direction(run, monkeypatch, classes):
    run.data, model = dataclasses.replace(run.data, classes=classes), Bars()
    if len(classes) == 2:
        model.digit_of_category = torch.arange(10) % 2
    monkeypatch.setattr(look, "typical", lambda *_: 3)
    look.save_explorer(run, model, NUMBERS, 0.75 if classes else None)
    [(name, *_, about)] = run.saved
    new = "digits" if classes == DIGITS else "images"
    said = f"7 epochs: trained without labels{f'; recognises 75.0 % of new {new}' if classes else ''}"
    assert (name, about["title"]) == ("explore.html", "InfoGAN: three controls it taught itself")
    assert about["subtitle"] == f"{run.data.title}, {said}"
    assert about["kind"] == ("digit" if classes == DIGITS else "class")
    assert [name for name, _ in about["picks"]] == list(NAMES[classes])
    shown = [model.digit_of_category[category].item() for _, category in about["picks"]]
    assert shown == ([0] * 5 + [1] * 5 if len(classes) == 2 else list(range(10)))
    assert (about["first"], len(about["noises"]), {*map(len, about["noises"])}) == (3, look.SEEDS, {62})
    ends = {"slant": ("leans right", "leans left"), "thickness": ("thin", "thick")}
    said = [(code["name"], code["does"], code["ends"]) for code in about["codes"]]
    assert said == [("c2", "slant", ends["slant"]), ("c3", "thickness", ends["thickness"])]
    assert about["codes"][0]["note"] == "rank correlation: slant −0.68, thickness +0.10"
    assert (len(about["example"]), about["run"]) == (784, run.folder.as_posix())


def test_a_code_is_named_by_what_it_clearly_follows():
    known = {"slant": (0.9, 0.1), "slant + thickness": (-0.31, 0.4), "unclear": (0.29, -0.29), "thickness": (0.0, -0.3)}
    for said, (slant, thickness) in known.items():
        numbers = {"c2_slant_rank_correlation": slant, "c2_thickness_rank_correlation": thickness}
        assert look.meaning(numbers, "c2") == said
    lines = look.scorecard({**NUMBERS, "info_c1_nats": 2.2925, "info_c1_maximum_nats": 2.3026})
    assert (list(lines), lines["L_I(c1)"]) == (["c2", "c3", "L_I(c1)"], "2.292 of 2.303 nats")
    assert lines["c2"].startswith("slant (")
