"""The dead-letter queue: JSON lines in a folder or a bucket, `retry/YYYY/MM/DD/HH/MM/<16 hex>.jsonl` and `severe/…`.

A file is named after the ids in it and its folder after the first commit minute, so a write that is repeated lands on
the same file. Nothing is changed in place: a file is replaced whole or removed, and a letter is written to where it
goes before it is taken from where it was. A crash between the two leaves it in both, and then `severe` counts. The
pipeline and the support commands use the same class; no Beam in here.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import orjson
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from contract.changes import Coordinates, DeadLetter

Kind = Literal["retry", "severe"]
RETRY: tuple[Kind, ...] = ("retry",)
SEVERE: tuple[Kind, ...] = ("severe",)
BOTH = RETRY + SEVERE


class DeadLetterError(ValueError):
    """The queue cannot do what was asked; the message says the rule and the way out."""


def encode(letter: DeadLetter) -> bytes:
    """One JSON line, without the line's end. `id` stands in it for people; `decode` makes it anew."""
    return orjson.dumps({"id": letter.id, **asdict(letter), "coordinates": letter.coordinates._asdict()})


def decode(line: bytes) -> DeadLetter:
    """The inverse of `encode`. Fields of a newer version are left out. Raises DeadLetterError for any other line."""
    try:
        fields = orjson.loads(line)
        known = {name: fields[name] for name in DeadLetter.__dataclass_fields__ if name in fields}
        return DeadLetter(**{**known, "coordinates": Coordinates(**fields["coordinates"])})
    except (ValueError, TypeError, KeyError):
        # The line can hold anything: it stays out of the message and of the chain.
        raise DeadLetterError("not a dead letter: each line is a JSON object as `encode` writes it.") from None


@dataclass(frozen=True)
class _File:
    """A file as it was read. `unreadable` lines are carried along by every rewrite, never dropped."""

    path: str
    letters: list[DeadLetter] = field(default_factory=list)
    unreadable: list[bytes] = field(default_factory=list)


