"""Shapes, sizes and first weights of the networks, and what each training step moves and leaves alone."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

import infogan
from common import init
from common.run import evaluating, frozen
from infogan import Config, Discriminator, Generator, Posterior, discriminator_step, draw_latent, generator_step
from tests.helpers import CPU, FLOAT32, buffer_names, moved, parameter_names, tensors

BATCH = 16
Codes = tuple[torch.Tensor, torch.Tensor]  # of real images, as the guide reads them
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclasses.dataclass
class Pair:
    """Both networks with their optimisers, and one batch."""

    generator: Generator
    discriminator: Discriminator
    optimizer_g: torch.optim.Optimizer
    optimizer_d: torch.optim.Optimizer
    reals: torch.Tensor
    latent: infogan.Latent

    def step_discriminator(self, config: Config, codes: Codes | None = None) -> dict[str, torch.Tensor]:
        fakes = self.generator(self.latent.joined())
        return discriminator_step(
            self.discriminator, self.optimizer_d, self.reals, codes, fakes, self.latent, config, FLOAT32
        )

    def step_generator(self, config: Config) -> dict[str, torch.Tensor]:
        fakes = self.generator(self.latent.joined())
        return generator_step(self.discriminator, self.optimizer_g, fakes, self.latent, config, FLOAT32)


def new_pair(learn_variance: bool = False) -> Pair:
    """The same weights and the same batch at every call."""
    torch.manual_seed(0)
    generator, discriminator = Generator(62), Discriminator(learn_variance)
    init.dcgan_(generator)
    init.dcgan_(discriminator)
    optimizers = [torch.optim.Adam(network.parameters(), lr=1e-3) for network in (generator, discriminator)]
    latent = draw_latent(BATCH, 62, torch.Generator().manual_seed(1))
    return Pair(generator, discriminator, *optimizers, torch.rand(BATCH, 1, 28, 28), latent)


CODES: Codes = (torch.arange(BATCH) % 10, torch.linspace(-0.9, 0.9, 2 * BATCH).view(2, BATCH).T)


def floats(values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Without what BatchNorm counts."""
    return {name: value for name, value in values.items() if value.is_floating_point()}


@pytest.fixture
def pair() -> Pair:
    return new_pair()


# Shapes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise_size", [1, 62])
def test_generator_draws_images_from_noise_and_codes(noise_size):
    latent = draw_latent(5, noise_size, torch.Generator().manual_seed(0))
    assert latent.joined().shape == (5, noise_size + 10 + 2)
    images = Generator(noise_size)(latent.joined())
    assert images.shape == (5, 1, 28, 28)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1


def test_generator_goes_through_7_and_14_pixels():
    shapes = []
    network = Generator(62)
    for layer in (*network.dense, *network.upsample):
        layer.register_forward_hook(lambda module, _, out: shapes.append((type(module).__name__, tuple(out.shape))))
    network(torch.randn(3, 74))
    assert [shape for name, shape in shapes if name in ("Linear", "ConvTranspose2d")] == [
        (3, 1024),
        (3, 7 * 7 * 128),
        (3, 64, 14, 14),
        (3, 1, 28, 28),
    ]


def test_discriminator_and_posterior_share_1024_features():
    network = Discriminator(learn_variance=False)
    features = network.features(torch.rand(5, 1, 28, 28))
    assert network.convolutions(torch.rand(5, 1, 28, 28)).shape == (5, 128, 7, 7)
    assert features.shape == (5, 1024)
    assert network.judge(features).shape == (5, 2)
    assert [tuple(part.shape) for part in network.posterior(features)] == [(5, 10), (5, 2), (5, 2)]


@pytest.mark.parametrize(("learn_variance", "outputs"), [(False, 12), (True, 14)])
def test_posterior_reads_mean_and_variance_from_their_own_columns(learn_variance, outputs):
    network = Discriminator(learn_variance).eval()
    last = network.head_q[-1]
    assert last.out_features == outputs
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.arange(float(outputs)))
    q = network.posterior(torch.randn(3, 1024))
    assert q.logits[0].tolist() == list(range(10))
    assert q.mean[0].tolist() == [10, 11]
    expected = [12, 13] if learn_variance else [0, 0]
    assert q.log_variance[0].tolist() == pytest.approx(expected)


def test_latent_is_noise_then_one_hot_then_continuous():
    latent = draw_latent(50, 62, torch.Generator().manual_seed(3))
    joined = latent.joined()
    assert torch.equal(joined[:, :62], latent.noise)
    assert torch.equal(joined[:, 62:72].argmax(dim=1), latent.category)
    assert torch.equal(joined[:, 62:72].sum(dim=1), torch.ones(50))
    assert torch.equal(joined[:, 72:], latent.continuous)


