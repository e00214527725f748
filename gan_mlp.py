"""A GAN of fully connected networks that draws MNIST's ten digits in their right shares.

    python gan_mlp.py          # 6 minutes on two cores; README.md has the table of seeds and what each part adds

Goodfellow et al. 2014, "Generative Adversarial Networks" (arXiv:1406.2661), without a single convolution. Such a GAN is
known for drawing too many 1s: a stroke of few pixels is the easiest thing to get right, and D, which sees one image at
a time, objects late. Here a classifier that never touches the training counts what is drawn, after every epoch: over
seeds 0 to 4 every digit has a share between 7.6 and 12.1 %, and the Fréchet distance is 5.4 to 6.5 times its floor.

Departures from the paper: BatchNorm in G, Adam and two steps per batch as in DCGAN (Radford et al. 2015,
arXiv:1511.06434), the non-saturating loss, images shifted by a pixel before D sees them, step sizes that fall to 0 over
the second half, and samples from a running average of G's weights.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common import BadInput, images, init
from common.classifier import SHARES, Judge, collapse
from common.compare import compare
from common.data import Dataset, load_dataset, to_float
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

PIXELS = 28 * 28


@dataclass(frozen=True)
class Config:
    # data
    dataset: str = "auto"  # mnist, fashion, kmnist, drawn, or a folder of images; auto: MNIST if it can be had
    data_dir: Path = ROOT / "data"  # where MNIST/raw is or will be, FashionMNIST/raw, KMNIST/raw
    # networks
    noise_size: int = 100  # numbers in z, standard normal [DCGAN]
    widths_g: tuple[int, ...] = (128, 256, 512)  # hidden layers of G, from the noise on [assumption]
    widths_d: tuple[int, ...] = (512, 256, 128)  # hidden layers of D, from the image on [assumption]
    leak: float = 0.2  # slope of D's leaky ReLU below 0 [DCGAN]
    batchnorm_g: bool = True  # BatchNorm in the hidden layers of G [DCGAN]
    shift: int = 1  # D sees every image moved by up to so many pixels [measured: see README]
    # optimisation
    epochs: int = 40  # passes over the training images [measured: see README]
    batch_size: int = 128  # images per update [DCGAN]
    learning_rate_d: float = 4e-4  # Adam step size of D [measured: see README]
    learning_rate_g: float = 1e-3  # Adam step size of G [measured: see README]
    decay_from: float = 0.5  # share of the updates after which both step sizes fall evenly to 0 [measured: see README]
    beta1: float = 0.5  # Adam's decay of the first moment [DCGAN]
    average: float = 0.999  # decay of the running average of G's weights that samples are drawn from; 0: G itself
    seed: int = 0  # decides weights, order and noise
    # machine
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"  # auto: cuda if there, then mps, else cpu
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # auto: bfloat16 where the hardware multiplies it
    # output
    out: Path = ROOT / "outputs"  # parent of the run folders
    resume: Path | None = None  # run folder to go on with, or to draw again
    compare: tuple[Path, ...] = ()  # run folders to show side by side, with what they differ in; trains nothing
    quiet: bool = False  # no bar and no line on the console, but for warnings and errors
    smoke: bool = False  # a complete run in seconds on a few drawn digits, to check an installation

    def __post_init__(self):
        """Raises BadInput for a field of another type or out of range."""
        check_fields(
            self,
            noise_size=(1, 4096),
            leak=(0, 1),
            shift=(0, 14),
            learning_rate_d=(0, 1),
            learning_rate_g=(0, 1),
            decay_from=(0, 0.99),
            beta1=(0, 0.9999),
            average=(0, 0.99999),
        )
        for name, widths in (("--widths-g", self.widths_g), ("--widths-d", self.widths_d)):
            if not 1 <= len(widths) <= 8 or min(widths) < 1 or max(widths) > 8192:
                raise BadInput(f"{name} must be one to eight widths from 1 to 8192, not {widths}")


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
        self.layers = nn.Sequential(*layers, nn.Linear(width_in, PIXELS), nn.Sigmoid())

    def forward(self, noise: Tensor) -> Tensor:
        """(n, noise_size) -> images (n, 1, 28, 28) in [0, 1]."""
        return self.layers(noise).float().view(-1, 1, 28, 28)


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


# Sampling ---------------------------------------------------------------------------------------------------------


def draw_noise(n: int, noise_size: int, random: torch.Generator) -> Tensor:
    """n latents (n, noise_size) from the prior, on the device of the random generator."""
    return torch.randn(n, noise_size, generator=random, device=random.device)


class Model:
    """A trained generator, the averaged one: draws images from noise, in eval mode, on the CPU."""

    def __init__(self, config: Config, generator: Generator):
        self.config, self.generator = config, generator.eval()

    @torch.no_grad()
    def generate(self, n: int = 1, noise: Tensor | None = None, seed: int | None = None) -> Tensor:
        """Draw images (n, 1, 28, 28) float32 in [0, 1].

        noise: (n, noise_size), drawn from the prior if not given; seed: makes that drawing repeatable.
        Raises ValueError for n below 1 and for noise of another shape or not finite.
        """
        if type(n) is not int or n < 1:
            raise ValueError(f"n must be a whole number of at least 1, not {n!r}")
        if noise is None:
            random = torch.Generator()
            random.seed() if seed is None else random.manual_seed(stream_seed(seed, "generate"))
            noise = draw_noise(n, self.config.noise_size, random)
        if noise.shape != (n, self.config.noise_size) or not noise.isfinite().all():
            raise ValueError(f"noise must be finite of shape {(n, self.config.noise_size)}, not {tuple(noise.shape)}")
        return self.generator(noise.float())


def load(run_folder: str | Path) -> Model:
    """The model of a run folder. Reads weights only, never code. Raises BadInput for a folder without such a run."""
    config = read_config(run_folder, Config)
    with torch.device("meta"):  # shapes without memory: the file must fit before anything is made from it
        generator = Generator(config)
    read_tensors(Path(run_folder) / "checkpoint.pt", averaged=generator)
    return Model(config, generator)


# Training ---------------------------------------------------------------------------------------------------------


def shifted(x: Tensor, reach: int, random: torch.Generator) -> Tensor:
    """Images (n, 1, 28, 28), each moved by its own draw of up to `reach` pixels in both directions, black coming in.

    D must judge drawn and real images moved alike, and G learns through the moving (Zhao et al. 2020, arXiv:2006.10738,
    "differentiable augmentation"): a fully connected D would otherwise learn single pixels by heart.
    """
    if reach == 0:
        return x
    wide = 28 + 2 * reach
    pixel = torch.arange(28, device=x.device)
    corner = torch.randint(2 * reach + 1, (2, len(x), 1), generator=random, device=x.device)
    where = corner[0] * wide + corner[1] + (pixel[:, None] * wide + pixel).flatten()  # (n, 784)
    return F.pad(x, (reach,) * 4).flatten(1).gather(1, where).view(-1, 1, 28, 28)


def discriminator_step(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    reals: Tensor,
    fakes: Tensor,
    autocast: torch.autocast,
) -> dict[str, Tensor]:
    """min over D of -E log D(x) - E log(1 - D(G(z))). The fakes are detached: moves D only."""
    with autocast:
        # In one pass: D has no BatchNorm that would mix the two, and one product of twice the height is faster.
        real_logits, fake_logits = discriminator(torch.cat((reals, fakes.detach()))).chunk(2)
    loss = discriminator_loss(real_logits, fake_logits)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return {"loss_d": loss, "d_real": real_logits.sigmoid().mean(), "d_fake": fake_logits.sigmoid().mean()}


def generator_step(
    discriminator: Discriminator, optimizer: torch.optim.Optimizer, fakes: Tensor, autocast: torch.autocast
) -> dict[str, Tensor]:
    """min over G of -E log D(G(z)), through D as the step before left it. Moves G only."""
    with autocast, frozen(discriminator):
        loss = generator_loss(discriminator(fakes))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return {"loss_g": loss}


@torch.no_grad()
def average_weights(averaged: Generator, generator: Generator, decay: float) -> None:
    """averaged <- decay * averaged + (1 - decay) * generator, for every weight.

    G circles around the point where it would fool D; the mean of the circle draws better than any point on it.
    """
    torch._foreach_lerp_(list(averaged.parameters()), list(generator.parameters()), 1 - decay)


@torch.no_grad()
def refresh_batchnorm(averaged: Generator, noise_size: int, random: torch.Generator) -> None:
    """Measure the BatchNorm statistics of the averaged weights on 10,000 latents.

    They belong to no weights that were ever trained, so the statistics gathered in training do not fit them.
    """
    norms = [layer for layer in averaged.modules() if isinstance(layer, nn.BatchNorm1d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean of what is seen, not a decaying one
    averaged.train()
    averaged(draw_noise(10_000, noise_size, random))
    averaged.eval()


class Players(NamedTuple):
    """What an update moves: `averaged` is the running average of `generator`, the others are trained."""

    generator: Generator
    discriminator: Discriminator
    averaged: Generator
    optimizer_d: torch.optim.Optimizer
    optimizer_g: torch.optim.Optimizer


def build(config: Config, device: torch.device) -> Players:
    """Networks with weights from PyTorch's global random state, and Adam for each."""
    generator, discriminator = Generator(config).to(device), Discriminator(config).to(device)
    init.fan_in_uniform_(generator)
    init.fan_in_uniform_(discriminator)
    optimizer_d = adam(discriminator, config.learning_rate_d, config.beta1)
    optimizer_g = adam(generator, config.learning_rate_g, config.beta1)
    return Players(generator, discriminator, copy.deepcopy(generator), optimizer_d, optimizer_g)


