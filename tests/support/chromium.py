"""Driving Chromium by its DevTools protocol: pages, the expressions they evaluate, their requests and pictures."""

import base64
import hashlib
import json
import re
import subprocess
import threading
import time
from collections import deque
from contextlib import contextmanager

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.sync.client import connect

from tests.support.tools import require_tool

BASE_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
              "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"]
FLAGS = [*BASE_FLAGS, "--ignore-certificate-errors"]
TIMEOUT = 30

LOADED = "document.readyState === 'complete' || new Promise(done => addEventListener('load', () => done()))"
WAIT = """new Promise(resolve => {
  const check = () => { if (%s) { observer.disconnect(); resolve(true) } }
  const observer = new MutationObserver(check)
  observer.observe(document, {subtree: true, childList: true, characterData: true, attributes: true})
  check()
})"""
"""An expression that becomes true with a condition, which is looked at whenever something in the page changes."""


@contextmanager
def chromium(profile, *flags):
    """A browser with a new profile, as the `Page` that it shows: an empty one at first."""
    command = [require_tool("chromium"), *BASE_FLAGS, *flags, f"--user-data-dir={profile}", "--remote-debugging-port=0",
               "about:blank"]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **streams, text=True, errors="replace") as process:
        try:
            address = next(filter(None, (re.search(r"listening on (ws://\S+)", line) for line in process.stderr)))[1]
            # What nobody reads would stop it in the end.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            with connect(address, max_size=None, open_timeout=TIMEOUT, ping_interval=None) as socket:
                page = Page(socket)
                yield page
                page.close_browser()
            process.wait(TIMEOUT)
        finally:
            process.kill()


def trusting(certificate):
    """The flag that has a browser trust a certificate, PEM; it caches no responses under one that is wrong."""
    key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}"


class Page:
    """One page. Methods that wait raise `TimeoutError` after 30 seconds."""

    def __init__(self, socket):
        self._socket, self._session, self._number = socket, None, 0
        self.events = deque()
        (target,) = [info for info in self.call("Target.getTargets")["targetInfos"] if info["type"] == "page"]
        self._session = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Call a method of the protocol and return its result; events that come first are kept in `events`."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        deadline = time.monotonic() + TIMEOUT
        while True:
            answer = json.loads(self._socket.recv(max(0, deadline - time.monotonic())))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def events_of(self, method):
        """The parameters of the events of one kind so far."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def close_browser(self):
        """End the browser."""
        self._session = None
        self.call("Browser.close")

    @property
    def requests(self):
        """The URLs that have been asked for so far, WebSockets included."""
        return ([event["request"]["url"] for event in self.events_of("Network.requestWillBeSent")]
                + [event["url"] for event in self.events_of("Network.webSocketCreated")])

    @property
    def errors(self):
        """What scripts have not caught, and what the console has of errors."""
        return (self.events_of("Runtime.exceptionThrown")
                + [event for event in self.events_of("Log.entryAdded") if event["entry"]["level"] == "error"])

    def open(self, url):
        """Go to a page, and return when it is complete."""
        assert "errorText" not in self.call("Page.navigate", url=url)
        self.evaluate(LOADED)

    def evaluate(self, expression):
        """Evaluate an expression in the page, wait if it is a promise, and return the value as JSON has it."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, condition):
        """Wait until an expression about the page's elements is true."""
        self.evaluate(WAIT % condition)

    def wait_state(self, name, *states):
        """Wait until the element of an id has one of some states."""
        self.wait_for(f"{json.dumps(states)}.includes(document.getElementById('{name}').dataset.state)")

    def text(self, name):
        """The text of the element of an id."""
        return self.evaluate(f"document.getElementById('{name}').textContent")

    def click(self, name):
        """Click on the element of an id."""
        self.evaluate(f"document.getElementById('{name}').click()")

    def press(self, key, code, text=""):
        """Press a key and let it go."""
        common = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    def choose_file(self, name, path):
        """Choose a file for the input of an id."""
        node = self.call("DOM.getDocument")["root"]["nodeId"]
        found = self.call("DOM.querySelector", nodeId=node, selector=f"#{name}")
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=found["nodeId"])

    def emulate(self, width=1280, height=900, scale=1, dark=False):
        """Show the page in a window of another size, and with light or dark colours."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale,
                  mobile=False)
        scheme = "dark" if dark else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, whole=True):
        """A picture of the page, or of what is to be seen of it: a PNG file."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])