def test_latent_comes_from_the_prior():
    latent = draw_latent(20_000, 3, torch.Generator().manual_seed(0))
    assert latent.noise.mean(dim=0).abs().max() < 0.03
    assert latent.noise.std(dim=0).sub(1).abs().max() < 0.03
    assert torch.bincount(latent.category, minlength=10).div(20_000).sub(0.1).abs().max() < 0.01
    assert latent.continuous.abs().max() <= 1
    assert latent.continuous.mean(dim=0).abs().max() < 0.02
    assert latent.continuous.var(dim=0).sub(1 / 3).abs().max() < 0.01


# Sizes ----------------------------------------------------------------------------------------------------------


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_generator_has_the_parameters_of_the_papers_layers():
    network = Generator(62)
    # The last layer alone has a bias; before a BatchNorm one would do nothing.
    assert count(network.dense) == 74 * 1024 + 2 * 1024 + 1024 * 6272 + 2 * 6272
    assert count(network.upsample) == 128 * 64 * 16 + 2 * 64 + 64 * 16 + 1


@pytest.mark.parametrize(("learn_variance", "outputs"), [(False, 12), (True, 14)])
def test_discriminator_has_the_parameters_of_the_papers_layers(learn_variance, outputs):
    network = Discriminator(learn_variance)
    assert count(network.convolutions) == 64 * 16 + 64 + 64 * 128 * 16 + 2 * 128
    assert count(network.dense) == 6272 * 1024 + 2 * 1024
    assert count(network.head_d) == 1024 * 2 + 2
    assert count(network.head_q) == 1024 * 128 + 2 * 128 + 128 * outputs + outputs
    assert count(network) == sum(count(part) for part in network.children())


def test_leaky_slopes_are_those_of_the_paper():
    slopes = [m.negative_slope for m in Discriminator(learn_variance=False).modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.1] * 4


# First weights --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", [Generator(62), Discriminator(True)], ids=["G", "D"])
def test_init_visits_every_parameter(network):
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    init.dcgan_(network)
    assert [name for name, value in network.named_parameters() if not value.isfinite().all()] == []


@pytest.mark.parametrize("network", [Generator(62), Discriminator(False)], ids=["G", "D"])
def test_init_draws_weights_from_normal_0_002_and_gains_from_normal_1_002(network):
    torch.manual_seed(0)
    init.dcgan_(network)
    for name, layer in network.named_modules():
        if not isinstance(getattr(layer, "weight", None), nn.Parameter):
            continue
        weight = layer.weight.detach()
        mean = 1.0 if isinstance(layer, NORMS) else 0.0
        doubt = 5 * 0.02 / weight.numel() ** 0.5
        assert weight.mean().item() == pytest.approx(mean, abs=doubt), name
        assert weight.std().item() == pytest.approx(0.02, abs=doubt), name
        if layer.bias is not None:
            assert torch.equal(layer.bias, torch.zeros_like(layer.bias)), name


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