def update(
    players: Players, reals: Tensor, random: torch.Generator, config: Config, autocast: torch.autocast
) -> dict[str, Tensor]:
    """A step of D, then one of G, on the same drawn images; then the average. reals: (n, 1, 28, 28) in [0, 1]."""
    generator, discriminator, averaged, optimizer_d, optimizer_g = players
    noise = draw_noise(len(reals), config.noise_size, random)
    with autocast:
        fakes = generator(noise)
    moved_reals, moved_fakes = shifted(reals, config.shift, random), shifted(fakes, config.shift, random)
    seen_d = discriminator_step(discriminator, optimizer_d, moved_reals, moved_fakes, autocast)
    seen_g = generator_step(discriminator, optimizer_g, moved_fakes, autocast)
    average_weights(averaged, generator, config.average)
    return {**seen_d, **seen_g}


def main(config: Config) -> dict:
    """Train, measure, draw; return what report.json holds. Raises BadInput before anything is written."""
    if config.compare:
        return compare(config.compare, Config, config.out / "gan_mlp", config.quiet)
    device = choose_device(config.device)
    precision = choose_precision(config.precision, device)
    autocast = mixed_precision(device, precision)
    data = load_dataset(config.dataset, config.data_dir, config.smoke).to(device)
    check_batch_size(config, len(data.train_images))
    run = Run(config, "gan_mlp", data, device, precision)

    torch.manual_seed(stream_seed(config.seed, "weights"))
    random = run.stream("training")
    pictures = draw_noise(100, config.noise_size, run.stream("pictures"))

    players = build(config, device)
    averaged, optimizer_d, optimizer_g = players.averaged, players.optimizer_d, players.optimizer_g
    run.keep(**players._asdict(), random=random)

    draw_reals(run, data)
    if run.step == 0:
        draw_epoch(run, data, averaged, pictures)
    judge = Judge(data, config.data_dir, run.say) if data.classes else None

    def one_update(batch: Tensor) -> dict[str, Tensor]:
        return update(players, to_float(data.train_images.index_select(0, batch)), random, config, autocast)

    step = captured(one_update, device, random)
    for _ in run.remaining_epochs():
        for batch in run.batches():
            decay = min(1.0, (1 - run.progress) / (1 - config.decay_from))
            set_learning_rate(optimizer_d, config.learning_rate_d * decay)
            set_learning_rate(optimizer_g, config.learning_rate_g * decay)
            run.add(**step(batch))
        refresh_batchnorm(averaged, config.noise_size, run.stream("batchnorm"))
        mean = run.means()
        losses = {name: mean[name] for name in ("loss_d", "loss_g", "d_real", "d_fake")}
        # As many as there are test images: a Fréchet distance of two finite sets depends on their sizes.
        noise = draw_noise(len(data.test_images), config.noise_size, run.stream("judged samples"))
        judged = judge(draw_samples(averaged, noise)) if judge else {}
        run.finish_epoch({**losses, **judged}, unshown=SHARES, warn=collapse)
        draw_epoch(run, data, averaged, pictures)
    return report(run, data, averaged, pictures, judge)


