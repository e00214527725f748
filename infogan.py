"""InfoGAN learns MNIST's ten digits, their slant and their thickness without a label.

    python infogan.py          # accuracy 98.5 to 98.7 % on seeds 900 to 909; 9 minutes on two cores with bfloat16
    python infogan.py --paper  # the paper's recipe, nothing added: which ten clusters c1 finds depends on the seed

Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial
Nets" (arXiv:1606.03657). A generator G makes an image from noise z and a code c: a category c1 (one of ten) and two
numbers c2 and c3; `categories` and `continuous` set how many. A network Q must predict the code from the image, which
makes the code mean something.

The paper's objective asks that c1 can be predicted, not that it is the digit. So a small network first clusters the
real images without a label (common/train/guide.py) into ten categories, and measures each image's slant and thickness.
Q must predict these pseudo-labels from real images, and so c1, c2 and c3 come to mean the same in generated ones.

Departures from the paper: this guide, a larger learning rate of D, learning rates that fall, less weight of L_I for G,
a gradient penalty, averaged weights, normal noise; `--paper` takes all seven back. Others stay: L_I also trains the
layers that D and Q share, Q's deviation is fixed (both as in the authors' code), G and D see the same generated images.
Labels never reach training: they say which digit a category is, and how well c1 agrees with the digits.
"""

import copy
import math
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data import to_float
from common.data.inputs import image_batch, indices, numbers, sampling_generator, whole_number
from common.look import metrics
from common.look.figures import save_reals
from common.look.infogan import Tables, code_names, columns, contingency_tables, loss_columns, report, save_epoch
from common.run.checkpoint import load_model
from common.run.cli import run_cli
from common.run.config import Settings
from common.run.run import Run
from common.train import init
from common.train.device import default_torch_modes, eval_mode, frozen
from common.train.guide import PseudoLabels
from common.train.optim import adam, ema_decay, linear_decay, optimizer_step, scale_learning_rates, update_ema
from common.train.random import sample, stream_seed

EVAL_BATCH = 250  # images at a time in a trained model, so that memory stays that of training
PENALTY_EVERY = 4  # updates from one gradient penalty to the next, which then counts as often (arXiv:1912.04958)


@dataclass(frozen=True)
class Config(Settings):
    # latents and posterior
    categories: int = 0  # values of c1, 2 to 100, all as likely; 0: as many as the set has classes, 10 without labels
    continuous: int = 2  # continuous codes c2, c3, …, each uniform on -1 to 1 [paper 7.2]
    noise_size: int = 62  # numbers in z [paper C.1]
    noise: Literal["normal", "uniform"] = "normal"  # their distribution: standard normal, or uniform on -1 to 1
    learn_variance: bool = False  # Q predicts the variances of c2, c3, …, too; off: fixed to 1 [authors' code]
    # optimisation
    epochs: int = 3  # passes over the training images; more if fewer than 20,000 [tuned: docs/notes.md]
    batch_size: int = 128  # images per update [authors' code]
    learning_rate_d: float = 8e-4  # Adam's for D and Q; the paper's is 2e-4 [tuned: docs/notes.md]
    learning_rate_g: float = 1e-3  # Adam's for G [paper C.1]
    decay_from: float = 0.4  # share of the updates after which both learning rates fall evenly to 2 %; 1: never
    beta1: float = 0.5  # Adam's decay of the first moment [authors' code]
    info_weight: float = 0.6  # lambda of Eq. 6 for G [tuned: docs/notes.md]; 0: a plain GAN, Q affects neither D nor G
    continuous_weight: float = 1.0  # weight of c2, c3, … within L_I, relative to c1 [paper: 1]
    guide_weight: float = 1.0  # beyond the paper: weight of the guide's pseudo-labels of real images; 0: none
    gradient_penalty: float = 0.1  # beyond the paper: weight of D's squared gradient in real images; 0: none
    average: float = 0.3  # samples come from the mean of G's weights over this last share of the updates; 0: G itself
    seed: int = 0  # decides weights, order, codes and noise
    paper: bool = False  # the paper's recipe: no guide, its learning rates throughout, no average, 12 epochs

    SCRIPT, NAME = "infogan", "InfoGAN"
    PRESETS = {"paper": {"epochs": 12, "learning_rate_d": 2e-4, "decay_from": 1.0, "guide_weight": 0.0, "average": 0.0}}
    PRESETS["paper"] |= {"gradient_penalty": 0.0, "info_weight": 1.0, "noise": "uniform"}
    LIMITS = {"categories": (2, 100, 0), "continuous": (0, 8)}
    LIMITS |= dict.fromkeys(("info_weight", "continuous_weight", "guide_weight", "gradient_penalty"), (0, 1000))

    @property
    def guided(self) -> bool:
        """Whether real images get pseudo-labels. A plain GAN has no use for them."""
        return self.guide_weight > 0 and self.info_weight > 0

    def for_classes(self, classes: int) -> Self:
        """The Config with its number of categories decided, for a set of this many classes, 0 without labels."""
        return replace(self, categories=self.categories or classes or 10)


