"""Cloud Storage's JSON API, as strict as Google's about preconditions; in this process, on a free port of loopback.

What the emulators are too kind to do, and where Google says it:

- `ifGenerationMatch` on an upload or a delete: done only while that is the object's generation, else 412; 0 means that
  there must be no such object. https://cloud.google.com/storage/docs/request-preconditions
- every write makes a new, larger generation; a deleted object is 404, and so is a generation that was replaced.
  https://cloud.google.com/storage/docs/metadata#generation-number
- a listing shows each object that was written before it, in pages. https://cloud.google.com/storage/docs/consistency
- uploads of more than 8 MiB come as resumable uploads, in chunks. https://cloud.google.com/storage/docs/resumable-uploads
- a rewrite into another location is done in parts: each answer but the last has a token for the next, and nothing is
  there before the last. https://cloud.google.com/storage/docs/json_api/v1/objects/rewrite
- an answer can be lost though the request was done: it is for the client to find out.
  https://cloud.google.com/storage/docs/retry-strategy#idempotency-operations

Beyond Google's: it keeps a list of writes that named no generation, since each could overwrite another's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c

PAGE = 3
# Each object has times; nobody here compares them.
_MADE = "2026-11-30T00:00:00.000Z"


@dataclass
class Object:
    content: bytes
    generation: int
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass
class StrictStorage:
    """The buckets, what was asked, and what shall go wrong. `url` is what STORAGE_EMULATOR_HOST takes.

    `refuse`: the status that the next writes are answered with, in order, None for none of them. Not done.
    `lose`: of how many of the next writes the answer is lost (503), although they are done.
    """

    buckets: set[str]
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    refuse: deque[int | None] = field(default_factory=deque)
    lose: int = 0
    calls: list[str] = field(default_factory=list)
    unconditional: list[str] = field(default_factory=list)
    url: str = ""
    lock: Any = field(default_factory=threading.RLock)
    generation: int = 1_700_000_000_000_000
    uploads: dict[str, tuple[str, str, dict[str, str], bytearray]] = field(default_factory=dict)

    def content(self, bucket: str, name: str) -> bytes:
        return self.objects[bucket, name].content

    def names(self, bucket: str) -> list[str]:
        return sorted(name for where, name in self.objects if where == bucket)

    def insert(self, bucket: str, name: str, content: bytes, asked: dict[str, str]) -> Any:
        with self.lock:
            self.check(bucket, name, asked, f"insert {name}")
            self.generation += 1
            self.objects[bucket, name] = Object(content, self.generation)
            self.answered()
            return self.resource(bucket, name)

    def delete(self, bucket: str, name: str, asked: dict[str, str]) -> None:
        with self.lock:
            if (bucket, name) not in self.objects:
                raise Refused(404)
            self.check(bucket, name, asked, f"delete {name}")
            del self.objects[bucket, name]
            self.answered()

    def check(self, bucket: str, name: str, asked: dict[str, str], what: str) -> None:
        self.calls.append(what)
        if bucket not in self.buckets:
            raise Refused(404)
        if self.refuse and (status := self.refuse.popleft()):
            raise Refused(status)
        if "ifGenerationMatch" not in asked:
            self.unconditional.append(what)
            return
        there = self.objects.get((bucket, name))
        if int(asked["ifGenerationMatch"]) != (there.generation if there else 0):
            raise Refused(412)

    def answered(self) -> None:
        if self.lose:
            self.lose -= 1
            raise Refused(503)

    def resource(self, bucket: str, name: str) -> dict[str, Any]:
        there = self.objects[bucket, name]
        return {
            "kind": "storage#object", "bucket": bucket, "name": name, "generation": str(there.generation),
            "metageneration": "1", "size": str(len(there.content)), **_checksums(there.content),
            "timeCreated": _MADE, "updated": _MADE, "metadata": there.metadata,
        }  # fmt: skip


class Refused(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


_MESSAGES = {404: "Not Found", 412: "At least one of the pre-conditions you specified did not hold."}


@contextmanager
def storage(*buckets: str) -> Iterator[StrictStorage]:
    """A running service with these buckets."""
    served = StrictStorage(buckets=set(buckets))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"storage": served}))
    server.daemon_threads = True
    served.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet, or the client's kernel waits 40 ms for the second
    storage: StrictStorage

    def log_message(self, *_: Any) -> None:
        return

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}

    def do_GET(self) -> None:
        path, asked = self._asked()
        if found := re.fullmatch(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)", path):
            self._served(lambda: self._object(found[1], unquote(found[2]), asked))
        elif found := re.fullmatch(r"/storage/v1/b/([^/]+)/o", path):
            self._served(lambda: self._page(found[1], asked))
        else:
            self._send(501)

    def do_DELETE(self) -> None:
        path, asked = self._asked()
        found = re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)", path)
        if not found:
            return self._send(501)

        def delete() -> None:
            self.storage.delete(found[1], unquote(found[2]), asked)
            self._send(204)

        return self._served(delete)

    def do_PATCH(self) -> None:
        """Metadata alone: neither content nor generation change, and what a client may not set is left out."""
        path, _ = self._asked()
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        found = re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)", path)
        if not found:
            return self._send(501)
        where = found[1], unquote(found[2])

        def patch() -> None:
            with self.storage.lock:
                if where not in self.storage.objects:
                    raise Refused(404)
                self.storage.objects[where].metadata |= body.get("metadata", {})
            self._json(self.storage.resource(*where))

        return self._served(patch)

    def do_POST(self) -> None:
        path, asked = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if copied := re.fullmatch(r"/storage/v1/b/([^/]+)/o/([^/]+)/rewriteTo/b/([^/]+)/o/([^/]+)", path):
            of, to = (copied[1], unquote(copied[2])), (copied[3], unquote(copied[4]))
            return self._served(lambda: self._rewrite(of, to, asked))
        found = re.fullmatch(r"/(?:resumable/)?upload/storage/v1/b/([^/]+)/o", path)
        if not found:
            return self._send(501)
        if asked["uploadType"] == "resumable":
            return self._served(lambda: self._begin(found[1], json.loads(body or b"{}"), asked))
        name, content = asked.get("name", ""), body
        if asked["uploadType"] == "multipart":
            # gcloud's parts end their lines with a line feed alone.
            boundary = re.search(r"""boundary=["']?([^"';]+)""", self.headers["Content-Type"])
            assert boundary
            parts = body.split(b"--" + boundary[1].encode())
            about, content = (re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in parts[1:3])
            about, content = (part.removesuffix(b"\n").removesuffix(b"\r") for part in (about, content))
            name = json.loads(about)["name"]
        return self._served(lambda: self._json(self.storage.insert(found[1], name, content, asked)))

    def do_PUT(self) -> None:
        _, asked = self._asked()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        bucket, name, first, received = self.storage.uploads[asked["upload_id"]]
        received += body
        # `bytes 0-8388607/20000000`: the last chunk is the one that makes it whole.
        if self.headers["Content-Range"].rpartition("/")[2] != str(len(received)):
            return self._send(308, headers={"Range": f"bytes=0-{len(received) - 1}"})
        return self._served(lambda: self._json(self.storage.insert(bucket, name, bytes(received), first)))

    def _rewrite(self, of: tuple[str, str], to: tuple[str, str], asked: dict[str, str]) -> None:
        with self.storage.lock:
            there = self.storage.objects.get(of)
            if there is None or to[0] not in self.storage.buckets:
                raise Refused(404)
            size = str(len(there.content))
            if "rewriteToken" not in asked:
                answer = {"done": False, "rewriteToken": uuid.uuid4().hex, "objectSize": size}
                return self._json({**answer, "totalBytesRewritten": "1"})
            made = self.storage.insert(*to, there.content, asked)
        return self._json({"done": True, "objectSize": size, "totalBytesRewritten": size, "resource": made})

    def _begin(self, bucket: str, about: dict[str, Any], asked: dict[str, str]) -> None:
        upload = uuid.uuid4().hex
        with self.storage.lock:
            self.storage.uploads[upload] = bucket, asked.get("name") or about["name"], asked, bytearray()
        where = f"{self.storage.url}/resumable/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={upload}"
        self._send(200, headers={"Location": where})

    def _object(self, bucket: str, name: str, asked: dict[str, str]) -> None:
        with self.storage.lock:
            self.storage.calls.append(f"get {name}")
            there = self.storage.objects.get((bucket, name))
            if there is None or asked.get("generation", str(there.generation)) != str(there.generation):
                raise Refused(404)
            about = self.storage.resource(bucket, name)
        if asked.get("alt") != "media":
            return self._json(about)
        hashes = f"crc32c={about['crc32c']},md5={about['md5Hash']}"
        headers = {"X-Goog-Generation": about["generation"], "X-Goog-Metageneration": "1", "X-Goog-Hash": hashes}
        return self._send(200, there.content, headers)

    def _page(self, bucket: str, asked: dict[str, str]) -> None:
        with self.storage.lock:
            self.storage.calls.append(f"list {asked.get('prefix', '')}")
            if bucket not in self.storage.buckets:
                raise Refused(404)
            after = asked.get("pageToken", "")
            names = [n for n in self.storage.names(bucket) if n.startswith(asked.get("prefix", "")) and n > after]
            page = names[: min(PAGE, int(asked.get("maxResults", PAGE)))]
            answer: dict[str, Any] = {"items": [self.storage.resource(bucket, name) for name in page]}
            if len(page) < len(names):
                answer["nextPageToken"] = page[-1]
        self._json(answer)

    def _served(self, serve: Any) -> None:
        try:
            serve()
        except Refused as refused:
            message = _MESSAGES.get(refused.status, "scripted")
            self._send(
                refused.status, json.dumps({"error": {"code": refused.status, "message": message}}).encode(),
                {"Content-Type": "application/json"},
            )  # fmt: skip

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _checksums(content: bytes) -> dict[str, str]:
    crc = google_crc32c.Checksum(content).digest()
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    return {"crc32c": base64.b64encode(crc).decode(), "md5Hash": base64.b64encode(md5).decode()}