# Measuring and drawing: the only place where labels are read ------------------------------------------------------


def draw_samples(generator: Generator, noise: Tensor) -> Tensor:
    """The images (n, 1, 28, 28) that G draws from noise (n, noise_size), in eval mode."""
    with evaluating(generator):
        return generator(noise)


def draw_reals(run: Run, data: Dataset) -> None:
    """reals.png: the first hundred training images."""
    shown = images.tiled(data.train_images, 10, 10) / 255
    images.save_grid(run.folder / "reals.png", shown, f"{data.title}: training images")


def draw_epoch(run: Run, data: Dataset, generator: Generator, pictures: Tensor) -> None:
    """epoch_NNN.png, a hundred samples from fixed noise, and curves.png as of the epochs that are complete."""
    with evaluating(generator):
        shown = generator(pictures).view(10, 10, 28, 28)
    title = f"{run.title}, epoch {run.epoch}\na hundred samples, the same noise in every epoch"
    images.save_grid(run.folder / f"epoch_{run.epoch:03d}.png", shown, title)
    run.sparingly(
        lambda: images.save_curves(
            run.folder / "curves.png",
            run.rows,
            run.title,
            panels={
                "Fréchet distance to the test images": ["frechet"],
                "distance of the classes' shares": ["share_distance"],
                "share of each class": SHARES,
                "losses [nats]": ["loss_d", "loss_g"],
                "mean probability of being real": ["d_real", "d_fake"],
            },
            logarithmic=("Fréchet distance to the test images", "distance of the classes' shares"),
            names=dict(zip(SHARES, data.classes, strict=False)),
        )
    )


