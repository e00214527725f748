"""InfoGAN learns MNIST's ten digits, their slant and their stroke without a label.

    python infogan.py          # accuracy 98.3 to 98.6 % on seeds 0 to 9; 8 minutes on two cores with bfloat16
    python infogan.py --paper  # the paper's recipe alone: which ten kinds of image c1 finds depends on the seed

Chen et al. 2016, "InfoGAN: Interpretable Representation Learning by Information Maximizing Generative Adversarial
Nets" (arXiv:1606.03657). A generator G draws an image from noise z and a code c: a category c1 (one of ten) and two
numbers c2 and c3. A network Q must read the code back from the image, which makes the code mean something.

The paper's objective asks that c1 can be read, not that it is the digit. So a small network first learns, without a
label, to read real images (common/guide.py): which of ten kinds, how slanted, how thick. Q must read the same from real
images, and what it reads there c1, c2 and c3 come to mean in generated ones.

Departures from the paper: this guide, a larger step size of D, step sizes that fall, samples from a running average of
G; `--paper` takes all four back. Two more stay, as in the authors' code: L_I also trains the layers that D and Q share,
and c2 and c3 weigh as much as c1. D ends in two logits and a softmax, which is one logit and a sigmoid written twice.
Labels never reach training: they say which digit a category is, and how well c1 agrees with the digits.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import BadInput, arguments, guide, init
from common.checkpoint import load_model
from common.cli import run_cli
from common.data import to_float
from common.device import cuda_graphed, default_torch_modes, eval_mode, frozen
from common.ema import RunningAverage
from common.look import codes, explorer, figures, metrics, plots
from common.look.scorer import SampleScorer
from common.optim import adam, descend, linear_decay, scale_learning_rates
from common.run import Run
from common.settings import Settings
from common.streams import drawing_generator, stream_seed

CATEGORIES = 10  # c1 ~ Cat(10), uniform [paper C.1]
CONTINUOUS = 2  # c2, c3 ~ Uniform(-1, 1) [paper C.1]
NOISES = 50  # of the explorer, those of generate(seed=0) to generate(seed=49)
PIECE = 250  # images that a trained model handles at a time: memory stays that of training
# columns of metrics.csv on the console, and what curves.png calls those of real images
SHOWN = {"accuracy": "c1 right %", "info_c1_nats": "I(c1)", "info_c2_nats": "I(c2)", "info_c3_nats": "I(c3)"}
SHOWN |= {"loss_d": "loss D", "loss_g": "loss G", "d_real": "D(x)", "d_fake": "D(G(z))"}
ON_REALS = {f"guide_{code}_nats": f"I({code}), real" for code in ("c1", "c2", "c3")}


@dataclass(frozen=True)
class Config(Settings):
    # latents and posterior
    noise_size: int = 62  # numbers in z, standard normal [authors' code]
    learn_variance: bool = False  # Q predicts the variances of c2 and c3, too; off: fixed to 1 [authors' code]
    # optimisation
    epochs: int = 3  # passes over the training images; the default grows below 20,000 [measured with a prototype]
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
    paper: bool = False  # the paper's recipe alone: no guide, its step sizes throughout, no average, 12 epochs

    SCRIPT: ClassVar = "infogan"
    PRESETS: ClassVar = {
        "paper": {"epochs": 12, "learning_rate_d": 2e-4, "decay_from": 1.0, "guide_weight": 0.0, "average": 0.0},
        **Settings.PRESETS,
    }
    LIMITS: ClassVar = Settings.LIMITS | dict.fromkeys(("info_weight", "continuous_weight", "guide_weight"), (0, 1000))

    @property
    def guided(self) -> bool:
        """Whether real images are read first. A plain GAN has no use for that."""
        return self.guide_weight > 0 and self.info_weight > 0


# Losses: pure functions of raw network outputs, in nats ----------------------------------------------------------


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z, c))): Eq. 1 for D, with D = softmax(logits)[1]; 2 ln 2 at zero logits.

    `F.cross_entropy` contains the softmax, so the network ends in raw logits (n, 2). A second softmax would squeeze
    them into [0, 1], and the loss could never fall below ln(1 + e) - 1 = 0.313 per term.
    """
    real, fake = torch.ones_like(real_logits[:, 0]).long(), torch.zeros_like(fake_logits[:, 0]).long()
    return F.cross_entropy(real_logits, real) + F.cross_entropy(fake_logits, fake)


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z, c)), the non-saturating form of Goodfellow et al. 2014; ln 2 at zero logits (n, 2)."""
    return F.cross_entropy(fake_logits, torch.ones_like(fake_logits[:, 0]).long())


def categorical_nll(logits: Tensor, category: Tensor) -> Tensor:
    """-E log Q(c1 | x): cross-entropy of raw logits (n, 10) with the category (n,); ln 10 where Q is uniform."""
    return F.cross_entropy(logits, category)


def gaussian_nll(mean: Tensor, log_variance: Tensor, value: Tensor) -> Tensor:
    """-E log Q(c | x) of each continuous code, (n, 2) each -> (2,), with Q(c | x) = N(mean, exp(log_variance)).

    A diagonal Gaussian: Q gives each code a mean and a variance, and the log-densities of c2 and c3 add. With the
    variance fixed to 1 this is half the squared error plus ln(2 pi) / 2, which is kept: without it L_I is no bound.
    """
    return 0.5 * (math.log(2 * math.pi) + log_variance + (value - mean).square() / log_variance.exp()).mean(dim=0)


def information(c1_nll: Tensor, continuous_nll: Tensor, continuous_weight: float) -> Tensor:
    """L_I = H(c) - E[-log Q(c | x)] (Eq. 4 and 5), with the weight of c2 and c3 within it.

    H(c1) = ln 10, so the part of c1 is 0 where Q knows nothing and ln 10 = 2.303 where it knows c1. H(c2) = ln 2.
    """
    return math.log(CATEGORIES) - c1_nll + continuous_weight * (math.log(2) - continuous_nll).sum()


# Networks, as in the paper's appendix C.1 -------------------------------------------------------------------------


class Generator(nn.Module):
    """Images from 62 noise values, 10 one-hot values of c1 and 2 values c2, c3."""

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

    def forward(self, joined: Tensor) -> Tensor:
        """A joined latent (n, noise_size + 12) -> images (n, 1, 28, 28) in [0, 1]."""
        # Channels last, as convolutions want it on a CPU and on tensor cores: a view, not a copy.
        logits = self.upsample(self.dense(joined).view(-1, 7, 7, 128).permute(0, 3, 1, 2))
        # In float32: bfloat16 rounds the whites to 1, where the sigmoid has no slope to learn from.
        return logits.float().sigmoid()


class Posterior(NamedTuple):
    """Q(c | x): logits (n, 10) of c1, mean and log-variance (n, 2) of c2 and c3."""

    logits: Tensor
    mean: Tensor
    log_variance: Tensor


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

    def real_or_fake(self, features: Tensor) -> Tensor:
        """D: features (n, 1024) -> raw logits (n, 2) for fake and real."""
        return self.head_d(features).float()

    def posterior(self, features: Tensor) -> Posterior:
        """Q: features (n, 1024) -> the parameters of Q(c | x)."""
        out = self.head_q(features).float()
        mean = out[:, CATEGORIES : CATEGORIES + CONTINUOUS]
        raw = out[:, CATEGORIES + CONTINUOUS :]
        # Soft floor on the log-variance (std >= 0.05), so that L_I cannot grow by shrinking it [assumption].
        log_variance = torch.logaddexp(raw, torch.full_like(raw, -6.0)) if raw.shape[1] else torch.zeros_like(mean)
        return Posterior(out[:, :CATEGORIES], mean, log_variance)


# The model: what trains, is saved, generates and encodes ----------------------------------------------------------


class Latent(NamedTuple):
    """G's input in parts: noise (n, noise_size), standard normal; category (n,) in 0 … 9; continuous (n, 2) in (-1, 1)
    for c2 and c3."""

    noise: Tensor
    category: Tensor
    continuous: Tensor

    def joined(self) -> Tensor:
        """-> (n, noise_size + 10 + 2), as G takes it."""
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


class InfoGAN(nn.Module):
    """G, D with Q, the running average `ema` of G that samples come from, and `digit_of_category` (10,): the class that
    each category of c1 matches."""

    def __init__(self, config: Config):
        """Initial weights come from PyTorch's global random state."""
        super().__init__()
        self.config = config
        self.generator = Generator(config.noise_size)
        self.discriminator = Discriminator(config.learn_variance)
        init.dcgan_(self.generator)
        init.dcgan_(self.discriminator)
        self.ema = RunningAverage(self.generator, config.average)
        self.register_buffer("digit_of_category", torch.arange(CATEGORIES))

    @default_torch_modes()
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
        latent = draw_latent(arguments.sample_count(n), self.config.noise_size, drawing_generator(seed))
        if digit is not None and category is not None:
            raise ValueError("give digit or category, not both")
        if digit is not None:
            category_of_digit = self.digit_of_category.cpu().argsort()
            category = category_of_digit[arguments.indices("digit", digit, n, CATEGORIES).cpu()]
        if category is not None:
            latent = latent._replace(category=arguments.indices("category", category, n, CATEGORIES))
        if noise is not None:
            latent = latent._replace(noise=arguments.numbers("noise", noise, (n, self.config.noise_size)))
        for column, (name, value) in enumerate((("c2", c2), ("c3", c3))):
            if value is not None:
                latent.continuous[:, column] = arguments.numbers(name, value, (n,))
        latent = Latent(*(part.to(self.digit_of_category.device) for part in latent))
        with eval_mode(self.ema):
            return torch.cat([self.ema(part) for part in latent.joined().split(PIECE)])

    @default_torch_modes()
    def encode(self, x: Tensor) -> Codes:
        """Read the codes of images (n, 1, 28, 28) with grey values in [0, 1]. Raises ValueError for anything else."""
        with eval_mode(self.discriminator):
            pieces = arguments.image_batch(x).split(PIECE)
            read = [self.discriminator.posterior(self.discriminator.features(piece)) for piece in pieces]
        logits, mean, _ = map(torch.cat, zip(*read, strict=True))
        return Codes(logits.softmax(dim=1), mean[:, 0], mean[:, 1])


