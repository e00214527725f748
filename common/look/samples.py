"""What samples show of a generator: the shares of the classes, and the training images nearest to them."""

import numpy as np
import torch
from torch import Tensor

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


def draw_shares(run: Run, shares: list[float], target: list[float]) -> None:
    """digits.png: how often each class is generated, beside how often it is in the training set."""
    target = target[: len(shares)]
    with plots.new_figure(7, 3.6, run.data.text) as figure:
        axes = figure.add_subplot()
        places = np.arange(len(shares))
        axes.bar(places - 0.2, target, width=0.4, label="training images", color="0.65")
        axes.bar(places + 0.2, shares, width=0.4, label=f"{len(run.data.test_images):,} samples", color="tab:blue")
        axes.set_xticks(places, run.data.classes)
        plots.slant_long(axes)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_ylabel("share")
        axes.set_ylim(0, 1.25 * max(*shares, *target))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, ncols=2, loc="upper center")
        axes.set_title(f"{run.title}, {run.when}: what is drawn", fontsize=10)
        plots.save_figure(run.folder / "digits.png", figure)