@pytest.mark.parametrize(
    "layer",
    [
        nn.PReLU(),
        nn.LayerNorm(4),
        nn.GroupNorm(2, 4),
        nn.Embedding(10, 4),
        nn.GRU(4, 4),
        nn.Conv1d(1, 1, kernel_size=3),
        nn.MultiheadAttention(4, 2),
        Scaled(),
        nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_init_refuses_a_layer_it_has_no_recipe_for(layer):
    with pytest.raises(TypeError, match="no initialisation"):
        init.dcgan_(nn.Sequential(nn.Linear(4, 4), layer))


def test_init_accepts_layers_without_parameters():
    init.dcgan_(nn.Sequential(nn.Linear(4, 4, bias=False), nn.BatchNorm1d(4, affine=False), nn.ReLU()))


# What a step moves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("learn_variance", [False, True])
@pytest.mark.parametrize("guided", [False, True])
def test_discriminator_step_moves_the_trunk_and_both_heads_and_nothing_of_the_generator(learn_variance, guided):
    pair = new_pair(learn_variance)
    fakes = pair.generator(pair.latent.joined())
    before_g, before_d = tensors(pair.generator), tensors(pair.discriminator)
    config, codes = Config(learn_variance=learn_variance), CODES if guided else None
    discriminator_step(pair.discriminator, pair.optimizer_d, pair.reals, codes, fakes, pair.latent, config, FLOAT32)
    assert moved(pair.discriminator, before_d) == set(before_d)
    assert moved(pair.generator, before_g) == set()
    assert all(parameter.grad is None for parameter in pair.generator.parameters())


def test_generator_step_moves_the_generator_and_nothing_of_the_discriminator(pair):
    before_g, before_d = tensors(pair.generator), tensors(pair.discriminator)
    pair.step_generator(Config())
    assert moved(pair.generator, before_g) == set(before_g)
    assert moved(pair.discriminator, before_d) == set()
    assert all(parameter.grad is None for parameter in pair.discriminator.parameters())
    assert all(parameter.requires_grad for parameter in pair.discriminator.parameters())
    assert all(layer.track_running_stats for layer in pair.discriminator.modules() if isinstance(layer, NORMS))


def test_the_generator_is_judged_by_statistics_of_its_own_batch(pair):
    normed = []
    pair.discriminator.dense[1].register_forward_hook(lambda module, inputs, out: normed.append(out.detach()))
    pair.step_generator(Config())
    assert normed[0].mean(dim=0).abs().max() < 1e-5
    assert pair.discriminator.training


def test_reals_and_fakes_pass_the_norms_separately(pair):
    batches = []
    pair.discriminator.dense[1].register_forward_hook(lambda module, inputs, out: batches.append(len(out)))
    pair.step_discriminator(Config())
    assert batches == [BATCH, BATCH]
    assert pair.discriminator.dense[1].num_batches_tracked.item() == 2


def test_steps_report_what_they_computed(pair):
    config = Config(learning_rate_d=0.0)
    numbers = pair.step_discriminator(config) | pair.step_generator(config)
    assert set(numbers) == {"loss_d", "loss_g", "d_real", "d_fake", "c1_nll", "c2_error", "c3_error"}
    assert all(value.shape == () and value.isfinite() for value in numbers.values())


def test_the_information_term_moves_the_shared_trunk():
    updates = []
    for weight in (1.0, 2.0):
        pair = new_pair()
        pair.step_discriminator(Config(info_weight=weight))
        updates.append(pair.discriminator.dense[0].weight.grad)
    assert not torch.allclose(*updates)


def test_the_generator_follows_the_information():
    updates = []
    for weight in (0.0, 1.0):
        pair = new_pair()
        pair.step_generator(Config(info_weight=weight))
        updates.append(pair.generator.dense[0].weight.grad)
    assert not torch.allclose(*updates)


# The guide ------------------------------------------------------------------------------------------------------


def test_the_guides_codes_move_the_trunk_and_both_heads_by_their_weight():
    """The head of D feels them through the next step's features alone, so after two steps."""
    usual, weighed, other = new_pair(), new_pair(), new_pair()
    for _ in range(2):
        usual.step_discriminator(Config(guide_weight=1.0), CODES)
        weighed.step_discriminator(Config(guide_weight=2.0), CODES)
        other.step_discriminator(Config(guide_weight=1.0), (CODES[0].flip(0), CODES[1]))
    for pair in (weighed, other):
        differ = moved(pair.discriminator, tensors(usual.discriminator))
        assert differ >= parameter_names(usual.discriminator)


def test_q_learns_to_read_the_guides_codes_from_real_images(pair):
    config = Config(info_weight=1e-6)  # hardly any information on drawn images, which Q could learn from as well
    seen = [pair.step_discriminator(config, CODES) for _ in range(30)]
    for name in ("guide_c1_nll", "guide_c2_error", "guide_c3_error"):
        assert seen[-1][name] < 0.5 * seen[0][name], name


def test_without_a_guide_nothing_of_it_is_looked_at(pair):
    assert not {name for name in pair.step_discriminator(Config()) if name.startswith("guide")}
    assert {name for name in pair.step_discriminator(Config(), CODES) if name.startswith("guide")} == {
        "guide_c1_nll",
        "guide_c2_error",
        "guide_c3_error",
    }


# The average, and the step sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "expected"), [(0.0, 8.0), (0.25, 10.0), (0.75, 14.0), (1.0, 16.0)])
def test_the_average_is_the_exact_mix_of_every_weight_and_statistic(share, expected):
    averaged, generator = Generator(5), Generator(5)
    for network, value in ((averaged, 8.0), (generator, 16.0)):
        for tensor in network.state_dict().values():
            tensor.fill_(value)
    infogan.average_weights(averaged, generator, torch.tensor(share))
    for name, value in averaged.state_dict().items():
        assert value.unique().tolist() == [expected if value.is_floating_point() else 8.0], name
    assert all(value.unique().tolist() == [16.0] for value in generator.state_dict().values())


def test_an_update_adds_the_generator_as_it_then_is_to_the_average():
    torch.manual_seed(0)
    players = infogan.build(Config(), CPU)
    reals, random = torch.rand(BATCH, 1, 28, 28), torch.Generator().manual_seed(0)
    before = tensors(players.averaged)
    infogan.update(players, reals, CODES, torch.tensor(1.0), random, Config(), FLOAT32)
    after = tensors(players.averaged)
    assert all(torch.equal(value, players.generator.state_dict()[name]) for name, value in floats(after).items())
    assert not any(torch.equal(value, before[name]) for name, value in floats(after).items())
    infogan.update(players, reals, None, torch.tensor(0.5), random, Config(), FLOAT32)
    for name, value in floats(tensors(players.averaged)).items():
        expected = (after[name] + players.generator.state_dict()[name]) / 2
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-7)
        assert not torch.equal(value, after[name]), name


@pytest.mark.parametrize(
    ("decay_from", "expected"),
    [
        (0.4, [1.0, 1.0, 1.0, 0.51, 0.02]),
        (0.0, [1.0, 0.804, 0.608, 0.314, 0.02]),
        (1.0, [1.0, 1.0, 1.0, 1.0, 1.0]),
    ],
)
def test_step_sizes_fall_evenly_to_2_percent_from_where_they_are_told(decay_from, expected):
    found = [infogan.step_size(progress, decay_from) for progress in (0.0, 0.2, 0.4, 0.7, 1.0)]
    assert found == pytest.approx(expected)


# Information weight 0: the plain GAN, with Q watching ----------------------------------------------------------

PLAIN = Config(info_weight=0.0)


def with_another_q(pair: Pair) -> Pair:
    with torch.no_grad():
        for parameter in pair.discriminator.head_q.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)))
    return pair


