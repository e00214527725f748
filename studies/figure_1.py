"""Does the category carry information? Figure 1 of the InfoGAN paper, measured here: L_I(c1) over the epochs.

    python studies/figure_1.py
    python studies/figure_1.py --seeds 0 --epochs 2 --at-once 2

Three settings on MNIST: the default, with its guide; `--paper`; and `--paper --info-weight 0`, a plain GAN that Q only
watches. Every flag that is not one of this program's goes to studies/seeds.py, which runs the seeds and does not run
again what is finished. Writes figure_1.csv and figure_1.png to studies/results/.
"""

import argparse
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.run.cli import Parser, run_program
from common.run.files import read_rows
from studies import seeds
from studies.accuracy_over_time import RESULTS, save_lines, write_curves

SETTINGS = {"default": [], "--paper": ["--paper"], "--paper --info-weight 0": ["--paper", "--info-weight", "0"]}


def main(arguments: list[str]) -> None:
    """Run the seeds of each setting, write csv and picture. Raises what `seeds.main` raises."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False)
    parser.add_argument("--seeds", default="0-2", help="like 0-2 or 0,3,7 (default: 0-2)")
    parser.add_argument("--epochs", default="1", help="passes over the training images (default: 1)")
    own, flags = parser.parse_known_args(arguments)
    curves = {}
    for setting, chosen in SETTINGS.items():
        given = ["infogan.py", "--seeds", own.seeds, "--epochs", own.epochs, "--dataset", "mnist", *chosen, *flags]
        for seed, run in seeds.main(given).items():
            rows = (row for row in read_rows(run / "metrics.csv") if "info_c1_nats" in row)
            curves[setting, seed] = [(row["epoch"], round(row["info_c1_nats"], 4)) for row in rows]
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_curves(RESULTS / "figure_1.csv", curves, "epoch", "info_c1_nats")
    groups = {name: [points for (setting, _), points in curves.items() if setting == name] for name in SETTINGS}
    title, level = "InfoGAN on MNIST: information on the category c1 [nats]", (math.log(10), "maximum: ln 10 = 2.303")
    save_lines(RESULTS / "figure_1.png", groups, title, "epochs", limits=(None, 2.5), level=level)


if __name__ == "__main__":
    run_program(main)
