"""What samples show of a generator: the shares of the classes, and the training images nearest to them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.data import Dataset
from common.look import figures, metrics, plots
from common.run import Run


def draw_neighbours(run: Run, samples: Tensor) -> float | None:
    """neighbours.png: ten of the samples (100, 1, 28, 28), each above the three training images nearest to it.

    Returns the mean distance of the samples to their nearest training image, over the same for the first hundred test
    images: far below 1 means that the generator copies. None where the test images are all training images, too.
    """
    reals = run.data.train_images.flatten(1).float() / 255
    samples = samples.flatten(1)
    nearest = torch.cdist(samples, reals).topk(3, largest=False)
    fresh = torch.cdist(run.data.test_images[:100].flatten(1).float() / 255, reals).min(dim=1).values
    rows = torch.cat((samples[None, :10], reals[nearest.indices[:10]].transpose(0, 1)))
    title = f"{run.title}, {run.when}\nsamples, and the training images nearest to them"
    labels = ("sample", "nearest", "second", "third")
    figures.save_grid(run.folder / "neighbours.png", rows.view(4, 10, 28, 28), title, labels)
    return metrics.quotient(nearest.values[:, 0].mean().item(), fresh.mean().item())


def draw_shares(path: Path, data: Dataset, title: str, shares: Sequence[Sequence[float]], pdf: bool = True) -> None:
    """How often each class is generated, beside how often it is in the training set.

    shares: (runs, classes); with several runs a bar is the median, with a line from the minimum to the maximum.
    """
    target = data.shares[: len(data.classes)].tolist()
    low, middle, high = np.quantile(shares, (0, 0.5, 1), axis=0)
    spread = {"yerr": (middle - low, high - middle), "capsize": 3} if len(shares) > 1 else {}
    label = f"{len(data.test_images):,} samples" + (f" of each of {len(shares)} runs" if spread else "")
    with plots.new_figure(7, 3.6, data.text) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(middle))
        axes.bar(places - 0.2, target, width=0.4, label="training images", color="0.65")
        axes.bar(places + 0.2, middle, width=0.4, label=label, color="tab:blue", **spread)
        axes.set_xticks(places, data.classes)
        plots.slant_long(axes)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_ylabel("share")
        axes.set_ylim(0, 1.25 * max(*high, *target))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=2, loc="upper center")
        axes.set_title(title, fontsize=10)
        plots.save_figure(path, figure, pdf)
