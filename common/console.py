"""What a run says on the console: a bar, a line per epoch, the scorecard."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm


def open_streams() -> None:
    """Let no line stop a run: a missing stream (`>&-`, pythonw) becomes a sink, and a character that the console's
    encoding lacks is written as its code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def joined(texts: Iterable[str | None]) -> str | None:
    """The texts there are, as one; None without any."""
    return "; ".join(filter(None, texts)) or None


class Console:
    """Lines on standard output and, where somebody looks, a bar with the time left on standard error."""

    def __init__(self, quiet: bool):
        open_streams()
        self.quiet = quiet
        self._bar, self._headed = None, False

    @property
    def watched(self) -> bool:
        """Whether somebody looks at a bar."""
        return (sys.stderr.isatty() or "ipykernel" in sys.modules) and not self.quiet

    def hushed(self) -> contextlib.AbstractContextManager:
        """Within: the warnings of libraries are ignored where the run is to be quiet."""
        return warnings.catch_warnings(action="ignore") if self.quiet else contextlib.nullcontext()

    def bar(self, total: int, what: str, done: int = 0) -> "tqdm":
        """A bar of `total` updates, if somebody looks."""
        from tqdm.auto import tqdm  # in a notebook, its own kind of bar

        return tqdm(desc=what, total=total, initial=done, unit="updates", disable=not self.watched)

    def start_bar(self, total: int, done: int) -> None:
        """Show the bar of the training."""
        self._bar = self.bar(total, "training", done)

    def advance(self) -> None:
        """One update is done."""
        self._bar.update()

    def close(self) -> None:
        """Remove the bar, if there is one."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one; nothing where the run is to be quiet."""
        if not self.quiet:
            print_line = print if self._bar is None else self._bar.write
            print_line(line, file=sys.stdout)
            sys.stdout.flush()

    def say_epoch(self, row: Mapping[str, float], epochs: int, shown: Mapping[str, str], warning: str | None) -> None:
        """Print the columns of metrics.csv that are shown, {column: heading}, the headings once above them. A heading
        with % has its column in percent."""
        shown = {name: heading for name, heading in shown.items() if name in row}
        widths = [max(6, len(heading)) for heading in shown.values()]
        if not self._headed:
            self._headed = True
            headings = (f"{heading:>{width}}" for heading, width in zip(shown.values(), widths, strict=True))
            self.say("  ".join((f"{'epoch':>{2 * len(str(epochs)) + 1}}", "seconds", "images/s", *headings)).rstrip())
        cells = [f"{row['epoch']:{len(str(epochs))}d}/{epochs}".rjust(5)]
        cells += [f"{row['seconds']:7.1f}", f"{row['images_per_second']:8.0f}"]
        for (name, heading), width in zip(shown.items(), widths, strict=True):
            cells.append((f"{row[name]:.1%}"[:-1] if "%" in heading else _short(row[name])).rjust(width))
        self.say("  ".join(cells))
        if warning:
            self.say(f"  WARNING: {warning}")

    def say_scorecard(self, title: str, warning: str | None, lines: Mapping[str, object]) -> None:
        """Print what came out, the warning first."""
        self.say(f"\n{title}")
        for name, value in (({"WARNING": warning} if warning else {}) | dict(lines)).items():
            self.say(f"  {name:<16}{value}")


def _short(value: float) -> str:
    """The digits that matter for a loss and for a very small error alike."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}" if abs(value) >= 0.05 else f"{value:.6f}"
