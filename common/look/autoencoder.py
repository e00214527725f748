"""The autoencoder's pictures and report: reconstructions, weights of hidden units, best and worst images."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.data import to_float
from common.look import figures, plots
from common.run.run import Run
from common.train.device import eval_mode

# columns of metrics.csv on the console and in curves.png
COLUMNS = {"ratio": "over PCA", "test_mse": "test error", "train_mse": "train error", "dead_units": "dead"}


def reconstruct(model: nn.Module, x: Tensor) -> Tensor:
    """Images (n, 28, 28) uint8 -> their reconstructions (n, 28, 28) float32, not clipped."""
    with eval_mode(model):
        return model(to_float(x).flatten(1)).view(-1, 28, 28)


def save_epoch(run: Run, model: nn.Module) -> None:
    """epoch_NNN.png, test images above their reconstructions, and curves.png as of the epochs that are complete."""
    if run.picture_due:
        x = run.data.test_images[:30]
        pairs = torch.stack((figures.tile(x / 255, 3, 10), figures.tile(reconstruct(model, x), 3, 10)), dim=1)
        title = f"{run.title}, {run.when}\ntest images above their reconstructions"
        labels = ("original", "output") * 3
        figures.save_grid(run.folder / f"epoch_{run.epoch:03d}.png", pairs.flatten(0, 1), title, labels)
    error, ratio = "mean squared error per pixel", "test error over that of PCA"
    panels = {
        error: ["train_mse", "test_mse", "pca_test_mse"],
        "training loss": ["loss"],
        ratio: ["ratio"],
        "hidden units that are always 0": ["dead_units"],
    }
    plots.save_curves(run, panels, reference={ratio: (1.0, "PCA")}, logarithmic=(error,), names=COLUMNS)


def save_hidden_units(run: Run, model: nn.Module) -> None:
    """hidden_units.png: the weights of the encoder of each of the first fifty units, beside those of the decoder.

    Weights have a sign: grey is 0, white and black are plus and minus the largest weight of either layer.
    """
    both = model.encoder.weight[:50].detach(), model.decoder.weight.T[:50].detach()
    pairs = torch.stack([weight / weight.abs().max() / 2 + 0.5 for weight in both], dim=1).view(-1, 28, 28)
    images, labels = figures.tile(pairs, math.ceil(len(pairs) / 10), 10), ("detects", "adds") * 5
    title = f"{run.title}, {run.when}\nweights of {len(both[0])} hidden units; grey is 0"
    figures.save_grid(run.folder / "hidden_units.png", images, title, column_labels=labels)


def save_extremes(run: Run, model: nn.Module) -> None:
    """extremes.png: the ten test images that are reconstructed best and worst."""
    output = reconstruct(model, run.data.test_images)
    order = (output - run.data.test_images / 255).square().mean(dim=(1, 2)).argsort()
    rows = []
    for chosen in (order[:10], order[-10:]):
        rows += [run.data.test_images[chosen] / 255, output[chosen]]
    title = f"{run.title}, {run.when}\nthe test images reconstructed best and worst"
    figures.save_grid(run.folder / "extremes.png", torch.stack(rows), title, ("best", "output", "worst", "output"))


def save_range(run: Run, model: nn.Module) -> None:
    """range.png: the same outputs clipped to [0, 1], and stretched from their minimum to their maximum."""
    output = reconstruct(model, run.data.test_images[:10])
    stretched = (output - output.min()) / (output.max() - output.min())
    rows = torch.stack((run.data.test_images[:10] / 255, output, stretched))
    title = f"{run.title}, {run.when}\none network, two ways to show its output"
    figures.save_grid(run.folder / "range.png", rows, title, ("original", "clipped to [0, 1]", "stretched"))


def report(run: Run, model: nn.Module, final: dict[str, float], warnings: Sequence[str | None]) -> dict:
    """The pictures and report.json of a finished run. final: the columns of metrics.csv on all images."""
    for save in (save_hidden_units, save_extremes, save_range):
        run.attempt(save, model)
    run.attempt(figures.save_animation)
    errors = f"{final['test_mse']:.6f} per pixel, {final['pca_test_mse']:.6f} of PCA with as many units"
    ratio = f"{final['ratio']:.4f}" if "ratio" in final else "none"
    lines = {"test error": errors, "ratio": ratio, "dead units": str(final["dead_units"])}
    return run.finish({"ratio": None, **final}, lines, f"epoch_{run.epoch:03d}.png", warnings=warnings)
