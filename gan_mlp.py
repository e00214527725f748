"""A GAN of fully connected networks that generates MNIST's ten digits in their right shares.

    python gan_mlp.py          # 5 minutes on two cores; docs/gan.md has the table of seeds

Goodfellow et al. 2014, "Generative Adversarial Networks" (arXiv:1406.2661), without a single convolution. Such a GAN is
known for generating too many 1s: a stroke of few pixels is the easiest thing to get right, and the discriminator D is
slow to notice. Here a classifier that never touches the training counts the samples after every epoch: over
seeds 900 to 909 every digit has a share between 8.6 and 11.8 %, and the Fréchet distance to the test images is 2.4 to
3.1 times that of training images.

Departures from the paper: BatchNorm in G, leaky ReLU and no dropout in D, Adam without momentum, one batch of noise for
the steps of D and G, images shifted by up to a pixel before D sees them, a larger learning rate for G than for D, and
samples from an exponential moving average of G's weights.
"""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data import to_float
from common.data.inputs import numbers, sampling_generator, whole_number
from common.look import metrics
from common.look.figures import save_reals
from common.look.gan import COLUMNS, LEGEND, report, save_epoch
from common.look.scorer import SampleScorer
from common.run.checkpoint import load_model
from common.run.cli import run_cli
from common.run.config import Settings
from common.run.run import Run
from common.train import init
from common.train.device import default_torch_modes, eval_mode, frozen
from common.train.optim import adam, ema_decay, optimizer_step, update_ema
from common.train.random import sample, stream_seed

PIXELS = 28 * 28


@dataclass(frozen=True)
class Config(Settings):
    # networks
    noise_size: int = 100  # numbers in z, standard normal [DCGAN]
    widths_g: tuple[int, ...] = (128, 256, 512)  # hidden layers of G, from the noise on [our choice]
    widths_d: tuple[int, ...] = (512, 256, 128)  # hidden layers of D, from the image on [our choice]
    leak: float = 0.2  # slope of D's leaky ReLU below 0 [DCGAN]
    batchnorm_g: bool = True  # BatchNorm in the hidden layers of G [DCGAN]
    shift: int = 1  # D sees every image shifted by up to so many pixels [tuned: docs/notes.md]
    # optimisation
    epochs: int = 40  # passes over the training images; more if fewer than 20,000 [tuned: docs/notes.md]
    batch_size: int = 128  # images per update [DCGAN]
    learning_rate_d: float = 8e-4  # Adam's for D [tuned: docs/notes.md]
    learning_rate_g: float = 2e-3  # Adam's for G [tuned: docs/notes.md]
    beta1: float = 0.0  # Adam's decay of the first moment: no momentum [tuned: docs/notes.md]
    average: float = 0.3  # samples come from the mean of G's weights over this last share of the updates; 0: G itself
    seed: int = 0  # decides weights, order and noise

    SCRIPT, NAME = "gan_mlp", "GAN"
    LIMITS = {"widths_g": (1, 8192), "widths_d": (1, 8192), "leak": (0, 1), "shift": (0, 14)}


# Losses: pure functions of raw logits, in nats --------------------------------------------------------------------


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-E log D(x) - E log(1 - D(G(z))), with D = sigmoid(logit) and logits (n, 1); 2 ln 2 at zero logits."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-E log D(G(z)), the non-saturating form, which has a gradient where D is sure; ln 2 at zero logits (n, 1)."""
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


class GAN(nn.Module):
    """G, D, and the moving average `ema` of G that samples come from."""

    def __init__(self, config: Config):
        """Initial weights come from PyTorch's global random state."""
        super().__init__()
        self.config = config
        self.generator, self.discriminator = Generator(config), Discriminator(config)
        init.fan_in_uniform_(self.generator)
        init.fan_in_uniform_(self.discriminator)
        self.ema = copy.deepcopy(self.generator)

    def sample_latent(self, n: int, random: torch.Generator) -> Tensor:
        """n latents (n, noise_size) from the prior, on the device of the random generator."""
        return sample("normal", n, self.config.noise_size, random)

    def generate(self, n: int = 1, noise: Tensor | None = None, seed: int | None = None) -> Tensor:
        """Generated images (n, 1, 28, 28) float32 in [0, 1].

        noise: (n, noise_size), sampled from the prior if not given; seed: makes that sample repeatable.
        Raises ValueError for n below 1 and for noise of another shape or not finite.
        """
        n = whole_number("n", n, 1)
        if noise is None:
            noise = self.sample_latent(n, sampling_generator(seed))
        noise = numbers("noise", noise, (n, self.config.noise_size))
        with eval_mode(self.ema):
            return self.ema(noise.to(next(self.ema.parameters())))


def load(run_folder: str | Path) -> GAN:
    """The model of a run folder, on the CPU. Loads weights only, never code. Raises BadInput for any other folder."""
    return load_model(run_folder, Config, GAN)


# Training ---------------------------------------------------------------------------------------------------------


