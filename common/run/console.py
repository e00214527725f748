"""What a run says on the console, and the signals by which the console stops it."""

import io
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterable, Mapping
from types import FrameType

from tqdm.auto import tqdm  # in a notebook, its own kind of bar


def open_streams() -> None:
    """Let no line stop a run: a missing stream (`>&-`, pythonw) becomes a sink, and a character that the console's
    encoding lacks is written as its code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def join_warnings(warnings: Iterable[str | None]) -> str | None:
    """The warnings there are, as one text; None without any."""
    return "; ".join(filter(None, warnings)) or None


def wrapped(text: str, indent: int = 2) -> str:
    """A text in lines of at most 80 characters, all but the first indented. No path or other word is cut."""
    return textwrap.fill(text, 80, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


class _Lines:
    """A file of whole lines on standard output, for a bar that nobody watches."""

    def write(self, text: str) -> None:
        if text.strip():
            print("  " + text.strip(), flush=True)

    def flush(self) -> None:
        """Nothing is kept back."""


class Console:
    """Lines on standard output, warnings on standard error and, in a terminal, a bar with the time left."""

    def __init__(self, quiet: bool):
        open_streams()
        self.quiet, self._headed = quiet, False

    @property
    def interactive(self) -> bool:
        """Whether somebody watches a bar."""
        return (sys.stderr.isatty() or "ipykernel" in sys.modules) and not self.quiet

    def bar(self, total: int, what: str, done: int = 0) -> tqdm:
        """A bar of `total` updates with the time left. Without a terminal it is a line after 5 seconds and
        every 20 from then on."""
        # Time left by the mean over all updates: tqdm's moving average would count the 15 seconds below as work.
        how = {"unit": "updates", "disable": self.quiet, "smoothing": 0}
        if not self.interactive:
            how |= {"file": _Lines(), "mininterval": 20, "miniters": 1, "delay": 5, "leave": False}
            how["bar_format"] = "{desc}: {percentage:.0f}% done, {remaining} left"
        bar = tqdm(desc=what, total=total, initial=done, **how)
        if not (self.interactive or self.quiet):
            bar.last_print_t = bar.start_t - 15  # the first line soon says how long it will take
        return bar

    def say(self, line: str) -> None:
        """Print a line, above the bar if there is one; nothing if the run is to be quiet."""
        if not self.quiet:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def warn(self, warning: str | None) -> None:
        """Print a warning, if there is one, even if the run is to be quiet."""
        if warning:
            tqdm.write(wrapped(f"WARNING: {warning}"), file=sys.stderr)

    def say_epoch(self, row: Mapping[str, float], epochs: int, columns: Mapping[str, str], legend: str = "") -> None:
        """Print these columns of metrics.csv, {column: heading}, the legend and the headings once above them. A heading
        with % has its column in percent."""
        columns = {name: heading for name, heading in columns.items() if name in row}
        widths = [max(6, len(heading)) for heading in columns.values()]
        if not self._headed:
            self._headed = True
            if legend:
                self.say(legend)
            headings = (f"{heading:>{width}}" for heading, width in zip(columns.values(), widths, strict=True))
            self.say("  ".join(("epoch", "seconds", *headings)).rstrip())
        epoch = f"{row['epoch']}/{epochs}" if epochs < 100 else str(row["epoch"])  # more would not fit into 80 columns
        cells = [epoch.rjust(5), f"{row['seconds']:7.1f}"]
        for (name, heading), width in zip(columns.items(), widths, strict=True):
            cells.append((f"{row[name]:.1%}"[:-1] if "%" in heading else _short(row[name], width)).rjust(width))
        self.say("  ".join(cells))

    def say_scorecard(
        self, title: str, warning: str | None, lines: Mapping[str, str], where: Mapping[str, object]
    ) -> None:
        """Print the results, a warning first, and where to look, which is to be copied and so has whole lines."""
        if self.quiet:
            self.warn(warning)
        self.say(f"\n{title}")
        for name, value in (({"WARNING": warning} if warning else {}) | dict(lines)).items():
            self.say(wrapped(f"  {name:<16}{value}", 18))
        for name, value in where.items():
            self.say(f"  {name:<16}{value}")


def _short(value: float, width: int) -> str:
    """The digits that matter for a loss and, if they fit into this width with a sign, for a very small error alike."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.{1 if abs(value) >= 10 else 3 if abs(value) >= 0.01 or width < 8 else 5}f}"


# Signals: Ctrl-C, SIGTERM, and SIGHUP, which is a dropped connection and which Windows lacks ------------------------


def _stopping() -> list[signal.Signals]:
    """The signals that stop a run. What `nohup` has the process ignore is ignored."""
    known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    return [number for number in known if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]


def interrupt_at_once() -> None:
    """Make each signal raise KeyboardInterrupt, in a shell's background job too, which starts with SIGINT ignored."""
    for number in _stopping():
        signal.signal(number, signal.default_int_handler)


class DeferredSignals:
    """Within this context the first signal only sets `received`; the second raises KeyboardInterrupt.

    Python lets only the main thread handle signals; in any other this does nothing.
    """

    def __init__(self):
        self.received = False
        self._before = {}

    def __enter__(self) -> "DeferredSignals":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _stopping()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True
