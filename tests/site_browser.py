"""The built site in a browser: `nox -s site`, where Chromium is installed.

Pages of each kind are opened at the width of a desktop and of a phone, light and dark: the console
stays empty, nothing is requested from another host, and no page is wider than the screen. Every
link of the site leads somewhere, and the search finds `BatchNorm`. With `--pictures FOLDER`,
screenshots are kept.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import http.server
import itertools
import json
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import websocket

SITE = Path(__file__).parents[1] / ".site"
PAGES = [
    "",
    "tutorials/stateful-model/",
    "how-to/kv-caches/",
    "explanation/architecture/",
    "reference/layers/normalization/",
]
SCREENS = list(itertools.product([(1280, 900), (390, 844)], ["light", "dark"]))
BROWSERS = ["chromium", "chromium-browser", "google-chrome"]
WORRIES = {"Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed"}


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address at which the site is served."""
    handler = functools.partial(Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


class Browser:
    """One tab of a headless Chromium, by its debugging protocol."""

    def __init__(self, address: str):
        self.numbers, self.events = itertools.count(1), []
        self.socket = websocket.create_connection(address, timeout=60)
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **params: Any) -> Any:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv())).get("id") != number:
            self.events.append(answer)
        return answer["result"]

    def evaluate(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", expression=expression)["result"].get("value")

    def open(self, url: str) -> list[dict]:
        """Open a page; what happened until it was there."""
        self.events.clear()
        self.ask("Page.navigate", url=url)
        self.wait("document.readyState == 'complete'")
        return self.events

    def wait(self, condition: str) -> bool:
        for _ in range(100):
            if self.evaluate(condition):
                return True
            time.sleep(0.1)
        return False


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit(f"none of {', '.join(BROWSERS)} is installed: `apt-get install chromium`")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-allow-origins=*"]
        options += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        silent = subprocess.DEVNULL
        with subprocess.Popen([program, *options], stdout=silent, stderr=silent) as process:
            try:
                yield Browser(debugger(Path(profile) / "DevToolsActivePort"))
            finally:
                process.terminate()


def debugger(port: Path) -> str:
    """The address of the first tab."""
    for _ in range(300):
        if port.exists() and port.read_text().strip():
            break
        time.sleep(0.1)
    url = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"
    tabs = json.load(urllib.request.urlopen(url))
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")


def worries(tab: Browser, root: str, page: str, pictures: Path | None) -> Iterator[str]:
    """Say what is wrong with a page on any screen."""
    for (width, height), scheme in SCREENS:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        tab.ask("Emulation.setDeviceMetricsOverride", **size)
        scheme_of = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.ask("Emulation.setEmulatedMedia", features=scheme_of)
        where = f"/{page} at {width} pixels, {scheme}"
        for event in tab.open(root + page):
            url = event["params"].get("request", {}).get("url", root)
            if event["method"] in WORRIES or not url.startswith((root, "data:", "blob:")):
                yield f"{where}: {event['method']}, {json.dumps(event['params'])[:300]}"
        if not tab.wait(f"document.body.dataset.mdColorScheme == '{SCHEMES[scheme]}'"):
            yield f"{where}: another color scheme"
        if (wide := tab.evaluate("document.documentElement.scrollWidth")) > width:
            yield f"{where}: {wide} pixels wide"
        if pictures:
            name = f"{page.strip('/').replace('/', '-') or 'home'}-{width}-{scheme}.png"
            picture = tab.ask("Page.captureScreenshot", format="png")["data"]
            (pictures / name).write_bytes(base64.b64decode(picture))


SCHEMES = {"light": "default", "dark": "slate"}


def broken_links() -> Iterator[str]:
    """Say which links between pages lead nowhere, anchors included."""
    pages = {path: path.read_text() for path in SITE.rglob("*.html")}
    for path, text in pages.items():
        for link in re.findall(r'<a\s[^>]*?href="([^"]+)"', text):
            target, _, anchor = link.partition("#")
            if path.name == "404.html" or re.match(r"\w+:", target):
                continue
            file = (path.parent / target.split("?")[0]).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            anchored = not anchor or f'id="{anchor}"' in pages.get(file, f'id="{anchor}"')
            if not (file.exists() and anchored):
                yield f"{path.relative_to(SITE)} links to {link}"


def search(tab: Browser, root: str) -> Iterator[str]:
    """Say so if the search does not find `BatchNorm` in the reference."""
    tab.open(f"{root}?q=BatchNorm")
    found = "[...document.querySelectorAll('.md-search-result__link')].map(a => a.href).join(' ')"
    if not tab.wait(f"({found}).includes('oryxstate.nn.BatchNorm')"):
        yield f"the search for BatchNorm finds {tab.evaluate(found) or 'nothing'}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, help="a folder for screenshots")
    pictures = parser.parse_args().pictures
    if pictures:
        pictures.mkdir(parents=True, exist_ok=True)
    with served() as root, browser() as tab:
        found = [w for page in PAGES for w in worries(tab, root, page, pictures)]
        found += [*search(tab, root), *broken_links()]
    print("\n".join(found) or f"{len(PAGES)} pages on {len(SCREENS)} screens: nothing to mend")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