# Losses: pure functions of raw network outputs, in nats ----------------------------------------------------------


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z, c))): Eq. 1 for D, with D = softmax(logits)[1]; 2 ln 2 at zero logits.

    `F.cross_entropy` contains the softmax, so the network ends in raw logits (n, 2). A second softmax would squeeze
    them into [0, 1], and the loss could never fall below ln(1 + e) - 1 = 0.313 per term.
    """
    real, fake = torch.ones_like(real_logits[:, 0]).long(), torch.zeros_like(fake_logits[:, 0]).long()
    return F.cross_entropy(real_logits, real) + F.cross_entropy(fake_logits, fake)


def gradient_penalty(real_logits: Tensor, real: Tensor) -> Tensor:
    """R1 / gamma of Mescheder et al. 2018 (arXiv:1801.04406): half the squared gradient of D's logit in real images."""
    [gradient] = torch.autograd.grad((real_logits[:, 1] - real_logits[:, 0]).sum(), real, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z, c)), the non-saturating form of Goodfellow et al. 2014; ln 2 at zero logits (n, 2)."""
    return F.cross_entropy(fake_logits, torch.ones_like(fake_logits[:, 0]).long())


def gaussian_nll(mean: Tensor, log_variance: Tensor, value: Tensor) -> Tensor:
    """-E log Q(c | x) per continuous code, three (n, m) -> (m,), with Q(c | x) = N(mean, exp(log_variance)).

    A diagonal Gaussian: Q gives each code a mean and a variance, and their log-densities add. With the
    variance fixed to 1 this is half the squared error plus ln(2 pi) / 2, which is kept: without it L_I is no bound.
    """
    return 0.5 * (math.log(2 * math.pi) + log_variance + (value - mean).square() / log_variance.exp()).mean(dim=0)


def information(q: "Posterior", c1: Tensor, continuous: Tensor, weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """L_I = H(c) - E[-log Q(c | x)] (Eq. 4 and 5) of codes (n,) and (n, m), the first m of Q's continuous ones, and the
    scalars to log. weight: factor on the terms of c2, c3, ….

    H(c1) = ln k, so the part of c1 is 0 if Q knows nothing and ln 10 = 2.303 if it knows one of ten. H(c2) = ln 2.
    """
    c1_nll = F.cross_entropy(q.logits, c1)  # raw logits: ln k if Q is uniform
    mean, log_variance = q.mean[:, : continuous.shape[1]], q.log_variance[:, : continuous.shape[1]]
    continuous_nll = gaussian_nll(mean, log_variance, continuous)
    bound = math.log(q.logits.shape[1]) - c1_nll + weight * (math.log(2) - continuous_nll).sum()
    error = (mean.detach() - continuous).square().mean(dim=0)
    return bound, {"c1_nll": c1_nll} | {f"c{number}_error": value for number, value in enumerate(error, start=2)}


# Networks, as in the paper's appendix C.1 -------------------------------------------------------------------------


class Generator(nn.Module):
    """Images from the noise, c1 as a one-hot vector, and the continuous codes, joined."""

    def __init__(self, latent_size: int):
        super().__init__()
        self.dense = nn.Sequential(
            nn.Linear(latent_size, 1024, bias=False),
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

    def forward(self, joined: Tensor) -> Tensor:
        """A joined latent (n, latent_size) -> images (n, 1, 28, 28) in [0, 1]."""
        # Channels last, as convolutions want it on a CPU and on tensor cores: a view, not a copy.
        logits = self.upsample(self.dense(joined).view(-1, 7, 7, 128).permute(0, 3, 1, 2))
        # In float32: bfloat16 rounds the whites to 1, where the sigmoid has no slope to learn from.
        return logits.float().sigmoid()


class Posterior(NamedTuple):
    """Q(c | x): logits (n, k) of c1, mean and log-variance (n, m) of c2, c3, …."""

    logits: Tensor
    mean: Tensor
    log_variance: Tensor


class Discriminator(nn.Module):
    """D and Q: one trunk up to 1024 features, a head with two logits for D, a head for the codes for Q."""

    def __init__(self, categories: int, continuous: int, learn_variance: bool):
        super().__init__()
        self.sizes = [categories, continuous, continuous if learn_variance else 0]  # of Q's output
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 64, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(64, 128, kernel_size=4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.LeakyReLU(0.1),
        )
        self.dense = nn.Sequential(nn.Linear(7 * 7 * 128, 1024, bias=False), nn.BatchNorm1d(1024), nn.LeakyReLU(0.1))
        self.head_d = nn.Linear(1024, 2)
        self.head_q = nn.Sequential(
            nn.Linear(1024, 128, bias=False),
            nn.BatchNorm1d(128),
            nn.LeakyReLU(0.1),
            nn.Linear(128, sum(self.sizes)),
        )

    def features(self, x: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) in [0, 1] -> features (n, 1024), the input of both heads."""
        # Flattened in channels-last order, the memory order of the convolutions.
        return self.dense(self.convolutions(x).permute(0, 2, 3, 1).flatten(1))

    def real_or_fake(self, features: Tensor) -> Tensor:
        """D: features (n, 1024) -> raw logits (n, 2) for fake and real."""
        return self.head_d(features).float()

    def posterior(self, features: Tensor) -> Posterior:
        """Q: features (n, 1024) -> the parameters of Q(c | x)."""
        logits, mean, raw = self.head_q(features).float().split(self.sizes, dim=1)
        # Soft floor on the log-variance (std >= 0.05), so that L_I cannot grow without limit [our choice].
        log_variance = torch.logaddexp(raw, torch.full_like(raw, -6.0)) if raw.shape[1] else torch.zeros_like(mean)
        return Posterior(logits, mean, log_variance)


