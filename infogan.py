"""InfoGAN learns MNIST's ten digits, their slant and their stroke without a label.

    python infogan.py          # read first, then draw: accuracy 98.3 to 98.4 % on seeds 0 to 3, see README.md
    python infogan.py --paper  # the paper's recipe alone: which ten kinds of image c1 finds depends on the seed

Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial
Nets" (arXiv:1606.03657). A generator G draws an image from noise z and a code c: a category c1 (one of ten) and two
numbers c2 and c3. Beside the usual game against a discriminator D, a network Q must read the code back from the image,
which makes the code mean something.

The paper's objective asks that c1 can be read, not that it is the digit. So before the game a small network learns,
without a label, to read real images (common/guide.py): which of ten kinds, how slanted, how thick. Q must read the same
from real images, and what it reads there c1, c2 and c3 come to mean in drawn ones.

Departures from the paper: this guide, a larger step size of D, step sizes that fall, images drawn by a running average
of G; `--paper` takes all four back. Two more stay in both, as in the authors' code: the information term also trains
the layers that D and Q share (see `discriminator_step`), and the continuous codes weigh as much as the category. Labels
are read only after the fact, to say how well c1 agrees with the digits.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import BadInput, explorer, guide, images, init, metrics
from common.classifier import Judge, collapse
from common.compare import compare
from common.data import DIGITS, Dataset, checked, load_dataset, to_float
from common.run import (
    ROOT,
    Run,
    adam,
    captured,
    check_batch_size,
    check_fields,
    choose_device,
    choose_precision,
    evaluating,
    frozen,
    launch,
    mixed_precision,
    read_config,
    read_tensors,
    set_learning_rate,
)
from common.streams import stream_seed

CATEGORIES = 10  # c1 ~ Cat(10), uniform [paper C.1]
CONTINUOUS = 2  # c2, c3 ~ Uniform(-1, 1) [paper C.1]
SMOKE_UPDATES = 10  # of the guide in a smoke run


@dataclass(frozen=True)
class Config:
    # data
    dataset: str = "auto"  # mnist, fashion, kmnist, drawn, or a folder of images; auto: MNIST if it can be had
    data_dir: Path = ROOT / "data"  # where MNIST/raw is or will be, FashionMNIST/raw, KMNIST/raw
    # latents and posterior
    noise_size: int = 62  # numbers in z, standard normal [authors' code]
    learn_variance: bool = False  # Q predicts the variances of c2 and c3, too; off: fixed to 1 [authors' code]
    # optimisation
    epochs: int = 3  # passes over the training images [measured with a prototype]
    batch_size: int = 128  # images per update [authors' code]
    learning_rate_d: float = 8e-4  # Adam step size of D and Q; the paper's is 2e-4 [measured with a prototype]
    learning_rate_g: float = 1e-3  # Adam step size of G [paper C.1]
    decay_from: float = 0.4  # share of the updates after which both step sizes fall evenly to 2 %; 1: never
    beta1: float = 0.5  # Adam's decay of the first moment [paper C.1]
    info_weight: float = 1.0  # lambda of Eq. 6; 0: the plain GAN of Fig. 1, Q fitted but unseen by G [authors' code]
    continuous_weight: float = 1.0  # weight of c2 and c3 within L_I, relative to c1 [authors' code]
    guide_weight: float = 1.0  # beyond the paper: weight of the codes that the guide reads from real images; 0: none
    average: float = 0.999  # decay of the running average of G's weights that images are drawn from; 0: G itself
    seed: int = 0  # decides weights, order, codes and noise
    # machine
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: cuda if there, then mps, else cpu
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the hardware multiplies it
    # output
    out: Path = ROOT / "outputs"  # parent of the run folders
    resume: Path | None = None  # run folder to go on with, or to draw again
    compare: tuple[Path, ...] = ()  # run folders to show side by side, with what they differ in; trains nothing
    quiet: bool = False  # no bar and no line on the console, but for warnings and errors
    paper: bool = False  # the paper's recipe alone: no guide, its step sizes throughout, no average, 12 epochs
    smoke: bool = False  # a complete run in seconds on a few drawn digits, to check an installation

    PAPER: ClassVar[dict] = {
        "epochs": 12,
        "learning_rate_d": 2e-4,
        "decay_from": 1.0,
        "guide_weight": 0.0,
        "average": 0.0,
        "paper": True,
    }  # what `--paper` means; a flag given beside it still counts. From Python: Config(**Config.PAPER)

    def __post_init__(self):
        """Raises BadInput for a field of another type or out of range."""
        check_fields(
            self,
            noise_size=(1, 4096),
            learning_rate_d=(0, 1),
            learning_rate_g=(0, 1),
            beta1=(0, 0.9999),
            info_weight=(0, 1000),
            continuous_weight=(0, 1000),
            decay_from=(0, 1),
            guide_weight=(0, 1000),
            average=(0, 0.99999),
        )

    @property
    def guided(self) -> bool:
        """Whether codes of real images are read first. A plain GAN has no use for them."""
        return self.guide_weight > 0 and self.info_weight > 0


# Losses: pure functions of raw network outputs, in nats ----------------------------------------------------------


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z, c))): Eq. 1 for D, with D = softmax(logits)[1]; 2 ln 2 at zero logits.

    Softmax twice? No: `F.cross_entropy` contains the softmax, so the network must end in raw logits (n, 2). A second
    softmax would squeeze them into [0, 1], and the loss could never fall below ln(1 + e) - 1 = 0.313 per term.
    """
    real, fake = torch.ones_like(real_logits[:, 0]).long(), torch.zeros_like(fake_logits[:, 0]).long()
    return F.cross_entropy(real_logits, real) + F.cross_entropy(fake_logits, fake)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z, c)), the non-saturating form of Goodfellow et al. 2014; ln 2 at zero logits (n, 2)."""
    return F.cross_entropy(fake_logits, torch.ones_like(fake_logits[:, 0]).long())


def categorical_nll(logits: Tensor, category: Tensor) -> Tensor:
    """-E log Q(c1 | x): cross-entropy of raw logits (n, 10) with the drawn category (n,); ln 10 where Q is uniform."""
    return F.cross_entropy(logits, category)


def gaussian_nll(mean: Tensor, log_variance: Tensor, value: Tensor) -> Tensor:
    """-E log Q(c | x) of each continuous code, (n, 2) each -> (2,), with Q(c | x) = N(mean, exp(log_variance)).

    What does the "diagonal Gaussian" ask for? That Q names a mean and a variance for each code, and that c2 and c3 are
    independent given the image, so their log-densities add. With the variance fixed to 1 this is half the squared error
    plus a constant; the constant ln(2 pi) / 2 is kept, for without it L_I is no bound in nats.
    """
    return 0.5 * (math.log(2 * math.pi) + log_variance + (value - mean).square() / log_variance.exp()).mean(dim=0)


def information(c1_nll: Tensor, continuous_nll: Tensor, continuous_weight: float) -> Tensor:
    """L_I = H(c) - E[-log Q(c | x)] (Eq. 4 and 5), with the weight of c2 and c3 within it.

    H(c1) = ln 10, so the part of c1 is 0 where Q knows nothing and ln 10 = 2.303 where it knows c1. H(c2) = ln 2.
    """
    return math.log(CATEGORIES) - c1_nll + continuous_weight * (math.log(2) - continuous_nll).sum()


def gaussian_information(squared_error: float) -> float:
    """The bound that is reported for one continuous code, in nats: H(c) - ln(2 pi e s^2) / 2 with s^2 the mean
    squared error of Q's mean, which is the tightest L_I of any Gaussian of one width around it.

    A width fixed to 1, as in training, is far too wide for codes in (-1, 1): it gives the same gradient up to a factor,
    but a bound that never rises above ln 2 - ln(2 pi) / 2 = -0.226 nats, however well Q reads the code.
    """
    return math.log(2) - 0.5 * math.log(2 * math.pi * math.e * max(squared_error, 1e-12))


# Networks, as in the paper's appendix C.1 -------------------------------------------------------------------------


class Generator(nn.Module):
    """Draws images from 62 noise values, 10 one-hot values of c1 and 2 values c2, c3."""

    def __init__(self, noise_size: int):
        super().__init__()
        self.dense = nn.Sequential(
            nn.Linear(noise_size + CATEGORIES + CONTINUOUS, 1024, bias=False),
            nn.BatchNorm1d(1024),
            nn.ReLU(),
            nn.Linear(1024, 7 * 7 * 128, bias=False),
            nn.BatchNorm1d(7 * 7 * 128),
            nn.ReLU(),
        )
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(128, 64, kernel_size=4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 1, kernel_size=4, stride=2, padding=1),
        )

    def forward(self, latent: Tensor) -> Tensor:
        """(n, 74) -> images (n, 1, 28, 28) in [0, 1]."""
        # Channels last, as the convolutions want it on a CPU and on tensor cores: a view, not a copy.
        logits = self.upsample(self.dense(latent).view(-1, 7, 7, 128).permute(0, 3, 1, 2))
        # In float32: bfloat16 rounds the whites to 1, where the sigmoid has no slope to learn from.
        return logits.float().sigmoid()


class Discriminator(nn.Module):
    """D and Q: one trunk up to 1024 features, a head with two logits for D, a head for the codes for Q."""

    def __init__(self, learn_variance: bool):
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 64, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 128, kernel_size=4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.1),
        )
        self.dense = nn.Sequential(
            nn.Linear(7 * 7 * 128, 1024, bias=False),
            nn.BatchNorm1d(1024),
            nn.LeakyReLU(0.1),
        )
        self.head_d = nn.Linear(1024, 2)
        self.head_q = nn.Sequential(
            nn.Linear(1024, 128, bias=False),
            nn.BatchNorm1d(128),
            nn.LeakyReLU(0.1),
            nn.Linear(128, CATEGORIES + CONTINUOUS * (2 if learn_variance else 1)),
        )

    def features(self, x: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) in [0, 1] -> features (n, 1024), which both heads read."""
        # Flattened in channels-last order, the memory order of the convolutions.
        return self.dense(self.convolutions(x).permute(0, 2, 3, 1).flatten(1))

    def judge(self, features: Tensor) -> Tensor:
        """D: features (n, 1024) -> raw logits (n, 2) for fake and real."""
        return self.head_d(features).float()

    def posterior(self, features: Tensor) -> "Posterior":
        """Q: features (n, 1024) -> the parameters of Q(c | x)."""
        out = self.head_q(features).float()
        mean = out[:, CATEGORIES : CATEGORIES + CONTINUOUS]
        raw = out[:, CATEGORIES + CONTINUOUS :]
        # At least e^-6, a standard deviation of 0.05: the bound must not grow by certainty alone [assumption].
        log_variance = torch.logaddexp(raw, torch.full_like(raw, -6.0)) if raw.shape[1] else torch.zeros_like(mean)
        return Posterior(out[:, :CATEGORIES], mean, log_variance)