def random_shift(x: Tensor, reach: int, random: torch.Generator) -> Tensor:
    """Images (n, 1, 28, 28), each shifted at random by up to `reach` pixels along each axis, black coming in.

    Real and generated images are both shifted, and G's gradient passes through the shift (Zhao et al. 2020,
    arXiv:2006.10738, "differentiable augmentation"): a fully connected D would otherwise memorise single pixels.
    """
    if reach == 0:
        return x
    wide = 28 + 2 * reach
    pixel = torch.arange(28, device=x.device)
    corner = torch.randint(2 * reach + 1, (2, len(x), 1), generator=random, device=x.device)
    where = corner[0] * wide + corner[1] + (pixel[:, None] * wide + pixel).flatten()  # (n, 784)
    return F.pad(x, (reach,) * 4).flatten(1).gather(1, where).view(-1, 1, 28, 28)


@torch.no_grad()
def refresh_batchnorm(model: GAN, random: torch.Generator) -> None:
    """Measure the BatchNorm statistics of the averaged weights on 10,000 latents.

    The averaged weights never ran in training, so the statistics gathered there do not fit them.
    """
    for layer in model.ema.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.momentum = 1.0  # the statistics become those of the next batch
    model.ema.train()
    model.ema(model.sample_latent(10_000, random))
    model.ema.eval()


def make_optimizers(model: GAN) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    """Adam of D, and of G."""
    d, g, config = model.discriminator, model.generator, model.config
    return adam(d, config.learning_rate_d, config.beta1), adam(g, config.learning_rate_g, config.beta1)


def update(
    model: GAN,
    optimizers: tuple[torch.optim.Optimizer, ...],
    real: Tensor,
    random: torch.Generator,
    autocast: torch.autocast,
    decay: float,
) -> dict[str, Tensor]:
    """A step of D, one of G on the same generated images, then the moving average; returns the scalars to log.

    real: images (n, 1, 28, 28) in [0, 1].
    """
    (optimizer_d, optimizer_g), d, shift = optimizers, model.discriminator, model.config.shift
    # D minimises -E log D(x) - E log(1 - D(G(z))). The generated images are detached.
    with autocast:
        fake = model.generator(model.sample_latent(len(real), random))
        real, fake = random_shift(real, shift, random), random_shift(fake, shift, random)
        # In one pass: D has no BatchNorm that would mix the two, and one larger matrix product is faster.
        real_logits, fake_logits = d(torch.cat((real, fake.detach()))).chunk(2)
        loss_d = discriminator_loss(real_logits, fake_logits)
    optimizer_step(optimizer_d, loss_d)
    # G minimises -E log D(G(z)), through D as it is now.
    with autocast, frozen(d):
        loss_g = generator_loss(d(fake))
    optimizer_step(optimizer_g, loss_g)
    update_ema(model.ema, model.generator, decay)
    d_real, d_fake = real_logits.sigmoid().mean(), fake_logits.sigmoid().mean()
    return {"loss_d": loss_d, "loss_g": loss_g, "d_real": d_real, "d_fake": d_fake}


@default_torch_modes()
def main(config: Config) -> dict:
    """Train, measure, save pictures; return what report.json holds. Raises BadInput before anything is written."""
    with Run(config) as run:
        torch.manual_seed(stream_seed(config.seed, "weights"))
        model = GAN(config).to(run.device)
        optimizers = make_optimizers(model)
        random, noise = run.stream("training"), model.sample_latent(100, run.stream("pictures"))
        run.restore(model=model, optimizer_d=optimizers[0], optimizer_g=optimizers[1], random=random)

        run.attempt(save_reals)
        if run.step == 0:
            run.attempt(save_epoch, model, noise)
        scorer = SampleScorer(run.data, config.data_dir, run.console) if run.data.classes else None
        for _ in run.remaining_epochs():
            for batch in run.batches():
                real = to_float(run.data.train_images.index_select(0, batch))
                decay = ema_decay(config.average, run.updates, run.total_updates)
                run.log(update(model, optimizers, real, random, run.autocast, decay))
            refresh_batchnorm(model, run.stream("batchnorm"))
            row = measure(run, model, scorer)
            # Not of the first tenth: the samples of a G that has learnt next to nothing are all alike.
            rows = [*run.epoch_rows, row][run.epochs // 10 :]
            collapsed = metrics.collapse(rows, scorer and scorer.train_shares)
            run.end_epoch(row, COLUMNS, LEGEND, warnings=(collapsed,))
            run.attempt(save_epoch, model, noise)
        return report(run, model, noise, scorer)


def measure(run: Run, model: GAN, scorer: SampleScorer | None) -> dict[str, float]:
    """The columns of metrics.csv: losses, D's mean output on real and on generated images, the scores of samples."""
    row = run.means()
    if scorer:
        # As many as there are test images: a Fréchet distance of two finite sets depends on their sizes.
        noise = model.sample_latent(len(run.data.test_images), run.stream("judged samples"))
        row |= scorer(model.generate(len(noise), noise))
    return row


if __name__ == "__main__":
    run_cli(main, Config)
