"""The GAN's pictures and report: samples, shares of the classes, walks between latents, nearest training images."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from common.data import DIGITS, Dataset
from common.look import figures, metrics, plots
from common.look.fonts import display_names
from common.look.scorer import SampleScorer
from common.run.run import Run

# columns of metrics.csv on the console
COLUMNS = {"frechet_over_floor": "Fréchet ×", "class_total_variation": "shares off %"}
COLUMNS |= {"loss_d": "loss D", "loss_g": "loss G", "d_real": "D(x)", "d_fake": "D(G(z))"}
LEGEND = "D(x), D(G(z)): how real D finds real and generated images, 0.5 if it can't tell"


def save_epoch(run: Run, model: nn.Module, noise: Tensor) -> None:
    """epoch_NNN.png, a hundred samples from fixed noise, and curves.png as of the epochs that are complete."""
    if run.picture_due:
        title = f"{run.headline}\na hundred samples, the same noise in every epoch"
        images = model.generate(100, noise).view(10, 10, 28, 28)
        figures.save_grid(run.folder / f"epoch_{run.epoch:03d}.png", images, title)
    frechet, off = "Fréchet distance over that of real images", "shares off those of training images [%]"
    shares, real = "share of each class [%]", "how real D finds images"
    names = zip(run.data.classes, display_names(run.data.classes), strict=True)
    names = {metrics.SHARE + name: shown for name, shown in names}
    panels = {
        frechet: ["frechet_over_floor"],
        off: ["class_total_variation"],
        shares: list(names),
        "losses [nats]": ["loss_d", "loss_g"],
        real: ["d_real", "d_fake"],
    }
    names |= COLUMNS | {"class_total_variation": "shares off"}
    how = {"reference": {real: (0.5, "can't tell")}, "limits": {real: (0, 1)}, "percent": (off, shares)}
    plots.save_curves(run, panels, logarithmic=(frechet, off), names=names, **how)


def save_interpolation(run: Run, model: nn.Module, noise: Tensor) -> None:
    """interpolation.png: eight walks from one latent to another.

    Along the great circle (White 2016, arXiv:1609.04468): the straight line would pass through latents shorter than
    any that G was trained on.
    """
    start, end = noise[:8, None], noise[8:16, None]
    where = torch.linspace(0, 1, 11, device=noise.device)[None, :, None]
    angle = torch.arccos(F.cosine_similarity(start, end, dim=-1).clamp(-1, 1))[..., None]
    path = (torch.sin((1 - where) * angle) * start + torch.sin(where * angle) * end) / torch.sin(angle)
    parallel = torch.sin(angle) < 1e-3  # as all vectors of one number are
    path = torch.where(parallel, torch.lerp(start, end, where), path)
    images = model.generate(8 * 11, path.flatten(0, 1)).view(8, 11, 28, 28)
    title = f"{run.headline}\nin each row a walk from one noise to another"
    labels = [f"{value:.1f}" for value in where.flatten()]
    figures.save_grid(run.folder / "interpolation.png", images, title, column_labels=labels)


def save_neighbours(run: Run, model: nn.Module, noise: Tensor) -> float | None:
    """neighbours.png: the samples of the first ten of a hundred latents, above the training images nearest to them.

    Returns the mean distance of the samples to their nearest training image, over the same for the first hundred test
    images: far below 1 means that the generator copies. None if the test images are all training images, too.
    """
    real = run.data.train_images.flatten(1).float() / 255
    samples = model.generate(100, noise).flatten(1)
    nearest = torch.cdist(samples, real).topk(3, largest=False)
    unseen = torch.cdist(run.data.test_images[:100].flatten(1).float() / 255, real).min(dim=1).values
    rows = torch.cat((samples[None, :10], real[nearest.indices[:10]].transpose(0, 1)))
    title = f"{run.headline}\nsamples, and the training images nearest to them"
    labels = ("sample", "nearest", "second", "third")
    figures.save_grid(run.folder / "neighbours.png", rows.view(4, 10, 28, 28), title, labels)
    return metrics.quotient(nearest.values[:, 0].mean().item(), unseen.mean().item())


def save_shares(path: Path, data: Dataset, headline: str, shares: Sequence[Sequence[float]]) -> None:
    """How often each class is generated, beside how often it is in the training set.

    shares: (runs, classes); with several runs a dot is the median, with a line from the minimum to the maximum.
    """
    target, classes = data.shares.tolist(), display_names(data.classes)
    low, middle, high = np.quantile(shares, (0, 0.5, 1), axis=0)
    spread = {"yerr": (middle - low, high - middle), "capsize": 3} if len(shares) > 1 else {}
    label = f"{len(data.test_images):,} samples"
    if spread:
        label += f" of each of {len(shares)} runs, median and range"
    kind = "digit" if data.classes == DIGITS else "class"
    with plots.new_figure(max(7, 0.27 * len(classes)), 3.6, headline + "".join(classes)) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(middle))
        axes.plot(places, target, "_", markersize=18, markeredgewidth=3, color="0.6", label="training images")
        axes.errorbar(places, middle, fmt="o", color="tab:blue", label=label, **spread)
        axes.set_xticks(places, classes)
        plots.rotate_long_labels(axes)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set(xlabel=kind, ylabel="share")
        bottom, top = min(*low, *target), max(*high, *target)
        axes.set_ylim(max(0, bottom - 0.1 * (top - bottom) - 0.005), top + 0.3 * (top - bottom) + 0.005)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=2, loc="upper center")
        axes.set_title(f"{headline}: share of each {kind}", fontsize=10)
        plots.save_figure(path, figure)


def save_digits(run: Run, shares: Sequence[float]) -> None:
    """digits.png: the shares of this run."""
    save_shares(run.folder / "digits.png", run.data, run.headline, [shares])


def report(run: Run, model: nn.Module, noise: Tensor, scorer: SampleScorer | None) -> dict:
    """The pictures and report.json of a finished run."""
    scores, lines = {}, {}
    if scorer:
        scores = {"classes": ", ".join(run.data.classes), **scorer.summary(run.rows[-1])}
        lines = scorer.scorecard(scores)
        run.attempt(save_digits, [run.rows[-1][name] for name in scorer.columns])
    run.attempt(save_interpolation, model, noise)
    novelty = run.attempt(save_neighbours, model, noise)
    run.attempt(figures.save_animation)
    collapsed = metrics.collapse(run.epoch_rows, scorer and scorer.train_shares, at_end=True)
    if novelty is not None:
        lines["novelty"] = f"samples are {novelty:.2f} × as far from training images as test images"
    numbers = {**scores, "nearest_distance_over_test_images": novelty}
    return run.finish(numbers, lines, f"epoch_{run.epoch:03d}.png", warnings=(collapsed,))