class Posterior(NamedTuple):
    """Q(c | x): logits (n, 10) of c1, mean and log-variance (n, 2) of c2 and c3."""

    logits: Tensor
    mean: Tensor
    log_variance: Tensor


# Sampling -------------------------------------------------------------------------------------------------------


class Latent(NamedTuple):
    """G's input in parts: noise (n, 62) standard normal, category (n,) in 0 … 9, continuous (n, 2) in (-1, 1)."""

    noise: Tensor
    category: Tensor
    continuous: Tensor

    def joined(self) -> Tensor:
        """-> (n, 62 + 10 + 2)"""
        one_hot = F.one_hot(self.category, CATEGORIES).to(self.noise.dtype)
        return torch.cat((self.noise, one_hot, self.continuous), dim=1)


def draw_latent(n: int, noise_size: int, random: torch.Generator) -> Latent:
    """Draw n latents from the prior, on the device of the random generator."""
    noise = torch.randn(n, noise_size, generator=random, device=random.device)
    category = torch.randint(CATEGORIES, (n,), generator=random, device=random.device)
    continuous = torch.rand(n, CONTINUOUS, generator=random, device=random.device) * 2 - 1
    return Latent(noise, category, continuous)


class Codes(NamedTuple):
    """What Q reads from images: c1 (n, 10) probabilities by category, c2 and c3 (n,) means."""

    c1: Tensor
    c2: Tensor
    c3: Tensor


