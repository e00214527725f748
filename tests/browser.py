"""A headless Chromium, driven over its own DevTools protocol: real keys, real clicks, and every request it makes.

Needs only a browser and a WebSocket: no driver whose version must match, no download of a browser of its own.
"""

import itertools
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket

# Chromium refuses its sandbox to root.
SWITCHES = ("headless", "no-sandbox", "disable-gpu", "disable-quic", "disable-background-networking")
SWITCHES += ("disable-component-update", "disable-sync", "no-first-run", "remote-debugging-port=0")
KEYS = {"ArrowRight": 39, "ArrowDown": 40, "Home": 36, "Tab": 9, "Delete": 46, " ": 32, "d": 68}
TWO_FRAMES = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))"


def wait_for(happened: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)


class Page:
    """One tab. `requests` are the addresses that it asked for, `errors` the messages of its console."""

    def __init__(self, address: str):
        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True, max_size=None)
        self._number = itertools.count(1)
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict:
        """The answer to one command; the events that come before it are noted."""
        number = next(self._number)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != number:
            pass
        assert "error" not in message, message
        return message["result"]

    def _receive(self) -> dict:
        message = json.loads(self._socket.recv())
        method, event = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(event["request"]["url"])
        level = event.get("type") if method == "Runtime.consoleAPICalled" else event.get("entry", {}).get("level")
        if method == "Runtime.exceptionThrown" or level in ("error", "assert"):
            self.errors.append(str(event))
        return message

    def open(self, url: str) -> None:
        """Go to an address and wait until the page and all that it asks for has loaded."""
        self.call("Page.navigate", url=url)
        wait_for(lambda: self._receive().get("method") == "Page.loadEventFired")

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def resize(self, width: int, height: int) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def press(self, key: str, times: int = 1) -> None:
        """Press and release a key of KEYS, with whatever has the focus."""
        for kind in ("keyDown", "keyUp") * times:
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])
        self.run(TWO_FRAMES)

    def drag(self, selector: str, *points: tuple[float, float], touch: bool = False) -> None:
        """Press at the first point, in shares of the element's size, move to the others, release: mouse or finger."""
        self.run(f"window.found = document.querySelector({json.dumps(selector)}); found.scrollIntoView()")
        x, y, width, height = self.run("(b => [b.x, b.y, b.width, b.height])(found.getBoundingClientRect())")
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        for i, (across, down) in enumerate((*points, points[-1])):
            step, at = min(i, 1) + (i == len(points)), {"x": x + across * width, "y": y + down * height}
            if touch:
                kind = ("touchStart", "touchMove", "touchEnd")[step]
                self.call("Input.dispatchTouchEvent", type=kind, touchPoints=[at] if step < 2 else [])
            else:
                kind = ("mousePressed", "mouseMoved", "mouseReleased")[step]
                self.call("Input.dispatchMouseEvent", type=kind, **at, button="left", buttons=1, clickCount=1)
        self.run(TWO_FRAMES)

    def click(self, selector: str) -> None:
        self.drag(selector, (0.5, 0.5))


@contextmanager
def chromium(executable: str, profile: Path) -> Iterator[Page]:
    """The tab of a browser with an empty profile in a folder of its own; the browser ends afterwards."""
    port = profile / "DevToolsActivePort"
    command = [executable, *(f"--{name}" for name in SWITCHES), f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: port.exists() and "\n" in port.read_text())
        with urlopen(f"http://127.0.0.1:{port.read_text().split()[0]}/json/list", timeout=30) as answer:
            tab = next(target for target in json.load(answer) if target["type"] == "page")
        yield Page(tab["webSocketDebuggerUrl"])
    finally:
        process.terminate()
        process.wait(timeout=30)
