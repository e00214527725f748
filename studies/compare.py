"""Finished or stopped runs of one script side by side, after an evening of tweaking.

    python studies/compare.py outputs/infogan/run-001 outputs/infogan/run-002

Writes compare.png (the curves of all runs, above the last pictures of each) and compare.csv (a column per run: the
fields in which they differ, then what they reached) to outputs/<script>/compare-NNN, and prints where they differ, with
a star at the best of each figure that all runs have and of which more, or less, is better.
"""

import argparse
import importlib
import math
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import BadInput
from common.look import plots
from common.look.fonts import font
from common.look.metrics import SHARE
from common.run.cli import Parser, run_program
from common.run.config import Settings, read_config
from common.run.files import atomic_write, numbered_folder, read_json, read_rows, write_csv
from common.run.run import TIME_COLUMNS
from studies.seeds import PLACES, SCRIPTS

ACROSS = 3  # panels, and pictures, in a row
GAP = 16  # screen pixels between pictures
HIGHER = r"(guide_)?accuracy|accuracy_majority_map|drawn_as_meant|info_c\d_nats|guide_neighbours_agree"  # is better
LOWER = r"frechet|frechet_over_floor|ratio|(train|test)_mse|class_total_variation|dead_units"
NAMES = {  # of the columns of metrics.csv, above their curves
    **{"accuracy": "c1 right on test images", "loss": "training loss", "loss_d": "loss of D", "loss_g": "loss of G"},
    **{"d_real": "D(x): how real D finds real images", "d_fake": "D(G(z)): how real D finds generated images"},
    **{"frechet": "Fréchet distance", "frechet_over_floor": "Fréchet distance over that of real images"},
    **{"class_total_variation": "shares of the classes off those of training images", "ratio": "test error over PCA's"},
    **{"train_mse": "training error", "test_mse": "test error", "pca_test_mse": "PCA's test error"},
    "dead_units": "hidden units that are always 0",
}


@dataclass(frozen=True)
class Found:
    """What a run folder holds: fields of its Config, rows of metrics.csv, what the run reached (its complete epochs and
    the figures of the last one, then those of report.json, which count more), the first three pictures of its last
    epoch: of c1, c2 and c3."""

    fields: dict[str, Any]
    rows: list[dict[str, float]]
    reached: dict[str, Any]
    pictures: list[Image.Image]


def look_into(folder: Path, config_class: type[Settings]) -> Found:
    """The content of a run folder. Raises BadInput, naming the file, if it holds no run of this script."""
    config, rows, report = read_config(folder, config_class), read_rows(folder / "metrics.csv"), folder / "report.json"
    last = next((row for row in reversed(rows) if isinstance(row["epoch"], int)), {"epoch": 0})
    reached = {name: value for name, value in last.items() if name not in TIME_COLUMNS}
    reached |= read_json(report) if report.exists() else {}
    last = max((path.stem.split("_")[1] for path in folder.glob("epoch_*.png")), key=int, default="")
    fields = {name: value for name, value in vars(config).items() if name not in PLACES}
    return Found(fields, rows, reached, [*map(load_picture, sorted(folder.glob(f"epoch_{last}*.png"))[:3])])


def load_picture(path: Path) -> Image.Image:
    """A picture in colour. Raises BadInput for a damaged one."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, SyntaxError) as error:  # the second is Pillow's word for a damaged PNG
        raise BadInput(f"{path}: cannot be read: {error}") from None


def make_table(runs: dict[str, Found]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A row per field in which the runs differ, and one per figure, its name under ""; "" for what a run lacks."""
    names = dict.fromkeys(name for run in runs.values() for name in run.fields)
    fields = [{"": name, **{run: found.fields[name] for run, found in runs.items()}} for name in names]
    names = dict.fromkeys(name for run in runs.values() for name in run.reached if name not in names)
    figures = [{"": name, **{run: found.reached.get(name, "") for run, found in runs.items()}} for name in names]
    return list(filter(differs, fields)), figures


def differs(row: dict[str, Any]) -> bool:
    return len({str(value) for name, value in row.items() if name}) > 1


def print_table(fields: list[dict[str, Any]], figures: list[dict[str, Any]]) -> None:
    """Print the fields, then the figures in which the runs differ, the best with a star."""
    heading, figures = list(figures[0]), list(filter(differs, figures))
    figures.sort(key=lambda row: not row[""].startswith(("accuracy", "frechet_over_floor", "ratio")))
    lines = [heading, *map(cells, fields), [], *map(cells, figures)]
    widths = [max(map(len, column)) for column in zip(*filter(None, lines), strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False)).rstrip())


