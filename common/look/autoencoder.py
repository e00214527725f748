"""The autoencoder's pictures and report: reconstructions, weights of hidden units, best and worst images."""

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
        title = f"{run.headline}\ntest images above their reconstructions"
        labels = ("original", "output") * 3
        figures.save_grid(run.folder / f"epoch_{run.epoch:03d}.png", pairs.flatten(0, 1), title, labels)
    error, ratio = "mean squared error per pixel", "test error over that of PCA"
    panels = {
        error: ["train_mse", "test_mse", "pca_test_mse"],
        "training loss": ["loss"],
        ratio: ["ratio"],
        "hidden units that are always 0": ["dead_units"],
    }
    names = COLUMNS | {"loss": "training loss", "pca_test_mse": "PCA's test error"}
    plots.save_curves(run, panels, reference={ratio: (1.0, "PCA")}, logarithmic=(error,), names=names)


def save_hidden_units(run: Run, model: nn.Module) -> None:
    """hidden_units.png: what the twelve units with the largest weights detect (encoder) and add (decoder)."""
    detects, adds = model.encoder.weight.detach().cpu(), model.decoder.weight.T.detach().cpu()
    largest = (detects.norm(dim=1) * adds.norm(dim=1)).argsort(descending=True)[:12]
    with plots.new_figure(8, 5.7, run.title) as figure:
        panels = figure.subplots(4, 6)
        for weights, name, lines in ((detects, "detects", panels[::2]), (adds, "adds", panels[1::2])):
            limit = weights[largest].abs().quantile(0.99)  # a pixel that hardly any image has may weigh far more
            for axes in lines.flat:
                axes.set_axis_off()
            for axes, weight in zip(lines.flat, weights[largest], strict=False):
                axes.imshow(weight.view(28, 28).numpy(), cmap="RdBu_r", vmin=-limit, vmax=limit)
                axes.set(xticks=[], yticks=[])
                axes.set_axis_on()
            for line in lines:
                line[0].set_ylabel(name)
        figure.suptitle(f"{run.headline}\nthe {len(largest)} units with the largest weights; red: above 0, blue: below")
        plots.save_figure(run.folder / "hidden_units.png", figure)


def save_extremes(run: Run, model: nn.Module) -> None:
    """extremes.png: the ten test images that are reconstructed best and worst."""
    output = reconstruct(model, run.data.test_images)
    order = (output - run.data.test_images / 255).square().mean(dim=(1, 2)).argsort()
    rows = []
    for chosen in (order[:10], order[-10:]):
        rows += [run.data.test_images[chosen] / 255, output[chosen]]
    title = f"{run.headline}\nthe test images reconstructed best and worst"
    figures.save_grid(run.folder / "extremes.png", torch.stack(rows), title, ("best", "output", "worst", "output"))


def save_range(run: Run, model: nn.Module) -> None:
    """range.png: the same outputs clipped to [0, 1], and stretched from their minimum to their maximum."""
    output = reconstruct(model, run.data.test_images[:10])
    stretched = (output - output.min()) / (output.max() - output.min())
    rows = torch.stack((run.data.test_images[:10] / 255, output, stretched))
    title = f"{run.headline}\none network, two ways to show its output"
    figures.save_grid(run.folder / "range.png", rows, title, ("original", "clipped to [0, 1]", "stretched"))


def report(run: Run, model: nn.Module, final: dict[str, float], warnings: Sequence[str | None]) -> dict:
    """The pictures and report.json of a finished run. final: the columns of metrics.csv on all images."""
    for save in (save_hidden_units, save_extremes, save_range):
        run.attempt(save, model)
    run.attempt(figures.save_animation)
    errors = f"{final['test_mse']:.5f} per pixel, {final['pca_test_mse']:.5f} of PCA with as many units"
    ratio = f"{final['ratio']:.4f}" if "ratio" in final else "none"
    lines = {"test error": errors, "ratio": ratio, "dead units": str(final["dead_units"])}
    return run.finish({"ratio": None, **final}, lines, f"epoch_{run.epoch:03d}.png", warnings=warnings)
