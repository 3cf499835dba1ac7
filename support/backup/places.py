"""Where the data of backups is, and how one is deleted wholly: snapshots, exports, their copies, and its record.

An export is of one partition, and several backups can have the same one: it goes with the last of them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

from support.backup.objects import Objects, opened
from support.backup.records import Backup, BackupError
from support.backup.store import Backups
from support.backup.tables import Tables
from support.connection import Connection
from support.plain import plain
from support.warehouse import Warehouse

EXPORTS: Final = "bigquery/"
MANIFESTS: Final = "manifests/"


class Place(NamedTuple):
    """Where rows of a backup are: a snapshot `dataset.name`, a folder of an export or of its copy, or a manifest."""

    backup: str
    kind: Literal["snapshot", "export", "copy", "manifest"]
    where: str


def places(connection: Connection) -> list[Place]:
    """Every place that holds rows of any backup. A manifest has counts and checksums alone."""
    return [place for backup in Backups(connection).all() for place in _places(connection, backup)]


def _places(connection: Connection, backup: Backup) -> list[Place]:
    found = [Place(backup.id, "snapshot", table.snapshot) for table in backup.tables]
    kinds: tuple[tuple[Literal["export", "copy"], str], ...] = (
        ("export", connection.backup_directory),
        ("copy", connection.backup_copy_directory),
    )
    for kind, url in kinds:
        found += [Place(backup.id, kind, f"{url}/{folder}") for folder in sorted(backup.exports) if url]
        found += [Place(backup.id, "manifest", f"{url}/{manifest(backup.id)}")] if url else []
    return found


def delete(connection: Connection, backup_id: str) -> list[Place]:
    """Deletes a backup wholly, also one that is not whole; says what it held. What others hold too, stays.

    It takes the permission to delete snapshots, which the account of backups does not have. Old versions of objects
    stay for seven days, time travel of BigQuery as well. Raises BackupError.
    """
    store = Backups(connection)
    backup = next((each for each in store.all() if each.id == backup_id), None)
    if backup is None:
        raise BackupError(f"there is no backup {backup_id}. See `audit backup list`.")
    tables = Tables(connection, Warehouse(connection))
    names = [table.snapshot for table in backup.tables] or tables.snapshots_of(backup_id)
    for name in names:
        tables.drop(name)
    store.forget(backup)
    prune(connection)
    return _places(connection, backup)


def prune(connection: Connection, now: datetime | None = None) -> int:
    """Forgets backups that have expired, and deletes files that none has any more, here and in the copies.

    A snapshot expires by itself. Says how many files went.
    """
    now, store = now or datetime.now(UTC), Backups(connection)
    kept = []
    for backup in store.all():
        if backup.expires_at <= now:
            store.forget(backup)
        else:
            kept.append(backup)
    folders = {folder for backup in kept for folder in backup.exports}
    ids = {backup.id for backup in kept}
    unfinished = {backup.id for backup in kept if backup.created_at is None}
    gone = 0
    for files in _files(connection):
        names = [name for name in files.list(EXPORTS) if not _needed(name, folders, unfinished)]
        names += [name for name in files.list(MANIFESTS) if name not in {manifest(each) for each in ids}]
        files.delete(names)
        gone += len(names)
    return gone


def _needed(name: str, folders: set[str], unfinished: set[str]) -> bool:
    """Whether a backup has a file, or one that is being made may have it soon."""
    folder = name.rpartition("/")[0]
    return folder in folders or folder.rpartition("/")[2] in unfinished


def mirror(connection: Connection) -> int:
    """Copies what is not there yet into the second region; says how many files. A file is never changed."""
    if not connection.backup_directory or not connection.backup_copy_directory:
        return 0
    source, target = _files(connection)
    there = target.list()
    missing = [name for name, size in source.list().items() if there.get(name) != size]
    for name in missing:
        source.copy(name, target)
    return len(missing)


def manifest(backup_id: str) -> str:
    return f"{MANIFESTS}{backup_id}.json"


def write_manifest(connection: Connection, backup: Backup) -> None:
    """The record beside the exports: a restore needs no other store then."""
    content = json.dumps(backup.to_dict() | {"drill": None}, default=plain, indent=1)
    opened(connection.backup_directory).write(manifest(backup.id), content.encode())


def read_manifest(url: str, backup_id: str) -> Backup:
    """A backup from a bucket or folder of exports or copies alone. Raises BackupError."""
    return Backup.from_dict(json.loads(opened(url).read(manifest(backup_id))))


def _files(connection: Connection) -> list[Objects]:
    return [opened(url) for url in (connection.backup_directory, connection.backup_copy_directory) if url]