class Model:
    """A trained InfoGAN in eval mode on the CPU: its averaged G draws images from codes, its Q reads codes from images.

    `digit_of_category` (10,) says which class each category of c1 matches.
    """

    def __init__(self, config: Config, generator: Generator, discriminator: Discriminator, digit_of_category: Tensor):
        self.config, self.generator, self.discriminator = config, generator.eval(), discriminator.eval()
        self.digit_of_category = digit_of_category

    @torch.no_grad()
    def generate(
        self,
        n: int = 1,
        digit: int | Tensor | None = None,
        category: int | Tensor | None = None,
        c2: float | Tensor | None = None,
        c3: float | Tensor | None = None,
        noise: Tensor | None = None,
        seed: int | None = None,
    ) -> Tensor:
        """Draw images (n, 1, 28, 28) float32 in [0, 1]. What is not given is drawn from the prior.

        digit, category: one for all images or (n,), in 0 … 9, and only one of the two; c2, c3: likewise, any finite
        number, trained on [-1, 1]; noise: (n, noise_size); seed: makes the drawing repeatable.
        Raises ValueError for a value out of range or of another shape.
        """
        if type(n) is not int or n < 1:
            raise ValueError(f"n must be a whole number of at least 1, not {n!r}")
        random = torch.Generator()
        random.seed() if seed is None else random.manual_seed(stream_seed(seed, "generate"))
        drawn = draw_latent(n, self.config.noise_size, random)
        if digit is not None and category is not None:
            raise ValueError("give digit or category, not both")
        if digit is not None:
            category_of_digit = torch.argsort(self.digit_of_category)
            chosen = category_of_digit[_ten("digit", digit, n)]
        else:
            chosen = drawn.category if category is None else _ten("category", category, n)
        continuous = drawn.continuous
        for column, (name, value) in enumerate((("c2", c2), ("c3", c3))):
            if value is not None:
                continuous[:, column] = _values(name, value, (n,))
        if noise is not None:
            drawn = drawn._replace(noise=_values("noise", noise, (n, self.config.noise_size)))
        return self.generator(Latent(drawn.noise, chosen, continuous).joined())

    @torch.no_grad()
    def encode(self, x: Tensor) -> Codes:
        """Read the codes of images (n, 1, 28, 28) with grey values in [0, 1]. Raises ValueError for anything else."""
        q = self.discriminator.posterior(self.discriminator.features(checked(x)))
        return Codes(q.logits.softmax(dim=1), q.mean[:, 0], q.mean[:, 1])


def _ten(name: str, value: int | Tensor, n: int) -> Tensor:
    chosen = torch.as_tensor(value)
    if chosen.is_floating_point() or chosen.dtype == torch.bool or chosen.shape not in ((), (n,)):
        raise ValueError(f"{name} must be one whole number or a tensor of {n}, not {value!r}")
    if chosen.min() < 0 or chosen.max() > 9:
        raise ValueError(f"{name} must lie in 0 … 9, not {value!r}")
    return chosen.long().expand(n)