def cells(row: dict[str, Any]) -> list[str]:
    """A row as it is printed."""
    name, *values = row.values()
    known = [value for value in values if isinstance(value, (int, float))]
    better = max if re.fullmatch(HIGHER, name) else min if re.fullmatch(LOWER, name) else None
    best = better(known) if better and len(known) == len(values) else None
    texts = (f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)
    stars = (" *" if value == best and best is not None else "" for value in values)
    return [name, *map(str.__add__, texts, stars)]


def save_page(path: Path, runs: dict[str, Found]) -> None:
    """The curves of all runs, {label: run}, above the last pictures of each; no file if there is neither."""
    columns = dict.fromkeys(name for run in runs.values() for row in run.rows for name in row)
    columns = [name for name in columns if name not in ("epoch", *TIME_COLUMNS) and not name.startswith(SHARE)]
    rows = [[curves(runs, columns)]] if columns else []
    pictures = [[captioned(picture, name) for picture in run.pictures] for name, run in runs.items()]
    at_once = 1 if max(map(len, pictures)) > 1 else ACROSS  # runs in a row
    rows += filter(None, (list(chain(*pictures[i : i + at_once])) for i in range(0, len(pictures), at_once)))
    if not rows:
        return
    heights = [max(piece.height for piece in row) for row in rows]
    width = max(sum(piece.width for piece in row) for row in rows)
    page = Image.new("RGB", (width, sum(heights)), "white")
    for i, row in enumerate(rows):
        for j, piece in enumerate(row):
            page.paste(piece, (sum(left.width for left in row[:j]), sum(heights[:i])))
    with atomic_write(path) as scratch:
        page.save(scratch, format="PNG")


def curves(runs: dict[str, Found], columns: Sequence[str]) -> Image.Image:
    """Columns of metrics.csv over the epochs, a panel per column, a line per run."""
    down = math.ceil(len(columns) / ACROSS)
    with plots.new_figure(4.9 * ACROSS, 2.9 * down + 0.5) as figure:
        for i, column in enumerate(columns):
            axes = plots.epoch_axes(figure, (down, ACROSS, i + 1), readable(column))
            for name, run in runs.items():
                points = [(row["epoch"], row[column]) for row in run.rows if column in row]
                epochs, values = zip(*points, strict=True) if points else ((), ())
                axes.plot(epochs, values, label=name, marker="o", markersize=2.5, linewidth=1.4)
            values = [row[column] for run in runs.values() for row in run.rows if column in row]
            if 0 < 100 * min(values) < max(values):
                plots.logarithmic_axis(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
        return plots.rendered(figure)


def readable(column: str) -> str:
    """The name of a column of metrics.csv in a picture."""
    if found := re.fullmatch(r"(info|guide)_(c\d)_nats", column):
        return f"what {'generated' if found[1] == 'info' else 'real'} images tell of {found[2]} [nats]"
    return NAMES.get(column, column)


def captioned(grid: Image.Image, name: str) -> Image.Image:
    """A picture of a run below the run's name."""
    piece = Image.new("RGB", (grid.width + GAP, grid.height + 24), "white")
    piece.paste(grid, (0, 24))
    ImageDraw.Draw(piece).text((12, 6), name, fill="black", font=font(16, name))
    return piece


def main(arguments: list[str]) -> dict[str, dict[str, Any]]:
    """Write the files and print the table; return {run: what it reached}.

    Raises BadInput, before anything is written, for fewer than two folders, one that comes twice, one that holds no
    run, and runs of several scripts.
    """
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of one script")
    parser.add_argument("--out", type=Path, default=Settings.out, help="parent of the run folders")
    own = parser.parse_args(arguments)
    paths = [path.resolve() for path in own.runs]
    if len(set(paths)) < max(2, len(paths)):
        raise BadInput("give two run folders or more, each once")
    script = read_json(paths[0] / "config.json").get("script")
    if script not in SCRIPTS:
        raise BadInput(f"{paths[0] / 'config.json'}: is a run of none of {', '.join(SCRIPTS)}")
    config_class = importlib.import_module(script).Config
    shared = os.path.commonpath(path.parent for path in paths)  # names are run-001, or one/infogan/run-001 if needed
    runs = {path.relative_to(shared).as_posix(): look_into(path, config_class) for path in paths}
    (fields, figures), folder = make_table(runs), numbered_folder(own.out / script, "compare")
    write_csv(folder / "compare.csv", fields + figures)
    labels = {run: ", ".join([run, *(f"{row['']} {row[run]}" for row in fields)]) for run in runs}
    save_page(folder / "compare.png", {labels[name]: run for name, run in runs.items()})
    print_table(fields, figures)
    print(f"folder: {folder}", flush=True)
    return {name: run.reached for name, run in runs.items()}


if __name__ == "__main__":
    run_program(main)
