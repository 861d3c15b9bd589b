"""A headless Chromium spoken to over a pipe (DevTools protocol), for what only a browser shows."""

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_browser():
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One page at a time; `errors` collects what the page's console reports as wrong."""

    def __init__(self, path, profile):
        to_browser, from_us = os.pipe()
        to_us, from_browser = os.pipe()
        # Out of the way of 3 and 4, where the browser expects them.
        child_in, child_out = (
            fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (to_browser, from_browser)
        )
        command = [
            path, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking",
            "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, pass_fds=(3, 4),
            preexec_fn=lambda: (os.dup2(child_in, 3), os.dup2(child_out, 4)),
        )  # fmt: skip
        for fd in (to_browser, from_browser, child_in, child_out):
            os.close(fd)
        self._out, self._in, self._buffer = from_us, to_us, b""
        self._ids, self._events, self._session = itertools.count(1), [], None
        self.errors = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")
        self._send("Performance.enable", timeDomain="threadTicks")

    def open(self, path, *, width=1360, height=900, dark=False, mobile=False):
        """Open a file and wait until the page says that it is drawn; seconds that took."""
        self.errors.clear()
        self.requests = []
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._send("Emulation.setEmulatedMedia", features=features)
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=mobile,
        )  # fmt: skip
        began = time.monotonic()
        self._send("Page.navigate", url=f"file://{path}")
        self.wait("document.documentElement?.dataset.drawn === 'yes'")
        return time.monotonic() - began

    def wait(self, condition, timeout=30):
        deadline = time.monotonic() + timeout
        while not self.run(condition):
            assert time.monotonic() < deadline, f"not so in time: {condition}; {self.errors}"
            time.sleep(0.02)

    def run(self, script):
        """The value of a script; promises are waited for."""
        done = self._send(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def busy_seconds(self):
        """Processor time of the page's main thread so far: says the same on a busy machine."""
        metrics = self._send("Performance.getMetrics")["metrics"]
        return next(entry["value"] for entry in metrics if entry["name"] == "TaskDuration")

    def type_key(self, key):
        for kind in ("keyDown", "keyUp"):
            self._send("Input.dispatchKeyEvent", type=kind, key=key, code=key)

    def screenshot(self, path, *, whole_page=False):
        options = {"captureBeyondViewport": True} if whole_page else {}
        if whole_page:
            size = self._send("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {
                "x": 0,
                "y": 0,
                **{k: size[k] for k in ("width", "height")},
                "scale": 1,
            }
        shot = self._send("Page.captureScreenshot", format="png", **options)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        for fd in (self._out, self._in):
            os.close(fd)
        self._process.terminate()
        self._process.wait(timeout=20)

    def _send(self, method, **params):
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _note(self, event):
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description", details["text"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning"):
                self.errors.append(
                    str([arg.get("description") or arg.get("value") for arg in params["args"]])
                )
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    def _receive(self, timeout=60):
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._in], [], [], timeout)
            assert ready, "the browser does not answer"
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser has ended"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)
