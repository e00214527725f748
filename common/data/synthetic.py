"""Digits rendered from fonts, with known slant and thickness. They need no file and no network."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from common.data.dataset import DIGITS, Dataset
from common.train.random import stream

FONTS = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral", "cmr10", "cmss10", "cmtt10")
FINE = 4  # glyphs are rendered at four times the resolution of an image
ATLAS = 56  # pixels of a glyph's distance field, two per image pixel


def render_digits(
    train: int = 60_000, test: int = 10_000, seed: int = 0, characters: tuple[str, ...] = DIGITS
) -> Dataset:
    """The set "drawn": digits in matplotlib's fonts, each with a random slant, stroke thickness, scale and shift.

    Like MNIST's they are about 20 pixels high in 28 x 28, centred by mass. The same arguments give the same set.
    `Dataset.factors`: slant uniform in [-0.3, 0.3], thickness uniform in [2.2, 4.5] pixels.
    """
    fields, widths = _glyphs(characters)
    n = train + test
    random = stream(seed, "drawn digits")

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=random) * (high - low) + low

    digit = torch.randint(len(characters), (n,), generator=random)
    font = torch.randint(len(FONTS), (n,), generator=random)
    slant, thickness, scale = uniform(-0.3, 0.3), uniform(2.2, 4.5), uniform(0.85, 1.1)
    shift_x, shift_y = uniform(-1, 1), uniform(-1, 1)
    glyph = font * len(characters) + digit

    # Image pixel (x, y), measured from the centre, samples the glyph at (x + slant y, y) / scale.
    axis = torch.arange(28) - 13.5
    images = torch.empty(n, 28, 28, dtype=torch.uint8)
    for part in torch.arange(n).split(2_000):
        y = (axis[None, :, None] - shift_y[part, None, None]).expand(-1, 28, 28)
        x = axis[None, None, :] - shift_x[part, None, None] + slant[part, None, None] * y
        where = torch.stack((x, y), dim=-1) / (14 * scale[part, None, None, None])  # (part, 28, 28, 2) in [-1, 1]
        inside = F.grid_sample(fields[glyph[part]], where, padding_mode="border", align_corners=False).squeeze(1)
        # Moving the outline by half the missing width sets the thickness; a ramp of one pixel across it gives a smooth
        # edge.
        wider = (thickness[part] - widths[glyph[part]] * scale[part]) / 2
        ink = (inside * scale[part, None, None] + wider[:, None, None] + 0.5).clamp_(0, 1)
        images[part] = (ink * 255).round_().to(torch.uint8)
    factors = {"slant": slant, "thickness": thickness}
    return Dataset("drawn", images[:train], digit[:train], images[train:], digit[train:], factors, characters)


def _glyphs(characters: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """For each font and character: the signed distance to the outline in image pixels, positive inside,
    (fonts * characters, 1, ATLAS, ATLAS), and the mean stroke width (fonts * characters,)."""
    from PIL import Image, ImageDraw, ImageFont
    from scipy import ndimage

    # Where matplotlib ships its fonts. It is not imported: that takes a second and fails for an unknown MPLBACKEND.
    folder = Path(find_spec("matplotlib").submodule_search_locations[0]) / "mpl-data" / "fonts" / "ttf"
    fields, widths = [], []
    for font in FONTS:
        file = str(folder / f"{font}.ttf")
        _, top, _, bottom = ImageFont.truetype(file, 100).getbbox("0")
        sized = ImageFont.truetype(file, round(100 * 20 * FINE / (bottom - top)))
        for character in characters:
            picture = Image.new("L", (28 * FINE, 28 * FINE))
            left, top, right, bottom = sized.getbbox(character)
            at = (14 * FINE - (left + right) / 2, 14 * FINE - (top + bottom) / 2)
            ImageDraw.Draw(picture).text(at, character, fill=255, font=sized)
            ink = np.asarray(picture) > 127
            row, column = ndimage.center_of_mass(ink)
            centre = (28 * FINE - 1) / 2
            ink = ndimage.shift(ink, (round(centre - row), round(centre - column)), order=0)
            field = (ndimage.distance_transform_edt(ink) - ndimage.distance_transform_edt(~ink)) / FINE
            # The pixels within half a pixel of the outline cover an area equal to its length; a stroke has two sides,
            # so its width is 2 area / length.
            widths.append(2 * ink.sum() / (np.abs(field) < 0.5).sum())
            fields.append(torch.from_numpy(field).float())
    atlas = F.interpolate(torch.stack(fields).unsqueeze(1), size=(ATLAS, ATLAS), mode="area")
    return atlas, torch.tensor(widths, dtype=torch.float32)