def after_both_steps(pair: Pair) -> Pair:
    pair.step_discriminator(PLAIN)
    pair.step_generator(PLAIN)
    return pair


def test_plain_gan_updates_generator_trunk_and_d_whatever_q_is():
    usual, other = after_both_steps(new_pair()), after_both_steps(with_another_q(new_pair()))
    assert moved(other.generator, tensors(usual.generator)) == set()
    differ = moved(other.discriminator, tensors(usual.discriminator))
    assert {name for name in differ if not name.startswith("head_q")} == set()
    assert differ >= {name for name in parameter_names(usual.discriminator) if name.startswith("head_q")}


def test_plain_gan_fits_the_head_of_q(pair):
    head = pair.discriminator.head_q
    before = tensors(head)
    losses = [pair.step_discriminator(PLAIN)["c1_nll"].item() for _ in range(30)]
    assert moved(head, before) == set(before)
    assert losses[-1] < 0.5 * losses[0]


def test_plain_gan_moves_everything_of_d(pair):
    before = tensors(pair.discriminator)
    pair.step_discriminator(PLAIN)
    assert moved(pair.discriminator, before) == set(before)


# Looking moves nothing ------------------------------------------------------------------------------------------


def test_a_training_pass_moves_buffers_and_a_look_does_not(pair):
    before = tensors(pair.generator)
    pair.generator(pair.latent.joined())
    assert moved(pair.generator, before) == buffer_names(pair.generator)
    before = tensors(pair.generator)
    with evaluating(pair.generator):
        pair.generator(pair.latent.joined())
    assert moved(pair.generator, before) == set()
    assert pair.generator.training


def test_pictures_and_measurements_move_no_buffer_and_restore_the_mode(pair, tiny):
    before_g, before_d = tensors(pair.generator), tensors(pair.discriminator)
    infogan.code_sheets(pair.generator, draw_latent(10, 62, torch.Generator().manual_seed(0)), torch.arange(10))
    infogan.measure_codes(pair.generator, 62, torch.Generator().manual_seed(0))
    for part in ("train", "test"):
        infogan.read_categories(pair.discriminator, tiny, part, FLOAT32)
    assert moved(pair.generator, before_g) == moved(pair.discriminator, before_d) == set()
    assert pair.generator.training
    assert pair.discriminator.training


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_restores_the_mode_after_an_error(pair, training):
    pair.generator.train(training)
    seen = []

    def look_and_fail():
        seen.extend((pair.generator.training, torch.is_grad_enabled()))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), evaluating(pair.generator):
        look_and_fail()
    assert seen == [False, False]
    assert pair.generator.training is training
    assert torch.is_grad_enabled()


def test_frozen_lets_gradients_through_and_not_in(pair):
    images = torch.rand(4, 1, 28, 28, requires_grad=True)
    with frozen(pair.discriminator):
        out = pair.discriminator.judge(pair.discriminator.features(images))
    out.sum().backward()
    assert images.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in pair.discriminator.parameters())


def test_frozen_gives_the_output_of_a_training_pass(pair):
    images = torch.rand(4, 1, 28, 28)
    twin = copy.deepcopy(pair.discriminator)
    with frozen(pair.discriminator):
        found: Posterior = pair.discriminator.posterior(pair.discriminator.features(images))
    torch.testing.assert_close(found.logits, twin.posterior(twin.features(images)).logits)
