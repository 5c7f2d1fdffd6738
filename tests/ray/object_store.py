"""A store that speaks S3 (moto's server), in a process of its own that can be away for a while."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

# Its objects live in the process: they are there again when the server is.
_PROGRAM = """
import sys
from moto.server import ThreadedMotoServer

port = 0
for word in sys.stdin:
    if word == "start\\n":
        server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
        server.start()
        port = server.get_host_and_port()[1]
    else:
        server.stop()
    print(port, flush=True)
"""


@dataclass
class Store:
    """A server on loopback."""

    process: subprocess.Popen[str]
    port: int = 0

    @classmethod
    def make(cls) -> Store:
        """Start a server without a bucket."""
        command = [sys.executable, "-c", _PROGRAM]
        pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL  # it tells of every request
        store = cls(subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nowhere, text=True))
        store.start()
        return store

    def start(self) -> None:
        """Let it answer, on the port that it had."""
        self._tell("start")

    def stop(self) -> None:
        """Let it refuse all connections."""
        self._tell("stop")

    def end(self) -> None:
        """End the process, and all objects with it."""
        self.process.kill()
        self.process.communicate(timeout=30)

    def uri(self, path: str) -> str:
        """Return the URI of a bucket and what is in it; buckets are made where there are none."""
        server = f"endpoint_override=127.0.0.1:{self.port}&scheme=http"
        return f"s3://{path}?{server}&allow_bucket_creation=true"

    def _tell(self, word: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        self.port = int(self.process.stdout.readline())
