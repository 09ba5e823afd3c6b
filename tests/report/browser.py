"""Headless Chromium over its debugging pipe: enough of the protocol to look at a page."""

from __future__ import annotations

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--remote-debugging-pipe",
    "--hide-scrollbars",
)
LIMIT_S = 60.0


def executable() -> str | None:
    """A Chromium of this machine."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page in one browser; remembers what the page logged and what it asked the network for."""

    def __init__(self, profile: Path, width: int = 1366, height: int = 768) -> None:
        program = executable()
        assert program is not None
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4.
        script = f'exec "$@" 3<&{read_there} 4>&{write_there}'
        words = [program, *FLAGS, f"--user-data-dir={profile}"]
        self._process = subprocess.Popen(
            ["bash", "-c", script, "bash", *words],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._in, self._out = read_here, write_here
        self._numbers = itertools.count(1)
        self._rest = b""
        self.logged: list[str] = []
        self.requested: list[str] = []
        self._loaded = False
        self._session = ""
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def resize(self, width: int, height: int) -> None:
        """Size of the window's inside, in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip

    def prefer(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def open(self, path: Path) -> None:
        """Load a file and wait until it is there."""
        self._loaded = False
        self.send("Page.navigate", url=path.absolute().as_uri())
        deadline = time.monotonic() + LIMIT_S
        while not self._loaded and time.monotonic() < deadline:
            self._receive(0.5)
        assert self._loaded, "the page did not load"

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression; a promise is waited for."""
        answer = self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def picture(self, path: Path) -> None:
        """Save what the window shows."""
        data = self.send("Page.captureScreenshot", format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def pdf(self, path: Path) -> None:
        """Save the page as it prints."""
        answer = self.send("Page.printToPDF", printBackground=True, preferCSSPageSize=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One command and its answer; what happens meanwhile is remembered."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            for answer in self._receive(0.5):
                if answer.get("id") == number:
                    assert "error" not in answer, answer["error"]
                    result: dict[str, Any] = answer["result"]
                    return result
        raise TimeoutError(f"{method}: no answer within {LIMIT_S:.0f} s")

    def _receive(self, wait_s: float) -> list[dict[str, Any]]:
        if not select.select([self._in], [], [], wait_s)[0]:
            return []
        self._rest += os.read(self._in, 1 << 20)
        *whole, self._rest = self._rest.split(b"\0")
        messages = [json.loads(text) for text in whole]
        for message in messages:
            self._remember(message)
        return messages

    def _remember(self, message: dict[str, Any]) -> None:
        method, given = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Network.requestWillBeSent":
            self.requested.append(given["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.logged.append(str(given["exceptionDetails"]))
        elif method == "Log.entryAdded":
            self.logged.append(given["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and given["type"] in {"error", "warning"}:
            self.logged.append(str([value.get("value") for value in given["args"]]))
