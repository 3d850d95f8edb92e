"""A real JupyterLab and a real browser, for tests of what a person sees, presses and saves.

A server of its own on a free port, with settings of its own, and a headless chromium; nothing asks the internet.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

PATIENCE = 90.0  # seconds any single wait may take on a busy machine
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
BROWSER += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
SERVER = ["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"]
SERVER += ["--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly"]
SERVER += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
PLACES = ["CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR"]
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells out of sight stay in the page
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}
# The indicator in the toolbar says "idle" before there is a kernel at all, so the session itself is asked.
READY = """() => {
    const shown = window.jupyterapp?.shell.currentWidget;
    const kernel = shown?.context?.isReady && shown.sessionContext.isReady && shown.sessionContext.session?.kernel;
    return !!kernel && kernel.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
RUN = """name => {
    window.outcome = null;
    window.jupyterapp.commands.execute(name).then(
        good => { window.outcome = good === false ? 'failed' : 'good' }, error => { window.outcome = String(error) });
}"""


def find_browser() -> str:
    """The path of a chromium; empty if there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), "") or ""


class Lab:
    """A running JupyterLab whose files lie in `folder`."""

    def __init__(self, folder: Path, url: str, token: str) -> None:
        self.folder, self.url, self.token = folder, url, token

    def put(self, source: Path, name: str, **changes: Any) -> Path:
        """A copy of a notebook whose parameters cell sets these as well; the run folder is named after the copy."""
        book = nbformat.read(source, as_version=4)
        (cell,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", []))
        given = {"run_dir": str(self.folder / Path(name).stem), **changes}
        cell.source += "".join(f"\n{name} = {value!r}" for name, value in given.items())
        nbformat.write(book, self.folder / name)
        return self.folder / name


@contextlib.contextmanager
def running_lab(own: Path, folder: Path) -> Iterator[Lab]:
    """A JupyterLab on the notebooks in `folder`, with its own settings in `own`."""
    token = secrets.token_hex(16)
    for name, values in SETTINGS.items():
        path = own / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = {f"JUPYTER_{name}": str(own / name.lower()) for name in PLACES}
    places |= {"JUPYTERLAB_SETTINGS_DIR": str(own / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(own / "workspaces")}
    environment = os.environ | places | {"IPYTHONDIR": str(own / "ipython"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jupyterlab", *SERVER, f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    with (own / "log").open("wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for_server(server, f"{url}/api/status?token={token}", own / "log")
        yield Lab(folder, url, token)
    finally:
        end(server)


def die_with_parent() -> None:
    """Linux: a test run that is killed outright leaves no server behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def wait_for_server(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy does not know this machine's server
    while True:
        with contextlib.suppress(OSError):
            opener.open(address, timeout=5).close()
            return
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


def end(server: subprocess.Popen[bytes]) -> None:
    """Ends the server and its kernels: the group that was started, nothing else."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if server.poll() is None:
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(server.pid, sign)
                server.wait(10)


@contextlib.contextmanager
def new_page(lab: Lab) -> Iterator[Any]:
    """A page in chromium; whatever it asks of any other machine fails the test."""
    from playwright.sync_api import sync_playwright

    elsewhere: list[str] = []
    own = (lab.url, lab.url.replace("http", "ws"), "data:", "blob:")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_browser(), args=BROWSER)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(PATIENCE * 1000)
            page.on("request", lambda request: request.url.startswith(own) or elsewhere.append(request.url))
            page.on("websocket", lambda socket: socket.url.startswith(own) or elsewhere.append(socket.url))
            yield page
        finally:
            browser.close()
    assert not elsewhere


def open_notebook(page: Any, lab: Lab, name: str) -> None:
    page.goto(f"{lab.url}/doc/tree/{name}?token={lab.token}&reset", wait_until="domcontentloaded")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function(READY, polling=100)


def wait_for_end(page: Any) -> None:
    page.wait_for_function("() => window.outcome || document.querySelector('.jp-Dialog')", polling=100, timeout=300_000)
    errors = page.locator("[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
    assert page.evaluate("window.outcome") == "good", errors
