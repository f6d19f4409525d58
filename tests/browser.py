"""A headless Chromium, asked over its debugging pipe; no package is needed for that."""

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ("--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --remote-debugging-pipe").split()
LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
for end, name in zip(ends, (3, 4)):
    os.dup2(end, name)
os.execv(sys.argv[3], sys.argv[3:])
"""
PATIENCE = 120  # seconds for one answer, on a busy machine


class Browser:
    def __init__(self, reads, writes):
        self.reads, self.writes, self.left, self.number, self.session, self.events = reads, writes, b"", 0, None, []

    def call(self, method, **parameters):
        """The answer to one command of the DevTools protocol; events on the way are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self):
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.left:
            assert select.select([self.reads], [], [], max(0, deadline - time.monotonic()))[0], "Chromium said nothing"
            part = os.read(self.reads, 2**16)
            assert part, "Chromium ended"
            self.left += part
        message, _, self.left = self.left.partition(b"\0")
        return json.loads(message)

    def open(self, page, width, height=900):
        """Load a file in a window of this size; `events` are then those of this page."""
        self.events = []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=page.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def ask(self, expression):
        """The value of a JavaScript expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def errors(self):
        """What the console holds as errors or warnings, and exceptions of scripts."""
        said = [event["params"] for event in self.events if event.get("method") in
                ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")]
        return [one for one in said if one.get("type", "error") in ("error", "warning")
                and one.get("entry", {}).get("level", "error") in ("error", "warning")]

    def requested(self):
        return [event["params"]["request"]["url"] for event in self.events
                if event.get("method") == "Network.requestWillBeSent"]


@contextlib.contextmanager
def browser():
    with tempfile.TemporaryDirectory(prefix="chromium_", ignore_cleanup_errors=True) as profile:
        theirs, writes = os.pipe()
        reads, theirs_too = os.pipe()
        command = [sys.executable, "-c", LAUNCH, str(theirs), str(theirs_too), CHROMIUM, *FLAGS,
                   f"--user-data-dir={profile}"]
        process = subprocess.Popen(command, pass_fds=(theirs, theirs_too), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        os.close(theirs)
        os.close(theirs_too)
        try:
            opened = Browser(reads, writes)
            target = opened.call("Target.createTarget", url="about:blank")["targetId"]
            opened.session = opened.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Log", "Network"):
                opened.call(f"{domain}.enable")
            yield opened
        finally:
            process.kill()
            process.wait()
            os.close(reads)
            os.close(writes)