# The model: what trains, is saved, generates and encodes ----------------------------------------------------------


class Latent(NamedTuple):
    """G's input in parts: noise (n, noise_size), normal or uniform; category (n,) in 0 … k-1; continuous (n, m) in
    (-1, 1) for c2, c3, …."""

    noise: Tensor
    category: Tensor
    continuous: Tensor

    def joined(self, categories: int) -> Tensor:
        """-> (n, noise_size + k + m), the input of G."""
        one_hot = F.one_hot(self.category, categories).to(self.noise.dtype)
        return torch.cat((self.noise, one_hot, self.continuous), dim=1)


class Codes(NamedTuple):
    """What Q predicts for images: c1 (n, k) probabilities by category, the means (n, m) of the continuous codes."""

    c1: Tensor
    continuous: Tensor
    c2 = property(lambda self: self.continuous[:, 0])
    c3 = property(lambda self: self.continuous[:, 1])


class InfoGAN(nn.Module):
    """G, D with Q, the moving average `ema` of G that samples come from, and `digit_of_category` (k,): the class that
    each category of c1 matches."""

    def __init__(self, config: Config):
        """Initial weights come from PyTorch's global random state."""
        super().__init__()
        self.config = config = config.for_classes(0)
        self.generator = Generator(config.noise_size + config.categories + config.continuous)
        self.discriminator = Discriminator(config.categories, config.continuous, config.learn_variance)
        init.dcgan_(self.generator)
        init.dcgan_(self.discriminator)
        self.ema = copy.deepcopy(self.generator)
        self.register_buffer("digit_of_category", torch.arange(config.categories))

    def sample_latent(self, n: int, random: torch.Generator) -> Latent:
        """n latents from the prior, on the device of the random generator."""
        noise = sample(self.config.noise, n, self.config.noise_size, random)
        category = torch.randint(self.config.categories, (n,), generator=random, device=random.device)
        return Latent(noise, category, sample("uniform", n, self.config.continuous, random))

    def generate(
        self,
        n: int = 1,
        digit: int | Tensor | None = None,
        category: int | Tensor | None = None,
        noise: Tensor | None = None,
        continuous: Tensor | None = None,
        seed: int | None = None,
        **codes: float | Tensor,
    ) -> Tensor:
        """Generated images (n, 1, 28, 28) float32 in [0, 1]. What is not given is sampled from the prior.

        digit: a class, for which one of its categories is taken; category: in 0 … k-1; one for all images or (n,), and
        only one of the two. noise: (n, noise_size). continuous: (n, m); or c2=, c3=, …: one number or (n,), any finite
        one, trained on [-1, 1]. seed: makes the samples repeatable.
        Raises ValueError for a value out of range or of another shape, or a code that the model lacks.
        """
        n, config, weight = whole_number("n", n, 1), self.config, self.ema.dense[0].weight
        latent = self.sample_latent(n, random := sampling_generator(seed))
        if digit is not None and category is not None:
            raise ValueError("give digit or category, not both")
        if digit is not None:
            known = self.digit_of_category.cpu()
            fits = indices("digit", digit, n, int(known.max()) + 1)[:, None] == known
            if not fits.any(dim=1).all():
                raise ValueError(
                    f"digit must be one of {known.unique().tolist()}, not {digit}: others have no category"
                )
            latent = latent._replace(category=fits.float().multinomial(1, generator=random).squeeze(1))
        if category is not None:
            latent = latent._replace(category=indices("category", category, n, config.categories))
        if noise is not None:
            latent = latent._replace(noise=numbers("noise", noise, (n, config.noise_size)))
        if continuous is not None:
            latent = latent._replace(continuous=numbers("continuous", continuous, (n, config.continuous)).clone())
        names = code_names(config.continuous)
        if unknown := codes.keys() - names:
            raise ValueError(f"there is no {unknown.pop()}; the continuous codes are {', '.join(names) or 'none'}")
        for name, value in codes.items():
            latent.continuous[:, names.index(name)] = numbers(name, value, (n,))
        with eval_mode(self.ema):
            return torch.cat([self.ema(part.to(weight)) for part in latent.joined(config.categories).split(EVAL_BATCH)])

    def encode(self, x: Tensor) -> Codes:
        """The codes that Q predicts for images (n, 1, 28, 28) in [0, 1]. Raises ValueError for other images."""
        d, weight = self.discriminator, self.discriminator.head_d.weight
        with eval_mode(d):
            posteriors = [d.posterior(d.features(part.to(weight))) for part in image_batch(x).split(EVAL_BATCH)]
        logits, mean, _ = map(torch.cat, zip(*posteriors, strict=True))
        return Codes(logits.softmax(dim=1), mean)


