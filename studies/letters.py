"""A folder of the 26 capital letters, a sub-folder each, drawn from fonts as the set "drawn" is, to train on.

python studies/letters.py letters && python infogan.py --dataset letters
"""

import argparse
import string
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import BadInput
from common.data import render_digits
from common.run.cli import Parser, run_program


def main(arguments: list[str]) -> None:
    """Write the images. Raises BadInput for bad flags and for a folder that exists."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder to make")
    parser.add_argument("--images", type=int, default=800, help="of each letter, about (default: 800)")
    parser.add_argument("--seed", type=int, default=0, help="decides slants, thicknesses, sizes and fonts (default: 0)")
    own = parser.parse_args(arguments)
    if own.folder.exists():
        raise BadInput(f"{own.folder}: exists already")
    data = render_digits(26 * own.images, 0, own.seed, tuple(string.ascii_uppercase))
    for letter in data.classes:
        (own.folder / letter).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(data.train_images.numpy(), data.train_labels, strict=True)):
        Image.fromarray(image).save(own.folder / data.classes[label] / f"{number:05d}.png")


if __name__ == "__main__":
    run_program(main)