def load(run_folder: str | Path) -> InfoGAN:
    """The model of a run folder, on the CPU. Reads weights only, never code. Raises BadInput for any other folder."""
    model = load_model(run_folder, Config, InfoGAN)
    if sorted(model.digit_of_category.tolist()) != list(range(CATEGORIES)):
        raise BadInput(f"{Path(run_folder) / 'checkpoint.pt'}: digit_of_category is no permutation of 0 … 9")
    return model


# Training ---------------------------------------------------------------------------------------------------------


class Coded(NamedTuple):
    """Images x (n, 1, 28, 28) in [0, 1] and the codes Q is to read from them, if any: c1 (n,) and continuous (n, 2)."""

    x: Tensor
    c1: Tensor | None = None
    continuous: Tensor | None = None


def code_bound(q: Posterior, coded: Coded, continuous_weight: float) -> tuple[Tensor, dict[str, Tensor]]:
    """L_I of the codes that Q is to read, and the scalars to log."""
    c1_nll = categorical_nll(q.logits, coded.c1)
    bound = information(c1_nll, gaussian_nll(q.mean, q.log_variance, coded.continuous), continuous_weight)
    error = (q.mean.detach() - coded.continuous).square().mean(dim=0)
    return bound, {"c1_nll": c1_nll, "c2_error": error[0], "c3_error": error[1]}


