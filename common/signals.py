"""Ctrl-C, SIGTERM and SIGHUP: at once outside of training, after the update under way within it."""

import signal
import threading
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is a dropped connection; Windows has none


def _heeded() -> list[signal.Signals]:
    """The signals that stop a run. What `nohup` has the process ignore is ignored."""
    known = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]
    return [number for number in known if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]


def interrupt_at_once() -> None:
    """Make each signal raise KeyboardInterrupt. A shell's background job starts with SIGINT ignored."""
    for number in _heeded():
        signal.signal(number, signal.default_int_handler)


class Deferred:
    """Within this context the first signal only sets `asked`; the second raises KeyboardInterrupt.

    Python lets only the main thread handle signals; in any other this does nothing.
    """

    def __init__(self):
        self.asked = False
        self._before = {}

    def __enter__(self) -> "Deferred":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in _heeded()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