def draw_interpolation(run: Run, generator: Generator, pictures: Tensor) -> None:
    """interpolation.png: eight walks from one latent to another.

    Along the great circle (White 2016, arXiv:1609.04468): the straight line would pass through latents shorter than
    any that G was trained on.
    """
    start, end = pictures[:8, None], pictures[8:16, None]
    where = torch.linspace(0, 1, 11, device=pictures.device)[None, :, None]
    angle = torch.arccos(F.cosine_similarity(start, end, dim=-1))[..., None]
    path = (torch.sin((1 - where) * angle) * start + torch.sin(where * angle) * end) / torch.sin(angle)
    with evaluating(generator):
        shown = generator(path.flatten(0, 1)).view(8, 11, 28, 28)
    title = f"{run.title}, epoch {run.epoch}\nin each row a walk from one noise to another"
    images.save_grid(
        run.folder / "interpolation.png", shown, title, column_labels=[f"{value:.1f}" for value in where.flatten()]
    )


def draw_neighbours(run: Run, data: Dataset, generator: Generator, pictures: Tensor) -> float:
    """neighbours.png: ten samples, each above the three training images nearest to it. Is it memorising?

    Returns the mean distance of the hundred samples to their nearest training image, over the same for the first
    hundred test images: far below 1 would be a copy machine.
    """
    reals = data.train_images.flatten(1).float() / 255
    with evaluating(generator):
        samples = generator(pictures).flatten(1)
    nearest = torch.cdist(samples, reals).topk(3, largest=False)
    fresh = torch.cdist(data.test_images[:100].flatten(1).float() / 255, reals).min(dim=1).values
    rows = torch.cat((samples[None, :10], reals[nearest.indices[:10]].transpose(0, 1)))
    title = f"{run.title}, epoch {run.epoch}\nsamples, and the training images nearest to them"
    labels = ("sample", "nearest", "second", "third")
    images.save_grid(run.folder / "neighbours.png", rows.view(4, 10, 28, 28), title, labels)
    return float(nearest.values[:, 0].mean() / fresh.mean())


def draw_shares(run: Run, data: Dataset, shares: list[float], target: list[float]) -> None:
    """digits.png: how often each class is drawn, beside how often it is in the training set."""
    figure = images.new_figure(7, 3.6)
    axes = figure.add_subplot()
    places = np.arange(len(data.classes))
    axes.bar(places - 0.2, target, width=0.4, label="training images", color="0.65")
    axes.bar(places + 0.2, shares, width=0.4, label=f"{len(data.test_images):,} samples", color="tab:blue")
    axes.set_xticks(places, data.classes)
    images.slant_long(axes)
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_ylabel("share")
    axes.set_ylim(0, 1.25 * max(*shares, *target))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, ncols=2, loc="upper center")
    axes.set_title(f"{run.title}, epoch {run.epoch}: what is drawn", fontsize=10)
    images.save_figure(run.folder / "digits.png", figure)


def report(run: Run, data: Dataset, averaged: Generator, pictures: Tensor, judge: Judge | None) -> dict:
    """The figures and report.json of a finished run."""
    last = run.rows[-1]
    judged = {}
    if judge:
        shares = [last[name] for name in judge.columns]
        draw_shares(run, data, shares, judge.train_shares.tolist()[: len(shares)])
        judged = {
            "classes": ", ".join(data.classes),
            "frechet": last["frechet"],
            "frechet_floor": judge.floor,
            "frechet_in_floors": last["frechet"] / judge.floor,
            "share_distance": last["share_distance"],
            "share_smallest": min(shares),
            "share_largest": max(shares),
            "classifier_accuracy": judge.accuracy,
        }
    draw_interpolation(run, averaged, pictures)
    novelty = draw_neighbours(run, data, averaged, pictures)
    images.save_animation(run.folder / "training.gif", sorted(run.folder.glob("epoch_*.png")))
    return run.report(
        {
            "dataset": data.name,
            "epochs": run.epoch,
            **judged,
            "nearest_distance_over_test_images": novelty,
            "seconds": sum(row["seconds"] for row in run.rows),
            "warning": collapse(run.rows),
        }
    )


if __name__ == "__main__":
    launch(main, Config)
