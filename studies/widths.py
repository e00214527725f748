"""How many hidden units does the autoencoder need? One run per width, and the error against the width, beside PCA's.

    python studies/widths.py
    python studies/widths.py --epochs 10 --seed 1

Takes the flags of autoencoder.py except `--hidden` and `--resume`. Writes widths.csv and widths.png to
outputs/autoencoder/widths-NNN, which also holds the run folders.
"""

import dataclasses
import sys
from pathlib import Path

from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import autoencoder
from common.data import load_dataset
from common.look import plots
from common.run.cli import parse, run_program
from common.run.files import numbered_folder, write_csv
from common.run.run import batch_ends
from common.train.device import choose_device
from studies.seeds import refuse

WIDTHS = (10, 32, 50, 100, 200, 400)


def main(arguments: list[str]) -> list[dict]:
    """Train every width, save the plot; return the rows of widths.csv. Raises BadInput before anything is written."""
    refuse(arguments, ("hidden", "resume"))
    config = parse(autoencoder.Config, arguments)
    choose_device(config.device)
    data = load_dataset(config.dataset, config.data_dir, config.smoke)
    batch_ends(config, len(data.train_images))  # raises for a batch that can't be
    folder = numbered_folder(config.out / "autoencoder", "widths")
    digit = data.test_images[:1, None] / 255
    rows, pictures = [], [digit]
    for width in WIDTHS:
        report = autoencoder.main(dataclasses.replace(config, hidden=width, dataset=data.source, out=folder))
        rows.append({"hidden": width, **report})
        model = autoencoder.load(report["folder"])
        pictures.append(model.decode(model.encode(digit)))
    write_csv(folder / "widths.csv", rows)
    save_plot(folder / "widths.png", rows, pictures)
    if not config.quiet:
        print(f"\nfolder: {folder}")
    return rows


def save_plot(path: Path, rows: list[dict], pictures: list[Tensor]) -> None:
    """Test error against width with PCA's, above one test image and its reconstruction at every width."""
    with plots.new_figure(8, 5.6) as figure:
        grid = figure.add_gridspec(2, len(pictures), height_ratios=(3, 1))
        axes = figure.add_subplot(grid[0, :])
        widths = [row["hidden"] for row in rows]
        axes.plot(widths, [row["test_mse"] for row in rows], "o-", label="autoencoder")
        axes.plot(widths, [row["pca_test_mse"] for row in rows], ":", color="k", label="PCA with as many numbers")
        plots.logarithmic_axis(axes)
        axes.set(xscale="log", xlabel="hidden units", ylabel="test error (mean squared, per pixel)")
        axes.set_xticks(widths, widths)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
        title = f"Autoencoder on {rows[0]['dataset']}: more hidden units, lower error, sharper picture"
        axes.set_title(title, fontsize=11)
        for column, (picture, title) in enumerate(zip(pictures, ["original", *widths], strict=True)):
            panel = figure.add_subplot(grid[1, column])
            panel.imshow(picture[0, 0].numpy(), cmap="gray", vmin=0, vmax=1)
            panel.set_title(title, fontsize=9)
            panel.axis("off")
        plots.save_figure(path, figure)


if __name__ == "__main__":
    run_program(main)