def discriminator_objective(model: InfoGAN, real: Coded, fake: Coded) -> tuple[Tensor, dict[str, Tensor]]:
    """-V(D, G) - lambda L_I, which D and Q minimise, and the scalars to log.

    With the guide, Q also maximises the same bound on the real images, for the codes that the guide read from them.
    Only `fake.x` is detached; L_I also trains the shared trunk, as in the authors' code. Eq. 6 minimises over G and Q
    only, which would need the features detached before Q's head. At lambda 0 they are, with a weight of 1 for Q's head:
    it watches a plain GAN.
    """
    config, d = model.config, model.discriminator
    plain = config.info_weight == 0
    # Two passes: BatchNorm normalises real and generated images by statistics of their own.
    real_features, fake_features = d.features(real.x), d.features(fake.x.detach())
    real_logits, fake_logits = d.real_or_fake(real_features), d.real_or_fake(fake_features)
    adversarial = discriminator_loss(real_logits, fake_logits)
    q = d.posterior(fake_features.detach() if plain else fake_features)
    bound, logged = code_bound(q, fake, config.continuous_weight)
    loss = adversarial - (1.0 if plain else config.info_weight) * bound
    scalars = {
        "loss_d": adversarial,
        "d_real": real_logits.softmax(dim=1)[:, 1].mean(),
        "d_fake": fake_logits.softmax(dim=1)[:, 1].mean(),
        **logged,
    }
    if real.c1 is not None:
        bound, logged = code_bound(d.posterior(real_features), real, config.continuous_weight)
        loss = loss - config.guide_weight * bound
        scalars |= {f"guide_{name}": value for name, value in logged.items()}
    return loss, scalars


