"""In the place of a server behind Ray Serve: tells what it was asked."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class MadeUpEngine:
    """Its `checkpoint` is a folder, in which its start and its end leave a line."""

    def __init__(self, name: str, checkpoint: str, flags: str) -> None:
        self.num_running = 0
        self.ended = False
        self._name, self._log = name, Path(checkpoint) / "log"
        self._note("starts")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.reply({})

            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                body = self.rfile.read(size).decode()
                self.reply({"model": name, "path": self.path, "flags": flags, "body": body})

            def reply(self, told: dict[str, str]) -> None:
                said = json.dumps(told).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(said)))
                self.send_header("x-own", "kept")
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __del__(self) -> None:
        if not self.ended:
            self.ended = True
            self._note("ends")
            self._server.shutdown()

    def _note(self, what: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{self._name} {what}\n")
