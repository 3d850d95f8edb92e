"""A stand-in for the Hugging Face hub, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
from http.server import BaseHTTPRequestHandler


class Hub(BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as one upload and one download ask for."""

    files: dict[str, bytes] = {}

    def answer(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        here = f"http://{self.headers['Host']}/ann/catch"
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            listed = [{"path": part["path"], "uploadMode": "regular", "shouldIgnore": False} for part in files]
            self.answer(json.dumps({"files": listed}).encode())
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self.answer(json.dumps({"commitUrl": f"{here}/commit/{'1' * 40}", "commitOid": "1" * 40}).encode())
        else:
            self.answer(json.dumps({"url": here, "id": "ann/catch"}).encode())

    def do_GET(self) -> None:
        name = self.path.rsplit("/", 1)[-1]
        if not self.path.startswith("/ann/catch/resolve/main/") or name not in self.files:
            self.answer(b"{}", 200 if "/api/" in self.path else 404, X_Error_Code="EntryNotFound")
        else:
            self.answer(
                self.files[name], X_Repo_Commit="1" * 40, ETag=f'"{hashlib.sha256(self.files[name]).hexdigest()}"'
            )

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Silent."""
