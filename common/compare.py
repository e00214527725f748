"""`--compare`: finished or stopped runs of one script side by side, after an evening of tweaking."""

import csv
import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, ImageDraw

from common import BadInput, images
from common.classifier import SHARES
from common.run import ASKED, TIME_COLUMNS, next_folder, read_config, read_json, read_rows, whole_file

# Fields that say where a run was and not how it was trained.
PLACES = ("data_dir", "out", *ASKED)
ACROSS = 3  # panels, and pictures, in a row
GAP = 16  # screen pixels between pictures

C = TypeVar("C")


@dataclasses.dataclass(frozen=True)
class Seen:
    """What a run folder holds: fields of its Config, rows of metrics.csv, report.json (empty in an unfinished run), the
    first picture of its last epoch."""

    fields: dict[str, Any]
    rows: list[dict[str, float]]
    report: dict[str, Any]
    picture: Image.Image | None

    @property
    def reached(self) -> dict[str, Any]:
        """The figures of the report, then those of the last epoch that the report doesn't have; its time is not the
        run's."""
        last = self.rows[-1] if self.rows else {}
        return {**{name: value for name, value in last.items() if name not in TIME_COLUMNS}, **self.report}


def compare(
    folders: Sequence[Path], config_class: type[C], parent: Path, quiet: bool = False
) -> dict[str, dict[str, Any]]:
    """Write compare.png and compare.csv to `parent/compare-NNN` and print the table; return {run: its figures}.

    The table has a column per run and a line per field in which they differ, then a line per figure they reached.
    Raises BadInput, before anything is written, for fewer than two folders, one that comes twice, one that holds no
    run, and a run of another script.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if len(set(paths)) < max(2, len(paths)):
        raise BadInput("--compare needs two run folders or more, each once")
    runs = dict(zip(_names(paths), [_look(path, config_class) for path in paths], strict=True))
    table = _table(runs)
    folder = next_folder(parent, "compare")
    with whole_file(folder / "compare.csv") as scratch, scratch.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["", *runs], *table])
    _draw(folder / "compare.png", runs)
    if not quiet:
        _print(runs, table)
        print(f"folder: {folder}", flush=True)
    return {name: run.reached for name, run in runs.items()}


def _print(runs: dict[str, Seen], table: list[list[Any]]) -> None:
    lines = [[name, *map(_shown, values)] for name, *values in [["", *runs], *table]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _names(paths: Sequence[Path]) -> list[str]:
    """The paths from the folder that they share: run-001, or one/infogan/run-001 where that is needed."""
    shared = os.path.commonpath(path.parent for path in paths)
    return [path.relative_to(shared).as_posix() for path in paths]


def _look(folder: Path, config_class: type[C]) -> Seen:
    config = read_config(folder, config_class)
    report = folder / "report.json"
    # Names sort by epoch, then by sheet; the first sheet of the last epoch stands for the run.
    grids = sorted(folder.glob("epoch_*.png"), key=lambda path: (-int(path.stem.split("_")[1]), path.name))
    return Seen(
        fields={name: value for name, value in vars(config).items() if name not in PLACES},
        rows=read_rows(folder / "metrics.csv"),
        report=read_json(report) if report.exists() else {},
        picture=_opened(grids[0]) if grids else None,
    )


def _table(runs: dict[str, Seen]) -> list[list[Any]]:
    """Lines [name, a value per run]; "" for a figure that a run doesn't have."""
    first, *others = runs.values()
    fields = [name for name in first.fields if any(run.fields[name] != first.fields[name] for run in others)]
    figures = dict.fromkeys(name for run in runs.values() for name in run.reached if name not in first.fields)
    return [
        *([name, *(run.fields[name] for run in runs.values())] for name in fields),
        *([name, *(run.reached.get(name, "") for run in runs.values())] for name in figures),
    ]


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _draw(path: Path, runs: dict[str, Seen]) -> None:
    """The curves of all runs, a panel per column of metrics.csv, above the last picture of each; no file of nothing."""
    columns = dict.fromkeys(name for run in runs.values() for row in run.rows[:1] for name in row)
    columns = [name for name in columns if name not in ("epoch", *TIME_COLUMNS, *SHARES)]
    rows = [[_curves(runs, columns)]] if columns else []
    pictures = [_captioned(run.picture, name) for name, run in runs.items() if run.picture]
    rows += [pictures[i : i + ACROSS] for i in range(0, len(pictures), ACROSS)]
    if not rows:
        return
    heights = [max(piece.height for piece in row) for row in rows]
    width = max(sum(piece.width for piece in row) for row in rows)
    page = Image.new("RGB", (width, sum(heights)), "white")
    for i, row in enumerate(rows):
        for j, piece in enumerate(row):
            page.paste(piece, (sum(left.width for left in row[:j]), sum(heights[:i])))
    with whole_file(path) as scratch:
        page.save(scratch, format="PNG")


def _curves(runs: dict[str, Seen], columns: Sequence[str]) -> Image.Image:
    down = math.ceil(len(columns) / ACROSS)
    figure = images.new_figure(4.9 * ACROSS, 2.9 * down + 0.5)
    for i, column in enumerate(columns):
        axes = images.epoch_axes(figure, (down, ACROSS, i + 1), column)
        for name, run in runs.items():
            known = [row for row in run.rows if column in row]
            epochs, values = [row["epoch"] for row in known], [row[column] for row in known]
            axes.plot(epochs, values, label=name, marker="o", markersize=2.5, linewidth=1.4)
        if images.wide_range((row[column] for run in runs.values() for row in run.rows if column in row), 100):
            axes.set_yscale("log")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False)
    return images.rendered(figure)


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, SyntaxError) as error:  # the second is Pillow's word for a damaged PNG
        raise BadInput(f"{path}: cannot be read: {error}") from None


def _captioned(grid: Image.Image, name: str) -> Image.Image:
    """A picture of a run below the run's name."""
    piece = Image.new("RGB", (grid.width + GAP, grid.height + 24), "white")
    piece.paste(grid, (0, 24))
    ImageDraw.Draw(piece).text((12, 6), name, fill="black", font=images.font(16))
    return piece