def generator_objective(model: InfoGAN, fake: Coded) -> tuple[Tensor, dict[str, Tensor]]:
    """-E log D(G(z, c)) - lambda L_I, which G minimises through D and Q, and the scalars to log."""
    config, d = model.config, model.discriminator
    with frozen(d):
        features = d.features(fake.x)
        adversarial = generator_loss(d.real_or_fake(features))
        bound, _ = code_bound(d.posterior(features), fake, config.continuous_weight)
    return adversarial - config.info_weight * bound, {"loss_g": adversarial}


def make_optimizers(model: InfoGAN) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam of D and Q, and of G."""
    d, g, config = model.discriminator, model.generator, model.config
    return adam(d, config.learning_rate_d, config.beta1), adam(g, config.learning_rate_g, config.beta1)


def update(
    model: InfoGAN,
    optimizers: tuple[torch.optim.Optimizer, ...],
    real: Coded,
    random: torch.Generator,
    autocast: torch.autocast,
) -> dict[str, Tensor]:
    """A step of D and Q, then one of G on the same generated images, then the running average."""
    optimizer_d, optimizer_g = optimizers
    latent = draw_latent(len(real.x), model.config.noise_size, random)
    with autocast:
        fake = Coded(model.generator(latent.joined()), latent.category, latent.continuous)
        loss, scalars = discriminator_objective(model, real, fake)
    descend(optimizer_d, loss)
    with autocast:
        loss, more = generator_objective(model, fake)
    descend(optimizer_g, loss)
    model.ema.follow(model.generator)
    return scalars | more


@default_torch_modes()
def main(config: Config) -> dict:
    """Train, measure, draw; return what report.json holds. Raises BadInput before anything is written."""
    with Run(config) as run:
        torch.manual_seed(stream_seed(config.seed, "weights"))
        model = InfoGAN(config).to(run.device, memory_format=torch.channels_last)
        optimizers = make_optimizers(model)
        random = run.stream("training")
        latents = draw_latent(10, config.noise_size, run.stream("pictures"))
        guided = guide.Codes(run.n if config.guided else 0, run.device)
        run.restore(model=model, optimizer_d=optimizers[0], optimizer_g=optimizers[1], random=random, guide=guided)

        figures.draw_reals(run)
        if run.step == 0:
            draw_epoch(run, model, latents)
        if not guided.known:
            read_images(run, guided)

        def one_update(batch: Tensor) -> dict[str, Tensor]:
            real = Coded(to_float(run.data.train_images.index_select(0, batch)), *guided.of(batch))
            return update(model, optimizers, real, random, run.autocast)

        step, tables = cuda_graphed(one_update, run.device, random), None
        for _ in run.remaining_epochs():
            for batch in run.batches():
                scale_learning_rates(linear_decay(run.progress, config.decay_from, 0.02), *optimizers)
                run.add(step(batch))
            row, tables = measure(run, model)
            run.end_epoch(row, SHOWN, warnings=(failure(run, guided), metrics.collapse([*run.rows, row])))
            draw_epoch(run, model, latents)
        return report(run, model, latents, guided, tables or codes.contingencies(model, run.data))


def read_images(run: Run, guided: guide.Codes) -> None:
    """Let the guide read the training images. Its codes become part of the checkpoint."""
    run.say("reading the images …")
    images, config = run.data.train_images, run.config
    updates = 10 if config.smoke else None
    guided.load_state_dict(guide.read(images, config.seed, run.precision, updates, show=run.console.watched))
    run.save()
    agree = f"read: {guided.neighbours_agree.item():.1%} are in one category with their far neighbour"
    failed = failure(run, guided)
    run.say(f"{agree}  WARNING: {failed}" if failed else agree)


def failure(run: Run, guided: guide.Codes) -> str | None:
    """How the guide failed, if it did. The ten updates of a smoke run can't find ten kinds."""
    return None if run.config.smoke else guided.failure()


# Measuring and drawing: the only place where labels are read ------------------------------------------------------


