"""What an update needs: device and modes, initial weights, optimisers, random streams, the guide's pseudo-labels."""

import copy
import itertools
import math
import subprocess
import sys
from contextlib import nullcontext, suppress
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import BadInput
from common.data import render_digits, to_float
from common.data.inputs import sampling_generator
from common.look import metrics
from common.run.config import ROOT
from common.train import device, guide, init, optim
from common.train.random import stream, stream_seed
from tests.helpers import OnMeta

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
FLOAT32 = torch.autocast("cpu", enabled=False)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return render_digits(train=128, test=1).train_images


# Device -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "auto"), [(["cuda", "mps"], "cuda"), (["mps"], "cpu"), ([], "cpu")], ids=str)
def test_auto_is_cuda_or_the_cpu_and_a_device_that_is_not_there_is_refused(monkeypatch, there, auto):
    for name, module in (("cuda", torch.cuda), ("mps", torch.backends.mps)):
        monkeypatch.setattr(module, "is_available", lambda name=name: name in there)
    assert device.choose_device("auto").type == auto
    for name in ("cuda", "mps", "cpu"):
        with nullcontext() if name in (*there, "cpu") else pytest.raises(BadInput, match=f"^--device {name}: "):
            assert device.choose_device(name).type == name


@pytest.mark.parametrize(("native", "auto"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_if_the_hardware_multiplies_it(monkeypatch, native, auto):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native or including_emulation)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native, "avx2": True})
    assert [device.choose_precision("auto", where) for where in (CPU, CUDA, MPS)] == [auto, auto, "float32"]
    assert device.choose_precision("bfloat16", CPU) == "bfloat16"


def test_torch_has_its_default_modes_within_and_the_callers_afterwards():
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode():
            with suppress(ZeroDivisionError), device.default_torch_modes():
                weight = nn.Linear(2, 1).weight
                weight.sum().backward()
                raise ZeroDivisionError
            after = torch.ones(1)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (weight.dtype, after.dtype, after.is_inference()) == (torch.float32, torch.float64, True)


def every_layer() -> nn.Sequential:
    """A layer of each type that the scripts have: images (n, 1, 4, 4) -> (n, 3)."""
    convolutions = (nn.Conv2d(1, 60, 3), nn.BatchNorm2d(60), nn.ConvTranspose2d(60, 40, 2, stride=2))
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(40 * 16, 30), nn.BatchNorm1d(30), nn.Linear(30, 3))


@pytest.mark.parametrize("training", [True, False])
def test_eval_mode_leaves_the_mode_as_it_was_even_after_an_error(training):
    network = every_layer().train(training)
    with suppress(ZeroDivisionError), device.eval_mode(network):
        assert [network.training, network[1].training, torch.is_grad_enabled()] == [False] * 3
        raise ZeroDivisionError
    assert [network.training, network[1].training, torch.is_grad_enabled()] == [training, training, True]