def _values(name: str, value: float | Tensor, shape: tuple[int, ...]) -> Tensor:
    given = torch.as_tensor(value, dtype=torch.float32)
    if given.shape not in ((), shape) or (given.ndim == 0 and len(shape) > 1):
        raise ValueError(f"{name} must have shape {shape}, not {tuple(given.shape)}")
    if not given.isfinite().all():
        raise ValueError(f"{name} must be finite")
    return given.expand(shape)


def load(run_folder: str | Path) -> Model:
    """The model of a run folder. Reads weights only, never code. Raises BadInput for a folder without such a run."""
    folder = Path(run_folder)
    config = read_config(folder, Config)
    with torch.device("meta"):  # shapes without memory: the file must fit before anything is made from it
        generator, discriminator = Generator(config.noise_size), Discriminator(config.learn_variance)
    checkpoint = read_tensors(folder / "checkpoint.pt", averaged=generator, discriminator=discriminator)
    digit_of_category = checkpoint.get("digit_of_category")
    if not (
        isinstance(digit_of_category, Tensor)
        and digit_of_category.shape == (CATEGORIES,)
        and torch.equal(digit_of_category.sort().values, torch.arange(CATEGORIES))
    ):
        raise BadInput(f"{folder / 'checkpoint.pt'}: digit_of_category is no permutation of 0 … 9")
    return Model(config, generator, discriminator, digit_of_category)


# Training -------------------------------------------------------------------------------------------------------


def discriminator_step(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    reals: Tensor,
    codes: tuple[Tensor, Tensor] | None,
    fakes: Tensor,
    latent: Latent,
    config: Config,
    autocast: torch.autocast,
) -> dict[str, Tensor]:
    """min over D and Q of V(D, G) - lambda L_I. Moves the trunk and both heads; returns scalars to log.

    codes: what the guide read from the reals, c1 (n,) and continuous (n, 2). Q is to read it there as well: the same
    bound, on real images.

    Where to detach? The fakes, here, so that G is left alone, and nothing else: the information term trains the shared
    trunk as well as Q's head, as in the authors' code. Eq. 6 has L_I under the minimum over G and Q only; with a shared
    trunk that reading would need the features detached before Q's head. At lambda 0 they are: then Q
    only watches a plain GAN.
    """
    with autocast:
        # Two passes, so that BatchNorm never mixes the statistics of real and drawn images.
        real_features = discriminator.features(reals)
        real_logits = discriminator.judge(real_features)
        features = discriminator.features(fakes.detach())
        fake_logits = discriminator.judge(features)
        q = discriminator.posterior(features if config.info_weight else features.detach())
        q_real = discriminator.posterior(real_features) if codes else None
    game = discriminator_loss(real_logits, fake_logits)
    bound, seen = code_bound(q, latent.category, latent.continuous, config)
    loss = game - (config.info_weight or 1.0) * bound
    if codes:
        bound, read = code_bound(q_real, *codes, config)
        loss = loss - config.guide_weight * bound
        seen |= {f"guide_{name}": value for name, value in read.items()}
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return {
        "loss_d": game,
        "d_real": real_logits.softmax(dim=1)[:, 1].mean(),
        "d_fake": fake_logits.softmax(dim=1)[:, 1].mean(),
        **seen,
    }


