"""How soon does the category tell the digits apart? Accuracy of c1 over minutes, for every run of some studies.

    python studies/accuracy_over_time.py outputs/seeds/infogan/default outputs/seeds/infogan/paper

A study is a folder that `studies/seeds.py infogan.py` has written. Minutes count from a run's start; the clustering of
real images, with a guide, is part of the first epoch's. Writes accuracy.csv and accuracy.png to
studies/results/. What the csv has of other runs stays, so that a study can grow on several machines.
"""

import argparse
import csv
import sys
from itertools import accumulate
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common import BadInput
from common.look import plots
from common.run.cli import Parser, run_program
from common.run.config import ROOT
from common.run.files import read_rows, write_csv

RESULTS = ROOT / "studies" / "results"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # for the colour-blind, too (Okabe and Ito)

Points = list[tuple[float, float]]
Curves = dict[tuple[str, int], Points]  # by setting and seed


def read_curves(path: Path) -> Curves:
    """The points of each setting and seed in a csv of `write_curves`; none without such a file."""
    curves: Curves = {}
    if path.exists():
        with path.open(newline="", encoding="utf-8") as file:
            for setting, seed, x, y in list(csv.reader(file))[1:]:
                curves.setdefault((setting, int(seed)), []).append((float(x), float(y)))
    return curves


def write_curves(path: Path, curves: Curves, x: str, y: str) -> None:
    """A row per point. x, y: the columns' names."""
    columns = ("setting", "seed", x, y)
    write_csv(path, [dict(zip(columns, (*run, *at), strict=True)) for run in sorted(curves) for at in curves[run]])


def save_lines(
    path: Path, groups: dict[str, list[Points]], title: str, axis: str, limits: tuple, level: tuple[float, str]
) -> None:
    """A picture, 800 pixels wide, with a thin line per run and a colour per group, named to the right of its lines.

    axis: what x is; limits: of y, None if the lines decide; level: height and label of a dashed line.
    """
    with plots.new_figure(20 / 3, 4.2) as figure:
        axes = figure.add_subplot(title=title, xlabel=axis)
        names = []
        for number, (name, lines) in enumerate(groups.items()):
            colour = COLOURS[number % len(COLOURS)]
            for points in lines:
                axes.plot(*zip(*points, strict=True), color=colour, linewidth=0.9, marker=".", markersize=3)
            names.append((sum(points[-1][1] for points in lines) / len(lines), name, colour))
        axes.set(xlim=(0, None), ylim=limits)
        axes.axhline(level[0], color="0.35", linestyle="--", linewidth=1)
        axes.text(0.01, level[0], level[1], color="0.35", va="bottom", transform=axes.get_yaxis_transform())
        plots.label_ends(axes, names)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        plots.save_figure(path, figure)


def main(arguments: list[str]) -> None:
    """Collect the runs, save the picture. Raises BadInput for a study without a run."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("studies", nargs="+", type=Path, help="folders that seeds.py has written")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the pictures")
    own = parser.parse_args(arguments)
    curves = read_curves(own.out / "accuracy.csv")
    for study in own.studies:
        tables = sorted(study.glob("seed-*/infogan/run-*/metrics.csv"))
        if not tables:
            raise BadInput(f"{study}: has no run of infogan.py with a complete epoch")
        for path in tables:
            rows = read_rows(path)
            if not any("accuracy" in row for row in rows):
                raise BadInput(f"{path}: has no accuracy of c1")
            minutes = [round(seconds / 60, 3) for seconds in accumulate(row["seconds"] for row in rows)]
            seed = int(path.parts[-4].removeprefix("seed-"))
            points = [(at, row["accuracy"]) for at, row in zip(minutes, rows, strict=True) if "accuracy" in row]
            curves[study.resolve().name, seed] = [(at, round(100 * accuracy, 2)) for at, accuracy in points]
    own.out.mkdir(parents=True, exist_ok=True)
    write_curves(own.out / "accuracy.csv", curves, "minutes", "accuracy_percent")
    lines: dict[str, list[Points]] = {}
    for setting, seed in sorted(curves):
        lines.setdefault(setting, []).append(curves[setting, seed])
    groups = {f"{setting}, {len(found)} seeds": found for setting, found in lines.items()}
    title, axis = "InfoGAN: accuracy of c1 on test images [%]", "minutes since the start"
    save_lines(own.out / "accuracy.png", groups, title, axis, limits=(0, 100), level=(10, "chance: 10 %"))
    print(f"written to {own.out / 'accuracy.png'}")


if __name__ == "__main__":
    run_program(main)
