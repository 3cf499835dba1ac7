"""The files of backups: a bucket and a folder behave alike, and Cloud Storage itself copies a bucket's objects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.backup.objects import Objects, opened
from support.backup.records import BackupError
from tests.strict.storage import StrictStorage, storage

NAMES = [f"bigquery/d.t/2026112{day}/b/000000000000.avro" for day in range(5)]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictStorage]:
    with storage("backups", "backup-copies") as served:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", served.url)
        yield served


@pytest.fixture(params=["gs://backups", "gs://backups/of/a/stack", "folder"])
def files(request: pytest.FixtureRequest, cloud: StrictStorage, tmp_path: Path) -> Objects:
    return opened(str(tmp_path / "backups") if request.param == "folder" else request.param)


def test_files_are_written_listed_read_and_deleted(files: Objects) -> None:
    assert files.list() == {}
    for number, name in enumerate(NAMES):  # more than a page
        files.write(name, b"x" * number)
    assert files.list("bigquery/d.t/") == {name: number for number, name in enumerate(NAMES)}
    assert files.list("bigquery/d.u/") == {} and files.read(NAMES[3]) == b"xxx"
    # One that is gone already is no error: two may delete it at once.
    files.delete([NAMES[0], NAMES[0], NAMES[3]])
    assert list(files.list()) == [NAMES[1], NAMES[2], NAMES[4]]
    with pytest.raises(BackupError, match="is not there"):
        files.read(NAMES[3])


def test_a_large_object_is_copied_in_parts_and_never_passes_here(cloud: StrictStorage) -> None:
    source, target = opened("gs://backups"), opened("gs://backup-copies/far")
    source.write(NAMES[0], b"rows")
    cloud.calls.clear()
    source.copy(NAMES[0], target)
    assert target.read(NAMES[0]) == b"rows" and cloud.names("backup-copies") == [f"far/{NAMES[0]}"]
    assert not [call for call in cloud.calls if call == f"get {NAMES[0]}"]


def test_a_bucket_is_copied_into_a_bucket_alone(cloud: StrictStorage, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="can be copied into a bucket"):
        opened("gs://backups").copy(NAMES[0], opened(str(tmp_path)))