def code_bound(q: "Posterior", c1: Tensor, continuous: Tensor, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """L_I of the codes c1 (n,) and continuous (n, 2) that Q should read, and the scalars to log."""
    c1_nll = categorical_nll(q.logits, c1)
    bound = information(c1_nll, gaussian_nll(q.mean, q.log_variance, continuous), config.continuous_weight)
    error = (q.mean.detach() - continuous).square().mean(dim=0)
    return bound, {"c1_nll": c1_nll, "c2_error": error[0], "c3_error": error[1]}


def generator_step(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    fakes: Tensor,
    latent: Latent,
    config: Config,
    autocast: torch.autocast,
) -> dict[str, Tensor]:
    """min over G of -E log D(G(z, c)) - lambda L_I, through D and Q. Moves G only; returns scalars to log."""
    with autocast, frozen(discriminator):
        features = discriminator.features(fakes)
        loss = game = generator_loss(discriminator.judge(features))
        if config.info_weight:
            bound, _ = code_bound(discriminator.posterior(features), latent.category, latent.continuous, config)
            loss = game - config.info_weight * bound
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return {"loss_g": game}


class Players(NamedTuple):
    """What an update moves: `averaged` is the running average of `generator`, the others are trained."""

    generator: Generator
    discriminator: Discriminator
    averaged: Generator
    optimizer_d: torch.optim.Optimizer
    optimizer_g: torch.optim.Optimizer


def build(config: Config, device: torch.device) -> Players:
    """Networks with weights from PyTorch's global random state, in the layout convolutions want, and Adam for each."""
    generator = Generator(config.noise_size)
    discriminator = Discriminator(config.learn_variance)
    init.dcgan_(generator)
    init.dcgan_(discriminator)
    generator.to(device, memory_format=torch.channels_last)
    discriminator.to(device, memory_format=torch.channels_last)
    optimizer_d = adam(discriminator, config.learning_rate_d, config.beta1)
    optimizer_g = adam(generator, config.learning_rate_g, config.beta1)
    return Players(generator, discriminator, copy.deepcopy(generator), optimizer_d, optimizer_g)


@torch.no_grad()
def average_weights(averaged: Generator, generator: Generator, share: Tensor) -> None:
    """averaged <- (1 - share) * averaged + share * generator, for every weight and every statistic of BatchNorm."""
    for kept, new in zip(averaged.state_dict().values(), generator.state_dict().values(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(new, share)


def update(
    players: Players,
    reals: Tensor,
    codes: tuple[Tensor, Tensor] | None,
    share: Tensor,
    random: torch.Generator,
    config: Config,
    autocast: torch.autocast,
) -> dict[str, Tensor]:
    """A step of D and Q, then one of G, on the same drawn images; then the average, to which G adds its share ().

    reals: (n, 1, 28, 28) in [0, 1]; codes: the guide's of these, if there is a guide.
    """
    generator, discriminator, averaged, optimizer_d, optimizer_g = players
    latent = draw_latent(len(reals), config.noise_size, random)
    with autocast:
        fakes = generator(latent.joined())
    seen_d = discriminator_step(discriminator, optimizer_d, reals, codes, fakes, latent, config, autocast)
    seen_g = generator_step(discriminator, optimizer_g, fakes, latent, config, autocast)
    average_weights(averaged, generator, share)
    return {**seen_d, **seen_g}


def step_size(progress: float, decay_from: float) -> float:
    """The factor of both step sizes after this share of all updates: 1 until `decay_from`, then evenly down to 2 %."""
    return 1.0 if progress <= decay_from else 1 - 0.98 * (progress - decay_from) / (1 - decay_from)


def schedule(players: Players, share: Tensor, updates: int, progress: float, config: Config) -> None:
    """Set both step sizes and G's share in the average for the next update.

    updates: how many are done; progress: their share of all. G's first shares are large, so that the average never
    holds the untrained weights for long.
    """
    factor = step_size(progress, config.decay_from)
    set_learning_rate(players.optimizer_d, config.learning_rate_d * factor)
    set_learning_rate(players.optimizer_g, config.learning_rate_g * factor)
    share.fill_(1 - min(config.average, (1 + updates) / (10 + updates)))


def main(config: Config) -> dict:
    """Train, measure, draw; return what report.json holds. Raises BadInput before anything is written."""
    if config.compare:
        return compare(config.compare, Config, config.out / "infogan", config.quiet)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    autocast = mixed_precision(device, precision)
    data = load_dataset(config.dataset, config.data_dir, config.smoke).to(device)
    check_batch_size(config, len(data.train_images))
    run = Run(config, "infogan", data, device, precision)

    torch.manual_seed(stream_seed(config.seed, "weights"))
    random = run.stream("training")
    pictures = draw_latent(10, config.noise_size, run.stream("pictures"))

    players = build(config, device)
    averaged, discriminator = players.averaged, players.discriminator
    codes = guide.unread(len(data.train_images), device) if config.guided else None
    digit_of_category = torch.arange(CATEGORIES)
    run.keep(
        **players._asdict(),
        random=random,
        digit_of_category=digit_of_category,
        **({f"guide_{name}": tensor for name, tensor in codes._asdict().items()} if codes else {}),
    )

    draw_reals(run, data)
    if run.step == 0:
        draw_epoch(run, data, averaged, pictures, digit_of_category)
    if codes and not codes.known:
        run.say("reading the images …")
        updates = SMOKE_UPDATES if config.smoke else None
        codes.take(guide.read(data.train_images, config.seed, precision, updates, run.watched))
        run.save()
        agree = f"read: {codes.neighbours_agree.item():.1%} are in one category with their far neighbour"
        run.say(f"{agree}  WARNING: {failed}" if (failed := guide_warning(codes, config)) else agree)
    share = torch.zeros((), device=device)  # of G's newest weights in the average

    def one_update(batch: Tensor) -> dict[str, Tensor]:
        reals = to_float(data.train_images.index_select(0, batch))
        return update(players, reals, codes and codes.of(batch), share, random, config, autocast)

    step = captured(one_update, device, random)
    for _ in run.remaining_epochs():
        for batch in run.batches():
            schedule(players, share, run.updates, run.progress, config)
            run.add(**step(batch))
        row = epoch_row(run.means())
        if data.classes:
            seen = {part: read_categories(discriminator, data, part, autocast) for part in ("train", "test")}
            digit_of_category.copy_(torch.from_numpy(metrics.one_to_one(seen["train"])))
            # c1 against the test labels, under the best one-to-one map from categories to classes
            row["accuracy"] = metrics.accuracy(seen["test"], digit_of_category.numpy())
        run.finish_epoch(row, warn=lambda rows: warning(rows, codes, config))
        draw_epoch(run, data, averaged, pictures, digit_of_category)
    return report(run, data, averaged, discriminator, pictures, digit_of_category, autocast, config, codes)


def guide_warning(codes: guide.Codes | None, config: Config) -> str | None:
    """What is wrong with the guide; None where nothing is, and in a smoke run: ten updates can't find ten kinds."""
    return codes.warning() if codes and not config.smoke else None


def warning(rows: list[dict[str, float]], codes: guide.Codes | None, config: Config) -> str | None:
    """What is wrong with a run: the guide, or a GAN that has collapsed. None where nothing is."""
    return "; ".join(filter(None, (guide_warning(codes, config), collapse(rows)))) or None


# Measuring and drawing: the only place where labels are read ------------------------------------------------------

MAP_IMAGES = 10_000  # training images whose labels fit the map from categories to digits
PIECE = 250  # images that are looked at, or drawn, at a time: memory is to stay that of training


def categories(discriminator: Discriminator, x: Tensor, autocast: torch.autocast) -> Tensor:
    """Q's most likely category (n,) of images (n, 28, 28) uint8, in eval mode."""
    with evaluating(discriminator), autocast:
        logits = [discriminator.posterior(discriminator.features(to_float(piece))).logits for piece in x.split(PIECE)]
        return torch.cat(logits).argmax(dim=1)


def read_categories(discriminator: Discriminator, data: Dataset, part: str, autocast: torch.autocast) -> np.ndarray:
    """How often Q's most likely category meets each label: (10, 10), in eval mode, on the test images or on the first
    10,000 training images."""
    x, labels = (data.train_images, data.train_labels) if part == "train" else (data.test_images, data.test_labels)
    found = categories(discriminator, x[:MAP_IMAGES], autocast)
    return metrics.contingency(found, labels[:MAP_IMAGES], CATEGORIES)


def epoch_row(mean: dict[str, float]) -> dict[str, float]:
    """The columns of metrics.csv that need no label: info_* on drawn images, guide_* on real ones."""
    row = {name: mean[name] for name in ("loss_d", "loss_g", "d_real", "d_fake")}
    for column, source in (("info", ""), ("guide", "guide_")):
        if f"{source}c1_nll" in mean:
            row[f"{column}_c1_nats"] = math.log(CATEGORIES) - mean[f"{source}c1_nll"]
            row |= {f"{column}_{c}_nats": gaussian_information(mean[f"{source}{c}_error"]) for c in ("c2", "c3")}
    return row


PER_CATEGORY = 200  # images that say what a code does


@torch.no_grad()
def measure_codes(generator: Generator, noise_size: int, random: torch.Generator) -> dict[str, float | str]:
    """What c2 and c3 do to drawn images: Spearman's rank correlation of each with slant and with stroke thickness.

    Each code is drawn from its prior with the other code and the noise, for PER_CATEGORY images of each category; the
    correlation is taken within a category and averaged over the ten, with its sign, so a code that slants half of the
    digits to the left and half to the right counts as nothing.
    """
    latent = draw_latent(PER_CATEGORY * CATEGORIES, noise_size, random)
    latent = latent._replace(category=torch.arange(CATEGORIES, device=random.device).repeat_interleave(PER_CATEGORY))
    x = draw_images(generator, latent)
    numbers = {}
    for column, code in enumerate(("c2", "c3")):
        found = {}
        for name, values in (("slant", metrics.slant(x)), ("thickness", metrics.thickness(x))):
            within = [
                metrics.rank_correlation(latent.continuous[rows, column], values[rows])
                for rows in torch.arange(len(x)).split(PER_CATEGORY)
            ]
            found[name] = sum(within) / CATEGORIES
            numbers[f"{code}_{name}_rank_correlation"] = found[name]
        best = max(found, key=lambda name: abs(found[name]))
        numbers[code] = f"{best} ({abs(found[best]):.2f})"
    return numbers


def draw_images(generator: Generator, latent: Latent) -> Tensor:
    """The images (n, 1, 28, 28) of n latents in eval mode, PIECE at a time."""
    with evaluating(generator):
        return torch.cat([generator(part) for part in latent.joined().split(PIECE)])


def code_sheets(generator: Generator, pictures: Latent, digit_of_category: Tensor) -> dict[str, Tensor]:
    """Images (10, columns, 28, 28) for c1, c2 and c3, one row per category in the order of the digits they match.

    c1: the columns share noise, c2 and c3. c2, c3: one code runs from -2 to 2, the other is 0, the noise is the same.
    """
    rows = torch.argsort(digit_of_category).to(pictures.noise.device)
    sheets = {}
    for column, code in ((None, "c1"), (0, "c2"), (1, "c3")):
        if column is None:
            noise, continuous = pictures.noise, pictures.continuous
        else:
            noise = pictures.noise[:1].expand(len(SWEEP), -1)
            continuous = torch.zeros(len(SWEEP), CONTINUOUS, device=noise.device)
            continuous[:, column] = torch.tensor(SWEEP, device=noise.device)
        columns = len(noise)
        latent = Latent(noise.repeat(CATEGORIES, 1), rows.repeat_interleave(columns), continuous.repeat(CATEGORIES, 1))
        with evaluating(generator):
            sheets[code] = generator(latent.joined()).view(CATEGORIES, columns, 28, 28)
    return sheets


def draw_reals(run: Run, data: Dataset) -> None:
    """reals.png: ten training images of every class; the first hundred where there are no classes."""
    if data.classes:
        rows = [data.train_images[data.train_labels == label] for label in range(len(data.classes))]
        shown = torch.cat([images.tiled(row, 1, 10) for row in rows])
    else:
        shown = images.tiled(data.train_images, 10, 10)
    images.save_grid(run.folder / "reals.png", shown / 255, f"{data.title}: training images", data.classes)


def row_names(data: Dataset) -> list[str]:
    """The names (10,) of a sheet's rows: the class that each category matches, or the category where there are none."""
    unnamed = "no class" if data.classes else "category {}"
    return [*data.classes, *[unnamed.format(row) for row in range(len(data.classes), CATEGORIES)]]


SWEEP = [-2 + 0.5 * step for step in range(9)]  # twice the trained range, as in the paper's Fig. 2
SHEETS = {
    "c1": "a row is a category of c1, named by the class it matches; a column is a noise",
    "c2": "a row is a category of c1; c2 goes from -2 to 2 (trained on -1 to 1)",
    "c3": "a row is a category of c1; c3 goes from -2 to 2 (trained on -1 to 1)",
}


def draw_epoch(run: Run, data: Dataset, generator: Generator, pictures: Latent, digit_of_category: Tensor) -> None:
    """epoch_NNN_c1.png, _c2.png, _c3.png and curves.png as of the epochs that are complete."""
    for code, sheet in code_sheets(generator, pictures, digit_of_category).items():
        columns = () if code == "c1" else [f"{value:g}" for value in SWEEP]
        title = f"{run.title}, epoch {run.epoch}\n{SHEETS[code]}"
        images.save_grid(run.folder / f"epoch_{run.epoch:03d}_{code}.png", sheet, title, row_names(data), columns)
    run.sparingly(
        lambda: images.save_curves(
            run.folder / "curves.png",
            run.rows,
            run.title,
            panels={
                "information on c1 [nats]": ["info_c1_nats", "guide_c1_nats"],
                "information on c2, c3 [nats]": ["info_c2_nats", "info_c3_nats", "guide_c2_nats", "guide_c3_nats"],
                "accuracy of c1 on test images": ["accuracy"],
                "losses [nats]": ["loss_d", "loss_g"],
                "mean probability of being real": ["d_real", "d_fake"],
            },
            limits={"information on c1 [nats]": (math.log(CATEGORIES), "maximum: ln 10")},
        )
    )


def draw_codes(run: Run, sheets: dict[str, Tensor], names: list[str], meaning: dict) -> None:
    """codes.png and .pdf: the three sheets side by side, with what each code does."""
    figure = images.new_figure(15, 6.4)
    panels = figure.subplots(1, 3, width_ratios=[sheet.shape[1] for sheet in sheets.values()])
    for axes, (code, sheet) in zip(panels, sheets.items(), strict=True):
        columns = sheet.shape[1]
        step = 30  # pixels from one image to the next
        page = F.pad(sheet.cpu().clamp(0, 1), (1, 1, 1, 1), value=1.0).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
        axes.imshow(page.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="none")
        does = meaning[code].replace("(", "(rank correlation ") if code in meaning else "the category"
        axes.set_title(f"{code}: {does}", fontsize=14)
        axes.set_yticks([step * row + step / 2 for row in range(CATEGORIES)], names, fontsize=13)
        if code == "c1":
            axes.set_xticks([])
            axes.set_xlabel("ten draws of noise, c2 and c3", fontsize=13)
        else:
            axes.set_xticks([step * column + step / 2 for column in range(columns)], [f"{v:g}" for v in SWEEP])
            axes.set_xlabel(f"{code}, trained on -1 to 1", fontsize=13)
        axes.tick_params(length=0, labelsize=13)
        axes.spines[:].set_visible(False)
    panels[0].set_ylabel("category of c1, by the class it matches", fontsize=13)
    figure.suptitle(f"{run.title}, epoch {run.epoch}", fontsize=14)
    images.save_figure(run.folder / "codes.png", figure)


@torch.no_grad()
def folded(generator: Generator) -> explorer.Layers:
    """G in eval mode as plain layers: each BatchNorm becomes a factor and a bias of the layer before it."""

    def fold(layer: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor]:
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        # The weight of a transposed convolution begins with its inputs.
        units = (-1, 1) if isinstance(layer, nn.Linear) else (1, -1, 1, 1)
        return layer.weight * factor.view(units), norm.bias - norm.running_mean * factor

    dense1, norm1, _, dense2, norm2, _ = generator.dense
    up1, norm3, _, up2 = generator.upsample
    return explorer.Layers(fold(dense1, norm1), fold(dense2, norm2), fold(up1, norm3), (up2.weight, up2.bias))


def draw_explorer(
    run: Run,
    data: Dataset,
    generator: Generator,
    pictures: Latent,
    digit_of_category: Tensor,
    meaning: dict,
    accuracy: float | None,
) -> None:
    """explore.html: the generator in a page, with a slider for c2 and one for c3, named after what they do."""
    codes = []
    for code in ("c2", "c3"):
        found = [f"{name} {meaning[f'{code}_{name}_rank_correlation']:+.2f}" for name in ("slant", "thickness")]
        note = f"rank correlation: {', '.join(found)}".replace("-", "−")
        codes.append({"name": code, "does": meaning[code].split(" (")[0], "note": note})
    order = torch.argsort(digit_of_category).tolist()
    usual = draw_latent(4096, pictures.noise.shape[1], run.stream("explorer"))
    usual = usual._replace(continuous=usual.continuous * 2)  # the sliders go to -2 and 2
    explorer.save_page(
        run.folder / "explore.html",
        folded(generator),
        usual.joined().cpu(),
        {
            "title": run.title,
            "subtitle": f"after {run.epoch} epochs"
            + (f"; c1 names the right class for {accuracy:.1%} of the test images" if accuracy is not None else ""),
            "kind": "digit" if data.classes == DIGITS else "class",
            "picks": list(map(list, zip(row_names(data), order, strict=True))),
            "codes": codes,
            "noise": pictures.noise[0].tolist(),
        },
    )


def report(
    run: Run,
    data: Dataset,
    generator: Generator,
    discriminator: Discriminator,
    pictures: Latent,
    digit_of_category: Tensor,
    autocast: torch.autocast,
    config: Config,
    codes: guide.Codes | None,
) -> dict:
    """The figures and report.json of a finished run."""
    meaning = measure_codes(generator, pictures.noise.shape[1], run.stream("measured codes"))
    draw_codes(run, code_sheets(generator, pictures, digit_of_category), row_names(data), meaning)
    guided = {"guide_neighbours_agree": codes.neighbours_agree.item()} if codes else {}
    agreement, samples, shares = {}, {}, {}
    if data.classes:
        agreement = compare_with_labels(run, data, discriminator, digit_of_category, autocast)
        samples, shares = judge_samples(run, data, generator, pictures, digit_of_category, config.data_dir)
        if codes:
            table = metrics.contingency(codes.c1.long(), data.train_labels, CATEGORIES)
            guided["guide_accuracy"] = metrics.accuracy(table, metrics.one_to_one(table))
    frames = sorted(run.folder.glob("epoch_*_c1.png"))
    images.save_animation(run.folder / "training.gif", frames)
    draw_explorer(run, data, generator, pictures, digit_of_category, meaning, agreement.get("accuracy"))
    last = run.rows[-1]
    return run.report(
        {
            "dataset": data.name,
            "epochs": run.epoch,
            **agreement,
            **{name: last[name] for name in ("info_c1_nats", "info_c2_nats", "info_c3_nats")},
            "info_c1_maximum_nats": math.log(CATEGORIES),
            **guided,
            **meaning,
            **samples,
            # The shares of these samples stand for those of the last epochs, in which nobody counted.
            "warning": warning([{**row, **shares} for row in run.rows], codes, config),
            "seconds": sum(row["seconds"] for row in run.rows),
        }
    )


def compare_with_labels(
    run: Run, data: Dataset, discriminator: Discriminator, digit_of_category: Tensor, autocast: torch.autocast
) -> dict[str, float]:
    """How well c1 agrees with the classes, and confusion.png."""
    train, test = (read_categories(discriminator, data, part, autocast) for part in ("train", "test"))
    order = torch.argsort(digit_of_category).numpy()
    rows = [f"{category} → {name}" for category, name in zip(order, row_names(data), strict=True)]
    counts, title = test[order, : len(data.classes)], f"{run.title}: c1 on the test images"
    images.save_confusion(run.folder / "confusion.png", counts, title, rows, data.classes)
    return {
        "classes": ", ".join(data.classes),
        "accuracy": metrics.accuracy(test, digit_of_category.numpy()),
        "accuracy_majority_map": metrics.accuracy(test, metrics.majority(train)),
        "normalised_mutual_information": metrics.normalised_mutual_information(test),
    }


def judge_samples(
    run: Run, data: Dataset, generator: Generator, pictures: Latent, digit_of_category: Tensor, data_dir: Path
) -> tuple[dict[str, float], dict[str, float]]:
    """What a classifier of the classes, itself trained on the labels, finds in drawn images: for the report, and the
    share of each class."""
    judge = Judge(data, data_dir, run.say)
    # As many as there are test images: a Fréchet distance of two finite sets depends on their sizes.
    latent = draw_latent(len(data.test_images), pictures.noise.shape[1], run.stream("judged samples"))
    judged = judge(draw_images(generator, latent), meant=digit_of_category[latent.category.cpu()])
    figures = {
        "drawn_as_meant": judged["as_meant"],
        "share_distance": judged["share_distance"],
        "frechet": judged["frechet"],
        "frechet_floor": judge.floor,
        "frechet_in_floors": judged["frechet"] / judge.floor,
        "classifier_accuracy": judge.accuracy,
    }
    return figures, {name: judged[name] for name in judge.columns}


if __name__ == "__main__":
    launch(main, Config)