def measure(run: Run, model: InfoGAN) -> tuple[dict[str, float], codes.Tables | None]:
    """The columns of metrics.csv, and how c1 meets the labels; fits the map from categories to digits.

    info_*: L_I in nats on generated images, for c2 and c3 with the width that fits Q's errors best; guide_*: the same
    on real ones, as if the guide's categories were equally frequent; accuracy: c1 against the test labels under the
    one-to-one map that fits the training labels best.
    """
    mean = run.means()
    row = {name: mean[name] for name in ("loss_d", "loss_g", "d_real", "d_fake")}
    for column, source in (("info", ""), ("guide", "guide_")):
        if f"{source}c1_nll" in mean:
            row[f"{column}_c1_nats"] = math.log(CATEGORIES) - mean[f"{source}c1_nll"]
            for code in ("c2", "c3"):
                row[f"{column}_{code}_nats"] = metrics.gaussian_information(mean[f"{source}{code}_error"])
    tables = codes.contingencies(model, run.data)
    if tables:
        model.digit_of_category.copy_(torch.from_numpy(metrics.one_to_one(tables.train)))
        row["accuracy"] = metrics.accuracy(tables.test, model.digit_of_category.cpu().numpy())
    return row, tables


def draw_epoch(run: Run, model: InfoGAN, latents: Latent) -> None:
    """epoch_NNN_c1.png, _c2.png, _c3.png and curves.png as of the epochs that are complete."""
    codes.draw_sheets(run, model, codes.sheets(model, latents.noise, latents.continuous))
    c1, right, real = "information on c1 [nats]", "c1 right on test images", "mean probability of being real"
    panels = {
        c1: ["info_c1_nats", "guide_c1_nats"],
        "information on c2, c3 [nats]": ["info_c2_nats", "info_c3_nats", "guide_c2_nats", "guide_c3_nats"],
        right: ["accuracy"],
        "losses [nats]": ["loss_d", "loss_g"],
        real: ["d_real", "d_fake"],
    }
    reference = {c1: (math.log(CATEGORIES), "ln 10"), right: (1 / CATEGORIES, "chance")}
    plots.draw_curves(run, panels, reference=reference, percent=(right, real), names=SHOWN | ON_REALS)


def report(run: Run, model: InfoGAN, latents: Latent, guided: guide.Codes, tables: codes.Tables | None) -> dict:
    """The figures and report.json of a finished run."""
    config, data, last = run.config, run.data, run.rows[-1]
    prior = draw_latent(codes.PER_CATEGORY * CATEGORIES, config.noise_size, run.stream("measured codes"))
    factors = codes.measure(model, prior.noise, prior.continuous)
    read = {"guide_neighbours_agree": guided.neighbours_agree.item()} if config.guided else {}
    agreement, scores, train_shares = {}, {}, None
    if tables:
        agreement = codes.compare_with_labels(run, model, tables)
        scorer = SampleScorer(data, config.data_dir, run.console)
        # As many as there are test images: a Fréchet distance of two finite sets depends on their sizes.
        noise, category, continuous = draw_latent(
            len(data.test_images), config.noise_size, run.stream("judged samples")
        )
        samples = model.generate(len(noise), None, category, *continuous.unbind(dim=1), noise)
        scores = scorer(samples, meant=model.digit_of_category[category].cpu())
        train_shares = scorer.train_shares
        if config.guided:
            table = metrics.contingency(guided.c1.long(), data.train_labels, CATEGORIES)
            read["guide_accuracy"] = metrics.accuracy(table, metrics.one_to_one(table))
    codes.draw_codes(run, codes.sheets(model, latents.noise, latents.continuous), factors)
    figures.save_animation(run.folder / "training.gif", figures.epoch_pictures(run.folder, "_c1"))
    noises = torch.cat([draw_latent(1, config.noise_size, drawing_generator(seed)).noise for seed in range(NOISES)])
    page = codes.about_page(run, model, factors, agreement.get("accuracy"))
    page |= {"noises": noises.double().round(decimals=5).tolist(), "first": codes.typical(model, noises)}
    drawn = draw_latent(4096, config.noise_size, run.stream("explorer"))
    drawn = drawn._replace(continuous=drawn.continuous * 2).joined().cpu()  # the sliders go to -2 and 2
    networks = explorer.plain_layers(model.ema.network), explorer.plain_reader(model.discriminator)
    explorer.save_page(run.folder / "explore.html", *networks, drawn, page)
    information = {name: last[name] for name in ("info_c1_nats", "info_c2_nats", "info_c3_nats")}
    information["info_c1_maximum_nats"] = math.log(CATEGORIES)
    found = {**agreement, **information, **read, **factors, **(scorer.summary(scores) if tables else {})}
    told = codes.told(found) | (SampleScorer.told(found) if tables else {})
    collapsed = metrics.collapse([*run.rows[:-1], last | scores], train_shares, at_end=True)
    return run.finish(found, told, "codes.png and explore.html", warnings=(failure(run, guided), collapsed))


if __name__ == "__main__":
    run_cli(main, Config)
