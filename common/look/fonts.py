"""The fonts of all pictures: those that matplotlib ships, and installed ones for the letters that these lack."""

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

from PIL import ImageFont

NAME_LENGTH = 12  # characters of a class name that fit beside a row of images


def load_matplotlib() -> ModuleType:
    """The package matplotlib, imported without MPLBACKEND: the backend may not exist here, and none is needed."""
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
    """The file of a font that has every character of a text: DejaVu Sans, else an installed one, else None."""
    load_matplotlib()
    from matplotlib.font_manager import findSystemFonts
    from matplotlib.ft2font import FT2Font

    needed = {ord(character) for character in text if not character.isspace()}
    for path in (font_file("DejaVuSans"), *(sorted(findSystemFonts()) if not text.isascii() else ())):
        try:
            if needed <= FT2Font(path).get_charmap().keys():
                return path
        except (RuntimeError, OSError):
            continue  # a damaged or unreadable font has no characters
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


def display_names(classes: Sequence[str]) -> tuple[str, ...]:
    """Class names as pictures show them: all different, each at most twelve characters, long ones cut by an ellipsis.

    Of a long name the beginning stays, and as much of the end as tells it from the others; if that is not enough, what
    follows the beginning that all names share. If neither works, or no installed font has the letters, the names are
    the numbers 1, 2, ….
    """
    shared = len(os.path.commonprefix(classes))  # noqa: RUF071 - of characters, not of folders
    numbers = tuple(map(str, range(1, len(classes) + 1)))
    for names in (classes, [f"…{name[shared:]}" for name in classes]):
        for end in range(NAME_LENGTH):
            start = NAME_LENGTH - 1 - end
            shown = [n if len(n) <= NAME_LENGTH else f"{n[:start]}…{n[len(n) - end :]}" for n in names]
            if len(set(shown)) == len(shown):
                return tuple(shown) if covering("".join(shown)) else numbers
    return numbers