def load(run_folder: str | Path) -> InfoGAN:
    """The model of a run folder, on the CPU. Loads weights only, never code. Raises BadInput for any other folder."""
    return load_model(run_folder, Config, InfoGAN)


# Training ---------------------------------------------------------------------------------------------------------


def make_optimizers(model: InfoGAN) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam of D and Q, and of G."""
    d, g, config = model.discriminator, model.generator, model.config
    return adam(d, config.learning_rate_d, config.beta1), adam(g, config.learning_rate_g, config.beta1)


def update(
    model: InfoGAN,
    optimizers: tuple[torch.optim.Optimizer, ...],
    real: Tensor,
    pseudo_labels: tuple[Tensor, Tensor] | None,
    random: torch.Generator,
    autocast: torch.autocast,
    decay: float,
    penalise: bool = False,
) -> dict[str, Tensor]:
    """A step of D and Q, one of G on the same generated images, then the moving average; returns the scalars to log.

    real: images (n, 1, 28, 28) in [0, 1]; pseudo_labels: their c1 (n,) and codes (n, at most 2), None without guide;
    penalise: whether D pays for its gradient this time.
    """
    (optimizer_d, optimizer_g), config, g, d = optimizers, model.config, model.generator, model.discriminator
    latent = model.sample_latent(len(real), random)
    code = latent.category, latent.continuous
    # D and Q minimise -V(D, G) - L_I. Only the images are detached: L_I also trains the shared trunk, as in the
    # authors' code (Eq. 6 minimises over G and Q alone), except at lambda 0.
    with autocast:
        real.requires_grad_(penalise)
        fake = g(latent.joined(config.categories))
        real_features, fake_features = d.features(real), d.features(fake.detach())  # apart, for BatchNorm
        real_logits, fake_logits = d.real_or_fake(real_features), d.real_or_fake(fake_features)
        loss_d = discriminator_loss(real_logits, fake_logits)
        q = d.posterior(fake_features if config.info_weight else fake_features.detach())
        bound, scalars = information(q, *code, config.continuous_weight)
        loss = loss_d - bound
        if pseudo_labels:
            # Beyond the paper: the same bound on real images, for the guide's codes.
            bound, more = information(d.posterior(real_features), *pseudo_labels, config.continuous_weight)
            loss = loss - config.guide_weight * bound
            scalars |= {f"guide_{name}": value for name, value in more.items()}
        if penalise:
            loss = loss + PENALTY_EVERY * config.gradient_penalty * gradient_penalty(real_logits, real)
    optimizer_step(optimizer_d, loss)
    # G minimises -E log D(G(z, c)) - lambda L_I, through D and Q as they are now.
    with autocast, frozen(d):
        features = d.features(fake)
        loss_g = generator_loss(d.real_or_fake(features))
        bound, _ = information(d.posterior(features), *code, config.continuous_weight)
        loss = loss_g - config.info_weight * bound
    optimizer_step(optimizer_g, loss)
    update_ema(model.ema, g, decay)
    d_real, d_fake = (logits.softmax(dim=1)[:, 1].mean() for logits in (real_logits, fake_logits))
    return {"loss_d": loss_d, "loss_g": loss_g, "d_real": d_real, "d_fake": d_fake, **scalars}


@default_torch_modes()
def main(config: Config) -> dict:
    """Train, measure, save pictures; return what report.json holds. Raises BadInput before anything is written."""
    with Run(config) as run:
        config = run.config
        torch.manual_seed(stream_seed(config.seed, "weights"))
        model = InfoGAN(config).to(run.device, memory_format=torch.channels_last)
        optimizers = make_optimizers(model)
        random, latent = run.stream("training"), model.sample_latent(10, run.stream("pictures"))
        images, test_images = run.data.train_images, run.data.test_images
        n = run.n if config.guided else 0
        guide = PseudoLabels(n, len(test_images), config.categories, config.continuous, run.device)
        run.restore(model=model, optimizer_d=optimizers[0], optimizer_g=optimizers[1], random=random, guide=guide)

        run.attempt(save_reals)
        if run.step == 0:
            run.attempt(save_epoch, model, latent, guide)
        if not guide.fitted:
            run.say(f"Part 1 of 3: the guide learns {config.categories} groups without labels")
            guide.fit(images, test_images, config.seed, run.precision, 10 if config.smoke else None, run.console.bar)
            run.save()  # the pseudo-labels are part of the checkpoint
            agree = f"{guide.neighbours_agree.item():.1%} of neighbours share a group"
            run.say(f"guide done in {run.elapsed:.0f} s: {agree} ({guide.agree_at_least:.0%} or more is healthy)")
            run.say("Part 2 of 3: training")
        failed, tables = None if config.smoke else guide.failure(), None
        for _ in run.remaining_epochs():
            for batch in run.batches(partial(loss_columns, config)):
                scale_learning_rates(linear_decay(run.progress, config.decay_from, 0.02), *optimizers)
                real = to_float(images.index_select(0, batch))
                decay = ema_decay(config.average, run.updates, run.total_updates)
                penalise = config.gradient_penalty > 0 and run.updates % PENALTY_EVERY == 0
                run.log(update(model, optimizers, real, guide.lookup(batch), random, run.autocast, decay, penalise))
            tables = contingency_tables(model, run.data)
            row = measure(run, model, tables)
            shown, collapsed = columns(config), metrics.collapse([*run.epoch_rows, row])
            run.end_epoch(row, *shown, warnings=(failed, collapsed))
            run.attempt(save_epoch, model, latent, guide)
        return report(run, model, latent, guide, tables or contingency_tables(model, run.data), failed)


def measure(run: Run, model: InfoGAN, tables: Tables | None) -> dict[str, float]:
    """The columns of metrics.csv at the end of an epoch. Also sets `digit_of_category`; labels are used here and in the
    report only. accuracy: c1 against the test labels under the map that fits the training labels best, see
    `metrics.match`."""
    row = loss_columns(run.config, run.means())
    if tables:
        model.digit_of_category.copy_(torch.from_numpy(metrics.match(tables.train)))
        row["accuracy"] = metrics.accuracy(tables.test, model.digit_of_category.cpu().numpy())
    return row


if __name__ == "__main__":
    run_cli(main, Config)
