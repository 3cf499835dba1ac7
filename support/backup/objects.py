"""The files of backups: objects of a bucket, or files of a folder that is in its place on one machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from support.backup.records import BackupError


class Objects(Protocol):
    """Files by name below one URL. `list` says how large each is."""

    url: str

    def list(self, prefix: str = "") -> dict[str, int]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...

    def delete(self, names: Iterable[str]) -> None: ...

    def copy(self, name: str, to: Objects) -> None:
        """Copies a file into another place of the same kind, without it passing through this machine in the cloud."""


def opened(url: str) -> Objects:
    """The files below a `gs://bucket` URL or a folder."""
    return Bucket(url) if url.startswith("gs://") else Folder(url)


class Folder:
    """Files of this machine."""

    def __init__(self, url: str) -> None:
        self.url = url.removeprefix("file://").rstrip("/")
        self._root = Path(self.url)

    def list(self, prefix: str = "") -> dict[str, int]:
        files = (path for path in sorted(self._root.rglob("*")) if path.is_file())
        named = ((path.relative_to(self._root).as_posix(), path) for path in files)
        return {name: path.stat().st_size for name, path in named if name.startswith(prefix)}

    def read(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except FileNotFoundError:
            raise _gone(self.url, name) from None

    def write(self, name: str, content: bytes) -> None:
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            (self._root / name).unlink(missing_ok=True)

    def copy(self, name: str, to: Objects) -> None:
        target = Path(to.url) / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._root / name, target)


class Bucket:
    """Objects of Cloud Storage."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._name, _, prefix = self.url.removeprefix("gs://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    @cached_property
    def _bucket(self) -> Any:
        from google.cloud import storage

        return storage.Client(project=None).bucket(self._name)

    def list(self, prefix: str = "") -> dict[str, int]:
        fields = "items(name,size),nextPageToken"
        found = self._bucket.list_blobs(prefix=self._prefix + prefix, fields=fields)
        return {blob.name.removeprefix(self._prefix): int(blob.size or 0) for blob in found}

    def read(self, name: str) -> bytes:
        from google.api_core.exceptions import NotFound

        try:
            return bytes(self._bucket.blob(self._prefix + name).download_as_bytes())
        except NotFound:
            raise _gone(self.url, name) from None

    def write(self, name: str, content: bytes) -> None:
        self._bucket.blob(self._prefix + name).upload_from_string(content, content_type="application/json")

    def delete(self, names: Iterable[str]) -> None:
        from google.api_core.exceptions import NotFound

        for name in names:
            try:
                self._bucket.blob(self._prefix + name).delete()
            except NotFound:
                continue

    def copy(self, name: str, to: Objects) -> None:
        if not isinstance(to, Bucket):
            raise BackupError(f"backups of {self.url} can be copied into a bucket, not into {to.url}.")
        source, target = self._bucket.blob(self._prefix + name), to._bucket.blob(to._prefix + name)
        # Cloud Storage copies a large object in parts, each of which says where the next begins.
        token, _, _ = target.rewrite(source)
        while token:
            token, _, _ = target.rewrite(source, token=token)


def _gone(url: str, name: str) -> BackupError:
    return BackupError(f"{url}/{name} is not there. See `audit backup list`.")
