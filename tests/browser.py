"""A headless Chromium, driven over its own DevTools protocol: real keys, real clicks, and every request it makes.

Needs only a browser and a WebSocket: no driver whose version must match, no download of a browser of its own.
"""

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import websocket

FLAGS = (
    "--headless",
    "--no-sandbox",  # Chromium refuses its sandbox to root
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-port=0",
)
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Tab": 9, " ": 32}


def find_chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Page:
    """One tab. `requests` are the addresses that it asked for, `errors` what its console complained of."""

    def __init__(self, address: str):
        self._socket = websocket.create_connection(address, timeout=60, suppress_origin=True, max_size=None)
        self._number = itertools.count(1)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self._loaded = False
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict:
        """Send one command, note the events that come before its answer, return the answer."""
        number = next(self._number)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := self._receive()).get("id") != number:
            pass
        assert "error" not in message, message
        return message["result"]

    def _receive(self) -> dict:
        message = json.loads(self._socket.recv())
        seen = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(seen["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(seen["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if seen["type"] in ("error", "assert"):
                self.errors.append(str(seen["args"]))
            case "Log.entryAdded" if seen["entry"]["level"] == "error":
                self.errors.append(str(seen["entry"]))
            case "Page.loadEventFired":
                self._loaded = True
        return message

    def open(self, url: str) -> None:
        """Go to an address and wait until the page and all that it asks for has loaded."""
        self._loaded = False
        self.call("Page.navigate", url=url)
        while not self._loaded:
            self._receive()

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.run(expression):
            assert time.monotonic() < end, f"never came true: {expression}"
            time.sleep(0.02)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key of KEYS and let it go again, with whatever has the focus."""
        text = {"text": key} if len(key) == 1 else {}
        for _ in range(times):
            known = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": KEYS[key]}
            self.call("Input.dispatchKeyEvent", type="keyDown", **known, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **known)

    def click(self, selector: str) -> None:
        """Click with the mouse on the middle of an element."""
        self.run(f"window.found = document.querySelector({json.dumps(selector)}); found.scrollIntoView()")
        x, y = self.run("(box => [box.x + box.width / 2, box.y + box.height / 2])(found.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Give the viewport a size in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)

    def screenshot(self) -> bytes:
        """What is to be seen, as a PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def chromium(executable: str, profile: Path) -> Iterator[Page]:
    """Start a browser with an empty profile in a folder of its own, yield its tab, end the browser."""
    port_file = profile / "DevToolsActivePort"
    process = subprocess.Popen(
        [executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not (port_file.exists() and port_file.read_text().count("\n")):
            assert process.poll() is None, "the browser ended"
            assert time.monotonic() < end, "the browser did not start"
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        with urlopen(f"http://127.0.0.1:{port}/json/list", timeout=30) as answer:
            tab = next(target for target in json.load(answer) if target["type"] == "page")
        yield Page(tab["webSocketDebuggerUrl"])
    finally:
        process.terminate()
        process.wait(timeout=30)
