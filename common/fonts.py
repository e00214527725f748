"""The fonts of all pictures: those that matplotlib ships, and installed ones for what these lack."""

import os
from functools import cache
from pathlib import Path
from types import ModuleType

from PIL import ImageFont


def load_matplotlib() -> ModuleType:
    """The package matplotlib. MPLBACKEND is hidden from it: the backend may not exist here, and none is needed."""
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib  # takes a second, so only what needs it pays for it
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    return matplotlib


def font_file(name: str) -> str:
    """The path of a font that matplotlib ships, such as "DejaVuSans"."""
    return str(Path(load_matplotlib().get_data_path()) / "fonts" / "ttf" / f"{name}.ttf")


@cache
def covering(text: str) -> str | None:
    """The file of a font that has every character of a text: DejaVu Sans, else one that is installed, else None."""
    load_matplotlib()
    from matplotlib.font_manager import findSystemFonts
    from matplotlib.ft2font import FT2Font

    needed = {ord(character) for character in text if not character.isspace()}
    for path in (font_file("DejaVuSans"), *(sorted(findSystemFonts()) if not text.isascii() else ())):
        try:
            known = FT2Font(path).get_charmap().keys()
        except (RuntimeError, OSError):
            continue  # a damaged or unreadable font has no characters
        if needed <= known:
            return path
    return None


def families(text: str) -> list[str]:
    """The names by which matplotlib finds the fonts for a text."""
    from matplotlib.font_manager import FontProperties, fontManager

    path = covering(text)
    if path in (None, font_file("DejaVuSans")):
        return ["DejaVu Sans"]
    fontManager.addfont(path)
    return ["DejaVu Sans", FontProperties(fname=path).get_name()]


@cache
def font(size: int, text: str = "") -> ImageFont.FreeTypeFont:
    """A font for this text in pictures, this many pixels high."""
    return ImageFont.truetype(covering(text) or font_file("DejaVuSans"), size)
