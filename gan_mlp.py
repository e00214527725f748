"""A GAN of fully connected networks that draws MNIST's ten digits in their right shares.

    python gan_mlp.py          # 5 minutes on two cores; docs/gan.md has the table of seeds

Goodfellow et al. 2014, "Generative Adversarial Networks" (arXiv:1406.2661), without a single convolution. Such a GAN is
known for drawing too many 1s: a stroke of few pixels is the easiest thing to get right, and D objects late. Here a
classifier that never touches the training counts the samples after every epoch: over seeds 0 to 9 and 500 to 502 every
digit has a share between 8.4 and 12.2 %, and the Fréchet distance is 2.3 to 4.0 times its floor.

Departures from the paper: BatchNorm in G, Adam and two steps per batch as in DCGAN (Radford et al. 2015,
arXiv:1511.06434) but without momentum, the non-saturating loss, images shifted by a pixel before D sees them, a larger
step size for G than for D, and samples from a running average of G's weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import arguments, init
from common.augment import shifted
from common.checkpoint import load_model
from common.cli import run_cli
from common.data import to_float
from common.device import cuda_graphed, default_torch_modes, eval_mode, frozen
from common.ema import RunningAverage
from common.look import figures, metrics, plots, samples
from common.look.scorer import SampleScorer
from common.optim import adam, descend
from common.run import Run
from common.settings import Settings
from common.streams import drawing_generator, stream_seed

PIXELS = 28 * 28
# columns of the console
SHOWN = {"frechet_over_floor": "Fréchet ×", "class_total_variation": "shares off %"}
SHOWN |= {"loss_d": "loss D", "loss_g": "loss G", "d_real": "D(x)", "d_fake": "D(G(z))"}


@dataclass(frozen=True)
class Config(Settings):
    # networks
    noise_size: int = 100  # numbers in z, standard normal [DCGAN]
    widths_g: tuple[int, ...] = (128, 256, 512)  # hidden layers of G, from the noise on [assumption]
    widths_d: tuple[int, ...] = (512, 256, 128)  # hidden layers of D, from the image on [assumption]
    leak: float = 0.2  # slope of D's leaky ReLU below 0 [DCGAN]
    batchnorm_g: bool = True  # BatchNorm in the hidden layers of G [DCGAN]
    shift: int = 1  # D sees every image moved by up to so many pixels [measured: docs]
    # optimisation
    epochs: int = 40  # passes over the training images; the default grows below 20,000 [measured: docs]
    batch_size: int = 128  # images per update [DCGAN]
    learning_rate_d: float = 8e-4  # Adam step size of D [measured: docs]
    learning_rate_g: float = 2e-3  # Adam step size of G [measured: docs]
    beta1: float = 0.0  # Adam's decay of the first moment: no momentum [measured: docs]
    average: float = 0.9998  # decay of the running average of G's weights that samples are drawn from; 0: G itself
    seed: int = 0  # decides weights, order and noise

    SCRIPT: ClassVar = "gan_mlp"
    LIMITS: ClassVar = {
        **Settings.LIMITS,
        "widths_g": (1, 8192),
        "widths_d": (1, 8192),
        "leak": (0, 1),
        "shift": (0, 14),
    }


# Losses: pure functions of raw logits, in nats --------------------------------------------------------------------


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))), with D = sigmoid(logit) and logits (n, 1); 2 ln 2 at zero logits."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z)), the non-saturating form, which has a slope where D is sure; ln 2 at zero logits (n, 1)."""
    return F.softplus(-fake_logits).mean()


# Networks ---------------------------------------------------------------------------------------------------------


class Generator(nn.Module):
    """Noise through hidden layers with ReLU to 784 grey values."""

    def __init__(self, config: Config):
        super().__init__()
        layers, width_in = [], config.noise_size
        for width in config.widths_g:
            layers.append(nn.Linear(width_in, width, bias=not config.batchnorm_g))
            if config.batchnorm_g:
                layers.append(nn.BatchNorm1d(width))
            layers.append(nn.ReLU())
            width_in = width
        self.layers = nn.Sequential(*layers, nn.Linear(width_in, PIXELS))

    def forward(self, noise: Tensor) -> Tensor:
        """(n, noise_size) -> images (n, 1, 28, 28) in [0, 1]."""
        # In float32: bfloat16 rounds the whites to 1, where the sigmoid has no slope to learn from.
        return self.layers(noise).float().sigmoid().view(-1, 1, 28, 28)


