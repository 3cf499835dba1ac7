"""Whole files that several writers replace at once without losing a word: every change is a compare-and-swap.

`read` gives a file's content and its version; `swap` writes or removes it only while that is still its version. Who is
refused reads again and decides again on what is there now. A directory, a bucket and a store in memory behave the same.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

_SUFFIX: Final = ".jsonl"
_ABSENT: Final = 0
# Cloud Storage takes one change a second of an object, and is away for moments.
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0)


class Swap(Enum):
    """What became of a write."""

    DONE = "done"
    CHANGED = "changed"  # another was first: nothing was written
    IN_DOUBT = "in doubt"  # it may have been written before another changed the file: the answer was lost


class Files(Protocol):
    """Files by name, such as `retry/2026/11/23/09/12/0123456789abcdef.jsonl`."""

    def exists(self) -> bool:
        """Whether the directory or bucket is there."""

    def list(self, folder: str) -> list[str]:
        """The names of the files under `folder`, sorted; never from a cache."""

    def read(self, name: str) -> tuple[bytes, Any]:
        """Content and version; where there is no such file, no content and the version of none."""

    def swap(self, name: str, version: Any, content: bytes | None) -> Swap:
        """Makes `content` the file (None: removes it), durably, if `version` is still its version."""


def open_files(directory: str) -> Files:
    """The files under a path, a `gs://bucket/prefix` URL, or `memory://name` (of this process, for tests)."""
    scheme, separator, rest = directory.partition("://")
    if not separator:
        return Folder(directory)
    match scheme:
        case "gs":
            return Bucket(rest)
        case "memory":
            return Memory.named(rest)
        case "file":
            return Folder(rest)
    raise ValueError(f"the dead letters' directory must be a path or a gs:// URL, not {scheme}://.")


class Folder:
    """Files in a directory of this machine. A version is the content itself."""

    def __init__(self, path: str) -> None:
        self._root = Path(path)

    def exists(self) -> bool:
        return self._root.is_dir()

    def list(self, folder: str) -> list[str]:
        found = (self._root / folder).rglob(f"*{_SUFFIX}")
        return sorted(path.relative_to(self._root).as_posix() for path in found)

    def read(self, name: str) -> tuple[bytes, bytes]:
        try:
            content = (self._root / name).read_bytes()
        except FileNotFoundError:
            content = b""
        return content, content

    def swap(self, name: str, version: bytes, content: bytes | None) -> Swap:
        target = self._root / name
        # Written beforehand: the lock is held for a comparison and a rename only.
        partial = None if content is None else _partial(target, content)
        with self._locked():
            if self.read(name)[1] != version:
                if partial:
                    partial.unlink()
                return Swap.CHANGED
            if partial:
                partial.replace(target)
            else:
                target.unlink(missing_ok=True)
        return Swap.DONE

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer in the directory. The lock goes with its holder, also one that is killed."""
        self._root.mkdir(parents=True, exist_ok=True)
        directory = os.open(self._root, os.O_RDONLY)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            yield
        finally:
            os.close(directory)


def _partial(target: Path, content: bytes) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return partial


class Bucket:
    """Objects in Google Cloud Storage. A version is the object's generation; 0 is Google's for "there is none".

    Source: https://cloud.google.com/storage/docs/request-preconditions
    """

    def __init__(self, path: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._name, _, prefix = path.partition("/")
        self._prefix = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        self._sleep = sleep

    @cached_property
    def _bucket(self) -> Any:
        from google.cloud import storage

        return storage.Client(project=None).bucket(self._name)

    def exists(self) -> bool:
        from google.api_core.exceptions import NotFound

        try:
            # By its objects, which the job may list; the bucket itself it may not read.
            list(self._bucket.list_blobs(max_results=1))
        except NotFound:
            return False
        return True

    def list(self, folder: str) -> list[str]:
        blobs = self._bucket.list_blobs(prefix=f"{self._prefix}{folder}/", fields="items(name),nextPageToken")
        return sorted(b.name.removeprefix(self._prefix) for b in blobs if b.name.endswith(_SUFFIX))

    def read(self, name: str) -> tuple[bytes, int]:
        from google.api_core.exceptions import NotFound

        blob = self._blob(name)
        try:
            content = bytes(blob.download_as_bytes())
        except NotFound:
            return b"", _ABSENT
        # The generation that was read, from the answer's own headers.
        return content, int(blob.generation)

    def swap(self, name: str, version: int, content: bytes | None) -> Swap:
        from google.api_core.exceptions import NotFound, PreconditionFailed

        if content is None and version == _ABSENT:
            return Swap.DONE
        in_doubt = False
        for pause in (*_PAUSES, None):
            try:
                self._send(name, version, content)
                return Swap.DONE
            except PreconditionFailed:
                break
            except NotFound:
                if content is not None:
                    raise  # the bucket
                break
            except _transient():
                # It may have been done: what then says that the object changed can mean us.
                in_doubt = True
                if pause is None:
                    raise
                self._sleep(pause)
        if not in_doubt:
            return Swap.CHANGED
        return Swap.DONE if self.read(name)[0] == (content or b"") else Swap.IN_DOUBT

    def _send(self, name: str, version: int, content: bytes | None) -> None:
        """The client's own retries are off: they would hide whether an answer was lost."""
        if content is None:
            self._blob(name).delete(if_generation_match=version, retry=None)
        else:
            self._blob(name).upload_from_string(
                content, content_type="application/x-ndjson", if_generation_match=version, retry=None
            )

    def _blob(self, name: str) -> Any:
        return self._bucket.blob(self._prefix + name)


def _transient() -> tuple[type[Exception], ...]:
    from google.api_core import exceptions
    from google.auth.exceptions import TransportError
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    return (
        exceptions.ServerError,
        exceptions.TooManyRequests,
        TransportError,
        ChunkedEncodingError,
        ConnectionError,
        Timeout,
    )


class Memory:
    """The same in this process's memory: the twin that tests use. All that open one name share it."""

    _all: ClassVar[dict[str, Memory]] = {}

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, int]] = {}
        self._changes = 0
        self._lock = threading.Lock()

    @classmethod
    def named(cls, name: str) -> Memory:
        return cls._all.setdefault(name.rstrip("/"), cls())

    def exists(self) -> bool:
        return True

    def list(self, folder: str) -> list[str]:
        with self._lock:
            return sorted(name for name in self._files if name.startswith(f"{folder}/"))

    def read(self, name: str) -> tuple[bytes, int]:
        with self._lock:
            return self._files.get(name, (b"", _ABSENT))

    def swap(self, name: str, version: int, content: bytes | None) -> Swap:
        with self._lock:
            if self._files.get(name, (b"", _ABSENT))[1] != version:
                return Swap.CHANGED
            self._changes += 1
            if content is None:
                self._files.pop(name, None)
            else:
                self._files[name] = (content, self._changes)
            return Swap.DONE
