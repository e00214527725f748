"""What a run says on the console: a bar, a line per epoch, the scorecard."""

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any


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
        self._bar = None

    @property
    def watched(self) -> bool:
        """Whether somebody looks at a bar."""
        return (sys.stderr.isatty() or "ipykernel" in sys.modules) and not self.quiet

    def hushed(self) -> contextlib.AbstractContextManager:
        """Within: the warnings of libraries are ignored where the run is to be quiet."""
        return warnings.catch_warnings(action="ignore") if self.quiet else contextlib.nullcontext()

    def start_bar(self, total: int, done: int) -> None:
        """Show a bar of `total` updates."""
        from tqdm.auto import tqdm  # in a notebook, its own kind of bar

        self._bar = tqdm(total=total, initial=done, unit="updates", disable=not self.watched)

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

    def say_epoch(self, row: Mapping[str, float], epochs: int, hidden: tuple[str, ...], warning: str | None) -> None:
        """Print a row of metrics.csv, but for its `hidden` columns."""
        shown = [name for name in list(row)[3:] if name not in hidden]
        line = f"epoch {row['epoch']:{len(str(epochs))}d}/{epochs}  {row['seconds']:6.1f} s"
        line += f"  {row['images_per_second']:6.0f} images/s"
        line += "".join(f"  {name} {_short(row[name])}" for name in shown)
        self.say(line + (f"  WARNING: {warning}" if warning else ""))

    def say_scorecard(self, title: str, numbers: Mapping[str, Any]) -> None:
        """Print the numbers of report.json, one to a line."""
        self.say(f"\n{title}")
        for name, value in numbers.items():
            shown = f"{value:.{4 if abs(value) >= 0.01 else 6}f}" if isinstance(value, float) else value
            self.say(f"  {name:<36} {'none' if shown is None else shown}")


def _short(value: float) -> str:
    """Six characters at least, with the digits that matter for a loss and for a very small error alike."""
    return f"{value:6d}" if isinstance(value, int) else f"{value:6.3f}" if abs(value) >= 0.05 else f"{value:.6f}"