class DeadLetterQueue:
    """Dead letters under `directory`, a path or a `gs://` URL. Cheap to make; safe to pickle."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._store = _Store(directory)
        # id → paths, as last read. It only says where to look first.
        self._seen: dict[str, set[str]] = defaultdict(set)

    def __reduce__(self) -> tuple[Any, ...]:
        return (DeadLetterQueue, (self.directory,))

    def put(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps the letters, durably once it returns. The same letters again: no change, no second file."""
        self._add("retry", letters, overwrite=False)

    def letters(self, kind: Kind = "retry") -> Iterator[DeadLetter]:
        """The letters in commit order, each once: of two copies the one with more attempts. A letter that is in
        `severe/` too is not in `retry`."""
        self._seen.clear()
        severe = self._read("severe")
        found = severe if kind == "severe" else {i: x for i, x in self._read("retry").items() if i not in severe}
        yield from (found[letter_id] for letter_id in sorted(found))

    def counts(self) -> dict[Kind, int]:
        """How many letters wait for the next try, and how many were set aside."""
        severe = self._read("severe")
        return {"retry": len(self._read("retry").keys() - severe.keys()), "severe": len(severe)}

    def find(self, letter_id: str) -> tuple[Kind, DeadLetter] | None:
        """The letter and where it is, or None."""
        for kind in SEVERE + RETRY:
            if found := self._read(kind).get(letter_id):
                return kind, found
        return None

    def resolve(self, ids: Iterable[str]) -> int:
        """Removes the letters from both folders: their changes are in BigQuery. Says how many there were."""
        return len(self._remove(BOTH, set(ids)))

    def discard(self, ids: Iterable[str]) -> int:
        """Removes letters whose changes shall not come to BigQuery. Says how many there were."""
        return len(self._remove(BOTH, set(ids)))

    def update(self, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
        """Keeps what a failed retry said (reason, message, last failure), with one attempt more than is stored.

        Gives the letters as they are now, so that the caller can set aside those with enough attempts.
        """
        latest = {letter.id: letter for letter in letters}
        updated: dict[str, DeadLetter] = {}

        def again(stored: DeadLetter) -> DeadLetter:
            failed = latest.get(stored.id)
            if failed is None:
                return stored
            tried = replace(failed, attempts=stored.attempts + 1, first_failed_at=stored.first_failed_at)
            if tried.id not in updated or updated[tried.id].attempts < tried.attempts:
                updated[tried.id] = tried
            return tried

        self._rewrite(RETRY, latest.keys(), again)
        return [updated[letter_id] for letter_id in sorted(updated)]

    def set_aside(self, letters: Iterable[DeadLetter]) -> None:
        """Moves letters to `severe/`, where nobody retries them."""
        given = list(letters)
        self._add("severe", given, overwrite=True)
        self._remove(RETRY, {letter.id for letter in given})

    def release(self, ids: Iterable[str]) -> int:
        """Hands letters to the next retry with no attempts behind them, also those set aside. Says how many."""
        wanted = set(ids)
        retry, severe = self._read("retry"), self._read("severe")
        self._rewrite(RETRY, wanted & retry.keys(), lambda x: replace(x, attempts=0) if x.id in wanted else x)
        self._add(
            "retry", [replace(severe[i], attempts=0) for i in wanted & severe.keys() - retry.keys()], overwrite=True
        )
        self._remove(SEVERE, wanted & severe.keys())
        return len(wanted & (retry.keys() | severe.keys()))

    def unreadable(self) -> int:
        """How many lines are no dead letter. They are kept as they are; somebody has to look."""
        return sum(len(file.unreadable) for kind in BOTH for file in self._files(kind))

    # Files

    def _add(self, kind: Kind, letters: Iterable[DeadLetter], *, overwrite: bool) -> None:
        by_id = {letter.id: letter for letter in letters}
        if not by_id:
            return
        ids = sorted(by_id)
        # An id begins with the commit timestamp: the first id is the first commit.
        first = by_id[ids[0]].coordinates.commit_timestamp
        name = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
        # 2026-11-23T09:12:54.… → 2026/11/23/09/12
        path = self._store.path(kind, *first[:10].split("-"), *first[11:16].split(":"), f"{name}.jsonl")
        there = self._load(path)
        stored = {letter.id: letter for letter in there.letters}
        # The file can have been rewritten without some of its letters: what is missing is added.
        merged = {**stored, **by_id} if overwrite else {**by_id, **stored}
        if merged != stored:
            self._save(replace(there, letters=[merged[letter_id] for letter_id in sorted(merged)]))

    def _remove(self, kinds: tuple[Kind, ...], ids: set[str]) -> set[str]:
        return self._rewrite(kinds, ids, lambda letter: None if letter.id in ids else letter)

    def _rewrite(
        self, kinds: tuple[Kind, ...], ids: Collection[str], change: Callable[[DeadLetter], DeadLetter | None]
    ) -> set[str]:
        """Puts what `change` makes in place of every copy of the letters (None: nothing), each file written once.

        Only the files where they were last seen, unless that misses one of them. Gives the ids found.
        """
        wanted = set(ids)
        roots = tuple(self._store.path(kind) for kind in kinds)
        seen = {path for i in wanted for path in self._seen.get(i, ()) if path.startswith(roots)}
        found = self._rewrite_files(map(self._load, sorted(seen)), wanted, change)
        if wanted - found:
            everywhere = [path for kind in kinds for path in self._store.list(kind) if path not in seen]
            found |= self._rewrite_files(map(self._load, everywhere), wanted, change)
        return found

    def _rewrite_files(
        self, files: Iterable[_File], ids: set[str], change: Callable[[DeadLetter], DeadLetter | None]
    ) -> set[str]:
        found: set[str] = set()
        for file in files:
            if here := {letter.id for letter in file.letters} & ids:
                found |= here
                self._save(replace(file, letters=[x for letter in file.letters if (x := change(letter))]))
        return found

    def _read(self, kind: Kind) -> dict[str, DeadLetter]:
        newest: dict[str, DeadLetter] = {}
        for file in self._files(kind):
            for letter in file.letters:
                self._seen[letter.id].add(file.path)
                if letter.id not in newest or newest[letter.id].attempts < letter.attempts:
                    newest[letter.id] = letter
        return newest

    def _files(self, kind: Kind) -> Iterator[_File]:
        return (self._load(path) for path in self._store.list(kind))

    def _load(self, path: str) -> _File:
        file = _File(path)
        for line in filter(None, self._store.read(path).split(b"\n")):
            try:
                file.letters.append(decode(line))
            except DeadLetterError:
                file.unreadable.append(line)
        return file

    def _save(self, file: _File) -> None:
        lines = [*map(encode, file.letters), *file.unreadable]
        if lines:
            self._store.write(file.path, b"\n".join(lines) + b"\n")
        else:
            self._store.delete(file.path)


class _Store:
    """Whole files under a directory: read, replaced at once, listed without a cache."""

    def __init__(self, directory: str) -> None:
        self._fs, root = url_to_fs(directory)
        self._root = root.rstrip("/")
        self._local = isinstance(self._fs, LocalFileSystem)

    def path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def list(self, kind: Kind) -> list[str]:
        self._fs.invalidate_cache()
        return sorted(path for path in self._fs.find(self.path(kind)) if path.endswith(".jsonl"))

    def read(self, path: str) -> bytes:
        try:
            return bytes(self._fs.cat_file(path))
        except FileNotFoundError:
            # Removed by another since it was listed, or not there yet.
            return b""

    def write(self, path: str, content: bytes) -> None:
        if not self._local:
            self._fs.pipe_file(path, content)  # an object appears whole or not at all
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)

    def delete(self, path: str) -> None:
        try:
            self._fs.rm_file(path)
        except FileNotFoundError:
            return