def test_a_frozen_network_passes_gradients_on_and_keeps_its_weights_and_statistics():
    x, network = torch.rand(4, 1, 4, 4, requires_grad=True), every_layer()
    twin, before = copy.deepcopy(network), copy.deepcopy(network.state_dict())
    with suppress(ZeroDivisionError), device.frozen(network):
        out = network(x)
        raise ZeroDivisionError
    torch.testing.assert_close(out, twin(x))  # with the batch's own statistics
    (out * torch.arange(12).view(4, 3)).sum().backward()
    assert x.grad.abs().max() > 0
    assert all(weight.grad is None and weight.requires_grad for weight in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    network(x)
    assert network[1].num_batches_tracked == network[5].num_batches_tracked == 1


FAULTS = """
import resource, torch
from common.train.device import keep_freed_memory
keep_freed_memory()
def faults():
    parts = [torch.zeros(1 << 20) for _ in range(8)]  # 32 MiB in all, freed on return
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first, *_, last = [faults() for _ in range(21)]
print(last - first)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_freed_memory_is_kept_for_the_next_update():
    found = subprocess.check_output([sys.executable, "-c", FAULTS], cwd=ROOT, timeout=120)
    assert int(found) < 20 * 8 * 1024 / 10  # fewer than a tenth of the pages that twenty updates touch


# Initial weights, optimisers, random streams ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dcgan_", "gaussian_", "fan_in_uniform_"])
def test_initial_weights_have_their_distribution_and_biases_are_zero(name):
    torch.manual_seed(0)
    network = every_layer()
    for parameter in network.parameters():
        nn.init.constant_(parameter, math.nan)
    getattr(init, name)(network, *([0.3] if name == "gaussian_" else []))
    for of, value in network.named_parameters():
        norm, error = of[0] in "15", 4 / value.numel() ** 0.5
        if of.endswith("bias") or (norm and name == "fan_in_uniform_"):
            assert value.eq(float(of.endswith("weight"))).all(), of
        elif name == "fan_in_uniform_":
            scaled = value.detach().flatten() * {"0": 9, "2": 160, "4": 640, "6": 30}[of[0]] ** 0.5
            assert scaled.abs().max() <= 1
            assert (scaled.sort().values - torch.linspace(-1, 1, len(scaled))).abs().max() < error, of
        else:
            std, mean = (0.3, 0) if name == "gaussian_" else (0.02, float(norm))
            assert [value.mean().item(), value.std().item()] == pytest.approx([mean, std], abs=std * error), of


def test_learning_rates_fall_linearly_and_are_multiples_of_the_first_and_adam_steps_by_them():
    for start, factors in {0.4: [1, 1, 1, 0.51, 0.02], 1.0: [1] * 5}.items():
        assert [optim.linear_decay(x, start, 0.02) for x in (0.0, 0.2, 0.4, 0.7, 1.0)] == pytest.approx(factors)
    network = nn.Linear(1, 1)
    optimizer, other = optim.adam(network, 0.5, beta1=0.5), optim.adam(nn.Linear(1, 1), 1e-3)
    before, x = network.weight.item(), torch.ones(1, 1)
    for factor in (0.1, 0.5):
        optim.scale_learning_rates(factor, optimizer, other)
    assert [each.param_groups[0]["lr"] for each in (optimizer, other)] == [0.25, 5e-4]
    optim.optimizer_step(optimizer, network(x).sum())
    assert before - network.weight.item() == pytest.approx(0.25, rel=1e-4)  # Adam's first step is as long as its rate
    optim.optimizer_step(optimizer, -network(x).sum())
    assert network.weight.grad.item() == -1  # the last step's gradient is gone
    mean = (0.5 * 0.5 - 0.5) / (1 - 0.5**2)  # of the gradients 1 and -1; that of their squares is 1
    assert before - network.weight.item() == pytest.approx(0.25 + 0.25 * mean, rel=1e-4)


def test_the_average_takes_in_weights_and_statistics_alike_by_a_decay_that_warms_up():
    known = {(0.3, 9, 100): 0.5, (0.3, 69, 100): 7 / 8, (0.3, 79, 100): 10 / 11, (0.3, 99, 100): 30 / 31}
    known |= {(1, 4, 100): 5 / 6, (0, 8, 9): 0}
    assert {given: optim.ema_decay(*given) for given in known} == pytest.approx(known)
    network = every_layer()
    average = copy.deepcopy(network)
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        old.fill_(8)
        new.fill_(18)
    for expected in (10.5, 12.375):
        optim.update_ema(average, network, decay=0.75)
        for name, value in average.state_dict().items():
            assert value.eq(8 if name.endswith("num_batches_tracked") else expected).all(), name


def test_every_seed_name_and_number_has_a_stream_of_its_own_the_same_every_time():
    before = torch.get_rng_state()
    all_of_them = [*itertools.product((0, 1, 2**32 - 1), ("weights", "training", "trainings"), (0, 1)), (0, "ö", 0)]
    numbers, again = ([torch.rand(3, generator=stream(*which)).tolist() for which in all_of_them] for _ in range(2))
    assert numbers == again
    assert len(set(map(tuple, numbers))) == len(all_of_them)
    assert stream_seed(0, "weights") == 684422423885802804  # other seeds would be other results of every run
    seeds = [sampling_generator(seed).initial_seed() for seed in (0, 0, 1, None, None)]
    assert (seeds[0] == seeds[1], len({*seeds})) == (True, 4), "samples are repeatable with a seed, and new without"
    assert torch.equal(torch.get_rng_state(), before)


# The guide --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", [1.0, 2.5])
def test_mutual_information_is_that_of_the_joint_table(balance):
    p, q = (2 * torch.randn(2, 40, 10, generator=seeded())).softmax(dim=-1).double()
    joint = sum(torch.outer(a, b) + torch.outer(b, a) for a, b in zip(p, q, strict=True)) / 80
    m = joint.sum(dim=0)
    expected = (joint * (joint / (m * m[:, None]) ** balance).log()).sum().item()
    assert guide.mutual_information(p, q, balance).item() == pytest.approx(expected, abs=1e-6)
    one, other, ln_10 = torch.eye(10), torch.eye(10).flip(1), math.log(10)
    assert guide.mutual_information(one, other, balance).item() == pytest.approx((2 * balance - 1) * ln_10, abs=1e-4)


def test_alignment_of_known_factors_on_any_scale():
    grid = torch.cartesian_prod(torch.arange(-2.0, 3), torch.arange(-2.0, 3))  # two factors without correlation
    mixed = torch.stack((grid.sum(dim=1), grid[:, 1]), dim=1)
    known = [(grid * torch.tensor([0.01, 300.0]) + 7, 2.0), (grid.flip(1), -2.0), (mixed, 0.5**0.5 - 0.5 + 1)]
    for change, expected in (*known, (-grid, -2.0), (torch.zeros_like(grid), 0.0)):
        assert guide.factor_alignment(change, grid).item() == pytest.approx(expected, abs=1e-5)


def bar(shear: float = 0.0) -> Tensor:
    """An upright stroke (1, 1, 28, 28) with smooth edges; a positive shear moves its top to the right."""
    x, y = torch.arange(28) - 13.5, torch.arange(28)[:, None] - 13.5
    return ((2.5 - (x + shear * y).abs()).clamp(0, 1) * (7.5 - y.abs()).clamp(0, 1))[None, None]


def test_slant_is_the_shear_of_a_bar_wherever_it_is_and_however_pale():
    for shear in (-0.5, -0.2, 0.0, 0.3, 0.6):
        for x in (bar(shear), bar(shear).roll((3, -2), dims=(2, 3)), 0.3 * bar(shear)):
            assert guide.slant(x).item() == pytest.approx(shear, abs=0.03)
    assert guide.slant(torch.zeros(2, 1, 28, 28)).tolist() == [0, 0]


def test_a_sheared_and_shifted_image_comes_out_like_the_upright_one(digits):
    x = to_float(digits)
    rows = torch.tensor([[1.0, 0.25, 0.14], [0.0, 1.0, -0.07]]).expand(len(x), -1, -1)
    copies = F.grid_sample(x, F.affine_grid(rows, list(x.shape), align_corners=False), align_corners=False)
    assert (guide.slant(copies) - guide.slant(x)).abs().min() > 0.2
    upright, again = (guide.deskewed((images * 255).byte().squeeze(1)) for images in (x, copies))
    assert (upright.shape, upright.dtype) == ((len(x), 196), torch.float32)
    assert (upright - again).abs().mean() < 0.1 * (upright - upright.roll(1, dims=0)).abs().mean()


@pytest.mark.parametrize(("n", "parts"), [(2, 1), (30, 1), (1100, 1), (60, 4), (1700, 3)])
def test_the_nearest_is_that_of_a_direct_search_within_each_random_part(n, parts):
    """1,100 rows in one part are three blocks, two of 500 and a rest."""
    features = torch.randn(n, 20, generator=seeded(1)) + 5
    distance = torch.cdist(features.double(), features.double()).fill_diagonal_(math.inf)
    part_of = torch.empty(n, dtype=torch.long)
    for number, part in enumerate(torch.randperm(n, generator=seeded(3)).tensor_split(parts)):
        part_of[part] = number
    distance[part_of[:, None] != part_of] = math.inf
    assert torch.equal(guide.nearest(features, parts, seeded(3)), distance.argmin(dim=1))
    if n < 100:
        rough = distance.gather(1, guide.nearest(features, parts, seeded(3), torch.bfloat16)[:, None]).squeeze(1)
        assert (rough / distance.amin(dim=1)).max() < 1.1


def test_small_sets_have_fewer_parts(monkeypatch):
    monkeypatch.setattr(guide, "deskewed", lambda images: images)
    monkeypatch.setattr(guide, "nearest", lambda features, parts, *_: torch.tensor([parts]))
    for n, parts in {100: [1] * 5, 899: [2] * 5, 3000: [5, 5, 10, 10, 10], 60_000: [5, 5, 20, 60, 200]}.items():
        assert guide.neighbours(torch.zeros(n), seeded()).tolist() == [parts]


def test_copies_of_a_bar_lean_and_thicken_by_what_was_applied():
    x = bar()
    copies, applied = guide.random_affine(x.expand(3000, -1, -1, -1), seeded())
    assert (copies.shape, 0 <= copies.min() < copies.max() <= 1) == ((3000, 1, 28, 28), True)
    slant, thickness = guide.slant(copies), metrics.thickness(copies) / metrics.thickness(x)
    assert (applied[:, 0] - slant).abs().mean() < 0.05
    assert metrics.rank_correlation(applied[:, 0], slant) > 0.97
    assert metrics.rank_correlation(applied[:, 1], thickness) > 0.7  # a copy's size counts as well
    assert (applied[:, 1].min().item(), applied[:, 1].max().item()) == pytest.approx((-0.4, 0.4), abs=0.01)
    ink = copies.sum(dim=(1, 2, 3))
    size = (ink / x.sum())[applied[:, 1].abs() < 0.04]
    assert (size.min().item(), size.max().item()) == pytest.approx((0.85**2, 1.15**2), abs=0.05)
    for dims in ((1, 2), (1, 3)):
        centre = copies.sum(dim=dims) @ (torch.arange(28) - 13.5) / ink
        assert 2.8 < centre.abs().max() < 4.9  # a shift of 2.8, seen through shear (1.3), angle and scale (1.15)
        assert centre.mean().abs() < 0.2


def test_a_fifth_of_the_pairs_are_self_pairs_and_they_alone_train_slant_and_thickness(monkeypatch, digits):
    """Training on rendered digits would not show the neighbours: their own copies are enough to tell them apart."""
    images, pairs = digits[:100], (torch.arange(100)[:, None] + torch.arange(10, 60, 10)) % 100
    monkeypatch.setattr(guide, "random_affine", lambda x, random: (x, torch.randn(len(x), 2, generator=random)))
    network, kept = guide.ClusterNet(10), []
    network.register_forward_hook(lambda _, given, out: kept.extend([*given, *out]))
    network.register_forward_hook(lambda _, given, out: [values.retain_grad() for values in out] and None)
    guide.train_step(network, optim.adam(network, 1.0), images, pairs, 0.0, seeded(), FLOAT32)
    same = (kept[0].flatten(1)[:, None] == to_float(images).flatten(1)).all(dim=2)
    batch, others = same.int().argmax(dim=1).chunk(2)
    assert torch.equal(batch[:20], others[:20])
    columns = (pairs[batch[20:]] == others[20:, None]).nonzero()
    assert torch.equal(columns[:, 0], torch.arange(80))  # one of its neighbours each
    assert columns[:, 1].unique().tolist() == [0, 1, 2, 3, 4]
    logits, factors = (values.grad.abs().amax(dim=1) > 0 for values in kept[1:])
    assert logits.all()
    assert factors.nonzero().flatten().tolist() == [*range(20), *range(100, 120)]


@pytest.mark.parametrize(("progress", "balance", "rate"), [(0.05, 3, 5.1e-4), (0.55, 2, 9.02e-4), (1.0, 1, 2e-5)])
def test_balance_and_learning_rate_over_the_updates(monkeypatch, digits, progress, balance, rate):
    seen, information = [], guide.mutual_information
    monkeypatch.setattr(guide, "mutual_information", lambda p, q, b: (seen.append(b), information(p, q, b))[1])
    network = guide.ClusterNet(10)
    optimizer = optim.adam(network, guide.LEARNING_RATE)
    guide.train_step(network, optimizer, digits[:8], torch.zeros(8, 5).long(), progress, seeded(), FLOAT32)
    assert seen == pytest.approx([balance])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_training_raises_what_is_to_be_maximised(digits):
    torch.manual_seed(0)
    network, random, reached = guide.ClusterNet(10), seeded(), []
    optimizer, pairs = optim.adam(network, 1e-3), guide.neighbours(digits, random)
    copies, applied = guide.random_affine(to_float(digits), seeded(1))
    for updates in (0, 30):
        for _ in range(updates):
            guide.train_step(network, optimizer, digits, pairs, 0.3, random, FLOAT32)
        before, after = (guide.predict(network, x, FLOAT32) for x in (digits, (copies * 255).byte().squeeze(1)))
        pair = before[0].softmax(dim=1), after[0].softmax(dim=1)
        alignment = guide.factor_alignment(after[1] - before[1], applied)
        reached.append([*(guide.mutual_information(*pair, balance) for balance in (1.0, 3.0)), alignment])
    # The entropy is largest at first and must stay: with the loss turned round, 4 are left of 9.2.
    assert (torch.tensor(reached[1]) - torch.tensor(reached[0]) > torch.tensor([0.001, -0.2, 1])).all()


def test_a_training_step_waits_for_no_value_and_leaves_nothing_on_the_cpu(monkeypatch):
    with torch.device("meta"):  # before anything is replaced: PyTorch keeps the functions that it finds at first use
        network, images, pairs = guide.ClusterNet(10), torch.zeros(300, 28, 28).byte(), torch.zeros(300, 5).long()
        random = SimpleNamespace(device=images.device)
    for name in ("rand", "randint"):  # there is no random generator on the meta device
        make = getattr(torch, name)
        monkeypatch.setattr(torch, name, lambda *size, generator, device, make=make: make(*size, device=device))
    optimizer = torch.optim.SGD([{"params": network.parameters(), "initial_lr": 0.1}])  # Adam counts on the CPU
    with OnMeta():
        guide.train_step(network, optimizer, images, pairs, 0.5, random, FLOAT32)
    assert all(weight.grad.is_meta for weight in network.parameters())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_seed_alone_decides_the_pseudo_labels_even_of_fewer_images_than_categories(digits, precision):
    torch.manual_seed(12)
    before = torch.get_rng_state()
    one, same, other = (
        guide.fit_pseudo_labels(digits[:7], digits[:9], 12, seed, precision, updates=6) for seed in (1, 1, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert all(map(torch.equal, one, same))
    assert not torch.equal(one[1], other[1])
    c1, continuous, _, test_c1 = one
    assert torch.equal(test_c1[:7], c1)
    assert (c1.shape, c1.dtype, c1.max() <= 11) == ((7,), torch.int64, True)
    assert (continuous.shape, continuous.dtype, continuous.abs().max() < 1) == ((7, 2), torch.float32, True)


@pytest.mark.parametrize("kinds", [1, 8, 10])
def test_pure_categories_share_the_more_information_the_more_there_are(monkeypatch, kinds):
    category, number = torch.arange(1000) % kinds, torch.arange(1000)
    monkeypatch.setattr(guide, "predict", lambda network, images, _: (F.one_hot(category[images], 10),))
    found = guide.neighbour_information(guide.ClusterNet(10), number, (number + kinds) % 1000, FLOAT32)
    assert found == pytest.approx(math.log(kinds), abs=0.05)


def test_the_network_whose_neighbours_share_most_information_gives_the_pseudo_labels(monkeypatch, digits):
    asked, information = [], iter([0.2, 0.9, 0.5])
    number = torch.arange(100)
    values = torch.stack((number * 37 % 101, number * 59 % 101), dim=1)
    far = torch.where(number < 70, (number + 10) % 100, (number + 1) % 100)  # 70 of them in the same category
    out = F.one_hot(number % 10), values.float()
    monkeypatch.setattr(guide, "neighbours", lambda *_: torch.stack((number, number, number, number, far), dim=1))
    monkeypatch.setattr(guide, "neighbour_information", lambda network, *_: asked.append(network) or next(information))
    monkeypatch.setattr(guide, "predict", lambda network, *_: asked.append(network) or out)
    c1, continuous, agree, _ = guide.fit_pseudo_labels(digits[:100], digits[:0], 10, seed=0, updates=3)
    assert (len(asked), asked[3] is asked[4] is asked[1]) == (5, True)
    assert torch.equal(c1, number % 10)
    assert agree.item() == pytest.approx(0.7)
    below = (values < values[:, None]) & (c1 == c1[:, None])[:, :, None]
    torch.testing.assert_close(continuous, (below.sum(dim=1) + 0.5) / 5 - 1)


@pytest.mark.parametrize(("n", "updates"), [(100, 300), (1100, 500), (3000, 1000)])
def test_three_networks_start_with_weights_of_their_own_and_one_goes_on(monkeypatch, n, updates):
    steps, started, first = [], [], round(0.4 * updates)
    monkeypatch.setattr(guide, "train_step", lambda *given: steps.append(given[4] * updates))
    monkeypatch.setattr(guide, "neighbours", lambda *_: torch.zeros(n, 5).long())
    monkeypatch.setattr(guide, "neighbour_information", lambda network, *_: started.append(network) or 0.0)
    monkeypatch.setattr(guide, "predict", lambda *_: (torch.zeros(n, 10), torch.zeros(n, 2)))
    for seed in (0, 1):
        guide.fit_pseudo_labels(torch.zeros(n, 28, 28).byte(), torch.zeros(0), 10, seed)
    assert steps == pytest.approx(([*range(first)] * 3 + [*range(first, updates)]) * 2)
    assert len({network.category.weight.sum().item() for network in started}) == 6


FAILED = [(20, 0.81, None), (100, 0.79, "79% of neighbours"), (19, 0.95, "smallest category has 1.9% of")]


@pytest.mark.parametrize(("smallest", "agree", "expected"), FAILED)
def test_pseudo_labels_are_looked_up_by_the_index_of_the_image_and_show_a_failure(
    monkeypatch, smallest, agree, expected
):
    c1, values = torch.arange(1000).remainder(10), torch.rand(1000, 2)
    c1[(c1 == 3).nonzero()[smallest:]] = 4
    monkeypatch.setattr(guide, "fit_pseudo_labels", lambda *_: (c1, values, torch.tensor(agree), c1[:5]))
    batch = torch.tensor([17, 3, 3])
    for codes in range(4):
        labels = guide.PseudoLabels(1000, 5, 10, codes, CPU)
        assert not labels.fitted
        labels.fit(torch.zeros(1000, 28, 28), torch.zeros(5, 28, 28), seed=0)
        found, continuous = labels.lookup(batch)
        assert (labels.fitted, found.dtype, found.tolist()) == (True, torch.int64, [7, 3, 3])
        assert torch.equal(
            continuous, values[batch, : min(codes, 2)]
        )  # slant, then thickness, as far as they are asked
    failure = labels.failure()
    assert failure is None if expected is None else expected in failure
    none = guide.PseudoLabels(0, 0, 10, 2, CPU)  # without a guide
    assert (none.fitted, none.lookup(batch), none.failure()) == (True, None, None)


def test_what_shows_a_failure_depends_on_the_number_of_categories():
    labels = guide.PseudoLabels(1000, 0, 20, 2, CPU)
    labels.c1.copy_(torch.arange(1000) % 20)
    labels.c1[labels.c1 == 3] = 4
    labels.c1[:11] = 3  # of 50
    labels.neighbours_agree.fill_(0.65)
    assert labels.failure() is None
    labels.c1[:2] = 4
    assert "0.9% of the images" in labels.failure()
    labels.c1[:2], labels.neighbours_agree = 3, torch.tensor(0.63)
    assert "63% of neighbours" in labels.failure()