class Discriminator(nn.Module):
    """784 grey values through hidden layers with leaky ReLU to one logit."""

    def __init__(self, config: Config):
        super().__init__()
        layers, width_in = [], PIXELS
        for width in config.widths_d:
            layers += [nn.Linear(width_in, width), nn.LeakyReLU(config.leak)]
            width_in = width
        self.layers = nn.Sequential(*layers, nn.Linear(width_in, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Images (n, 1, 28, 28) in [0, 1] -> raw logits (n, 1), positive for real."""
        # Moved to [-1, 1]: with a black background of 0 most first-layer weights would see no gradient.
        return self.layers(x.flatten(1) * 2 - 1).float()


# The model: what trains, is saved and generates -------------------------------------------------------------------


def draw_noise(n: int, noise_size: int, random: torch.Generator) -> Tensor:
    """n latents (n, noise_size) from the prior, on the device of the random generator."""
    return torch.randn(n, noise_size, generator=random, device=random.device)


class GAN(nn.Module):
    """G, D, and the running average `ema` of G that samples come from."""

    def __init__(self, config: Config):
        """Initial weights come from PyTorch's global random state."""
        super().__init__()
        self.config = config
        self.generator, self.discriminator = Generator(config), Discriminator(config)
        init.fan_in_uniform_(self.generator)
        init.fan_in_uniform_(self.discriminator)
        self.ema = RunningAverage(self.generator, config.average)

    @default_torch_modes()
    def generate(self, n: int = 1, noise: Tensor | None = None, seed: int | None = None) -> Tensor:
        """Draw images (n, 1, 28, 28) float32 in [0, 1].

        noise: (n, noise_size), drawn from the prior if not given; seed: makes that drawing repeatable.
        Raises ValueError for n below 1 and for noise of another shape or not finite.
        """
        drawn = draw_noise(arguments.sample_count(n), self.config.noise_size, drawing_generator(seed))
        noise = drawn if noise is None else arguments.numbers("noise", noise, drawn.shape)
        with eval_mode(self.ema):
            return self.ema(noise.to(next(self.ema.parameters()).device))


def load(run_folder: str | Path) -> GAN:
    """The model of a run folder, on the CPU. Reads weights only, never code. Raises BadInput for any other folder."""
    return load_model(run_folder, Config, GAN)


# Training ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def refresh_batchnorm(model: GAN, random: torch.Generator) -> None:
    """Measure the BatchNorm statistics of the averaged weights on 10,000 latents.

    The averaged weights never ran in training, so the statistics gathered there do not fit them.
    """
    for layer in model.ema.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 1.0  # the statistics become those of the next batch
    model.ema.train()
    model.ema(draw_noise(10_000, model.config.noise_size, random))


def make_optimizers(model: GAN) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam of D, and of G."""
    d, g, config = model.discriminator, model.generator, model.config
    return adam(d, config.learning_rate_d, config.beta1), adam(g, config.learning_rate_g, config.beta1)


def update(
    model: GAN,
    optimizers: tuple[torch.optim.Optimizer, ...],
    reals: Tensor,
    random: torch.Generator,
    autocast: torch.autocast,
) -> dict[str, Tensor]:
    """A step of D, then one of G on the same generated images, then the average. reals: (n, 1, 28, 28) in [0, 1]."""
    optimizer_d, optimizer_g = optimizers
    noise, d = draw_noise(len(reals), model.config.noise_size, random), model.discriminator
    with autocast:
        fakes = model.generator(noise)
        reals, fakes = (shifted(x, model.config.shift, random) for x in (reals, fakes))
        # In one pass: D has no BatchNorm that would mix the two, and one product of twice the height is faster.
        real_logits, fake_logits = d(torch.cat((reals, fakes.detach()))).chunk(2)
        loss_d = discriminator_loss(real_logits, fake_logits)
    descend(optimizer_d, loss_d)
    with autocast, frozen(d):
        loss_g = generator_loss(d(fakes))
    descend(optimizer_g, loss_g)
    model.ema.follow(model.generator)
    d_real, d_fake = real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()
    return {"loss_d": loss_d, "loss_g": loss_g, "d_real": d_real, "d_fake": d_fake}


@default_torch_modes()
def main(config: Config) -> dict:
    """Train, measure, draw; return what report.json holds. Raises BadInput before anything is written."""
    with Run(config) as run:
        torch.manual_seed(stream_seed(config.seed, "weights"))
        model = GAN(config).to(run.device)
        optimizers = make_optimizers(model)
        random = run.stream("training")
        latents = draw_noise(100, config.noise_size, run.stream("pictures"))
        run.restore(model=model, optimizer_d=optimizers[0], optimizer_g=optimizers[1], random=random)

        figures.draw_reals(run)
        if run.step == 0:
            draw_epoch(run, model, latents)
        scorer = SampleScorer(run.data, config.data_dir, run.console) if run.data.classes else None

        def one_update(batch: Tensor) -> dict[str, Tensor]:
            reals = to_float(run.data.train_images.index_select(0, batch))
            return update(model, optimizers, reals, random, run.autocast)

        step = cuda_graphed(one_update, run.device, random)
        for _ in run.remaining_epochs():
            for batch in run.batches():
                run.add(step(batch))
            refresh_batchnorm(model, run.stream("batchnorm"))
            row = measure(run, model, scorer)
            collapsed = metrics.collapse([*run.rows, row], scorer and scorer.train_shares)
            run.end_epoch(row, SHOWN, warnings=(collapsed,))
            draw_epoch(run, model, latents)
        return report(run, model, latents, scorer)


# Measuring and drawing: the only place where labels are read ------------------------------------------------------


def measure(run: Run, model: GAN, scorer: SampleScorer | None) -> dict[str, float]:
    """The columns of metrics.csv: losses, D's mean probabilities of being real, and the scores of samples."""
    mean = run.means()
    row = {name: mean[name] for name in ("loss_d", "loss_g", "d_real", "d_fake")}
    if scorer:
        # As many as there are test images: a Fréchet distance of two finite sets depends on their sizes.
        noise = draw_noise(len(run.data.test_images), model.config.noise_size, run.stream("judged samples"))
        row |= scorer(model.generate(len(noise), noise))
    return row


def draw_epoch(run: Run, model: GAN, latents: Tensor) -> None:
    """epoch_NNN.png, a hundred samples from fixed noise, and curves.png as of the epochs that are complete."""
    title = f"{run.title}, {run.when}\na hundred samples, the same noise in every epoch"
    shown = model.generate(100, latents).view(10, 10, 28, 28)
    figures.save_grid(run.folder / f"epoch_{run.epoch:03d}.png", shown, title)
    panels = {
        "Fréchet ×: over that of real images": ["frechet_over_floor"],
        "distance of the classes' shares": ["class_total_variation"],
        "share of each class": metrics.SHARES,
        "losses [nats]": ["loss_d", "loss_g"],
        "mean probability of being real": ["d_real", "d_fake"],
    }
    names = dict(zip(metrics.SHARES, run.data.classes, strict=False)) | SHOWN
    logarithmic = ("Fréchet ×: over that of real images", "distance of the classes' shares")
    plots.draw_curves(run, panels, logarithmic=logarithmic, percent=["mean probability of being real"], names=names)


def draw_interpolation(run: Run, model: GAN, latents: Tensor) -> None:
    """interpolation.png: eight walks from one latent to another.

    Along the great circle (White 2016, arXiv:1609.04468): the straight line would pass through latents shorter than
    any that G was trained on.
    """
    start, end = latents[:8, None], latents[8:16, None]
    where = torch.linspace(0, 1, 11, device=latents.device)[None, :, None]
    angle = torch.arccos(F.cosine_similarity(start, end, dim=-1))[..., None]
    path = (torch.sin((1 - where) * angle) * start + torch.sin(where * angle) * end) / torch.sin(angle)
    shown = model.generate(8 * 11, path.flatten(0, 1)).view(8, 11, 28, 28)
    title = f"{run.title}, {run.when}\nin each row a walk from one noise to another"
    labels = [f"{value:.1f}" for value in where.flatten()]
    figures.save_grid(run.folder / "interpolation.png", shown, title, column_labels=labels)


def report(run: Run, model: GAN, latents: Tensor, scorer: SampleScorer | None) -> dict:
    """The figures and report.json of a finished run."""
    scores, picture = {}, f"epoch_{run.epoch:03d}.png"
    if scorer:
        scores = {"classes": ", ".join(run.data.classes), **scorer.summary(run.rows[-1])}
        title, shares = f"{run.title}, {run.when}: what is drawn", [run.rows[-1][name] for name in scorer.columns]
        samples.draw_shares(run.folder / "digits.png", run.data, title, [shares])
    draw_interpolation(run, model, latents)
    novelty = samples.draw_neighbours(run, model.generate(100, latents))
    figures.save_animation(run.folder / "training.gif", figures.epoch_pictures(run.folder))
    collapsed = metrics.collapse(run.rows, scorer and scorer.train_shares, at_end=True)
    told = scorer.told(scores) if scorer else {}
    if novelty is not None:
        told["novelty"] = f"samples are {novelty:.2f} times as far from the training images as test images are"
    return run.finish({**scores, "nearest_distance_over_test_images": novelty}, told, picture, warnings=(collapsed,))


if __name__ == "__main__":
    run_cli(main, Config)
