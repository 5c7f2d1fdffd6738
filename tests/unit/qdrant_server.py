"""The part of Qdrant's REST interface that the store uses, over qdrant-client's own memory.

No Qdrant server can be installed where the tests run; this answers the real client over real HTTP.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qdrant_client import QdrantClient, models


class FakeQdrant:
    """Collections behind a port; `refusals` are statuses to answer before anything else."""

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:")
        self.refusals: list[int] = []
        self.upserts = 0
        self._lock = threading.Lock()

    def answer(self, method: str, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            if self.refusals:
                return self.refusals.pop(0), None
            return self._answer(method, path.partition("?")[0].split("/")[2:], body)

    def _answer(self, method: str, path: list[str], body: dict[str, Any]) -> tuple[int, Any]:
        name, action = path[0], path[1:]
        exists = self.client.collection_exists(name)
        match method, action:
            case "GET", ["exists"]:
                return 200, {"exists": exists}
            case "PUT", []:
                if exists:
                    return 409, None
                self.client.create_collection(name, models.VectorParams(**body["vectors"]))
                return 200, True
            case "PUT", ["points"]:
                self.upserts += 1
                self.client.upsert(name, models.Batch(**body["batch"]))
                return 200, {"operation_id": 1, "status": "completed"}
            case "POST", ["points", "count"]:
                return 200, {"count": self.client.count(name).count}
            case "POST", ["points"]:
                found = self.client.retrieve(name, body["ids"], with_vectors=True)
                return 200, [json.loads(record.model_dump_json()) for record in found]
            case "POST", ["points", "query"]:
                hits = self.client.query_points(
                    name,
                    query=body["query"]["nearest"],
                    limit=body["limit"],
                    score_threshold=body.get("score_threshold"),
                    query_filter=models.Filter(**body["filter"]) if body.get("filter") else None,
                )
                return 200, json.loads(hits.model_dump_json())
        return 404, None


@contextmanager
def served(qdrant: FakeQdrant) -> Iterator[str]:
    """Serve it on a free port of this machine; yields the URL."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, result = qdrant.answer(
                self.command, self.path, json.loads(data) if data else {}
            )
            answer = json.dumps({"result": result, "status": "ok", "time": 0.0}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_PUT = do_POST = handle_any

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
