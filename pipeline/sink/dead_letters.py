"""The dead-letter queue: JSON lines in a folder or a bucket, `retry/YYYY/MM/DD/HH/MM/<16 hex>.jsonl` and `severe/…`.

Jobs and people work on it at once, and none of them waits for another: every change of a file is a compare-and-swap
(`files.py`), decided per dead letter on what is in the file then. Three rules keep each dead letter:

1. It is written to where it goes, in a new file, before it is taken from where it was. A reader lists the
   folders until no new file turns up, and so meets it in one of the two.
2. Of all that take it from a file (two moves; a move and a removal) one does. A move that comes second takes its copy
   back: so what was resolved meanwhile does not return.
3. A copy is taken away only as it was read. A release marks the copy that it relies on (`released`, another mark each
   time), so that nobody who read it before takes it away.

A crash between the two writes of a move leaves the dead letter in both folders, and then `severe` counts. The pipeline
and the support commands use the same class; no Beam in here.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

import orjson

from contract.changes import Coordinates, DeadLetter
from contract.errors import AuditError
from pipeline.sink.files import Swap, open_files

Kind = Literal["retry", "severe"]
RETRY: tuple[Kind, ...] = ("retry",)
SEVERE: tuple[Kind, ...] = ("severe",)
BOTH = RETRY + SEVERE

# A row can have 10 MB. A file, and what a try has in memory at once, is at most this, or one dead letter.
MOST_BYTES: Final = 16_000_000
# What a listing keeps of the files while it sorts; it reads the others a second time.
_KEPT_BYTES: Final = 2 * MOST_BYTES


class DeadLetterError(AuditError, ValueError):
    """The queue cannot do what was asked; the message says the rule and the remedy."""


def encode(letter: DeadLetter) -> bytes:
    """One JSON line, without the line's end. `id` is in it for people; `decode` makes it again."""
    return orjson.dumps({"id": letter.id, **asdict(letter), "coordinates": letter.coordinates._asdict()})


def decode(line: bytes) -> DeadLetter:
    """The inverse of `encode`. Fields of a newer version are left out. Raises DeadLetterError for any other line."""
    try:
        fields = orjson.loads(line)
        known = {name: fields[name] for name in DeadLetter.__dataclass_fields__ if name in fields}
        if "payment" not in fields:
            known["payment"] = _payment_of_version_0_1(fields.get("change") or {})
        return DeadLetter(**{**known, "coordinates": Coordinates(**fields["coordinates"])})
    except (ValueError, TypeError, KeyError):
        # The line can hold anything: it stays out of the message and of the chain.
        raise DeadLetterError("not a dead letter: each line is a JSON object as `encode` writes it.") from None


def _payment_of_version_0_1(change: dict[str, Any]) -> str | None:
    """The payment of a dead letter that does not name it: version 0.1 knew one name for the column."""
    parts = (change.get(part) or {} for part in ("keys", "row", "new", "old"))
    return next((str(part["PUID"]) for part in parts if part.get("PUID") is not None), None)


def bounded(letters: Iterable[DeadLetter]) -> Iterator[list[DeadLetter]]:
    """The dead letters in their order, in lists of at most MOST_BYTES as they are encoded, or of one."""
    part: list[DeadLetter] = []
    size = 0
    for letter in letters:
        length = len(encode(letter)) + 1
        if part and size + length > MOST_BYTES:
            yield part
            part, size = [], 0
        part.append(letter)
        size += length
    if part:
        yield part


@dataclass(frozen=True)
class _File:
    """A file as it was read. `unreadable` lines are carried along by every rewrite, never dropped."""

    name: str
    version: Any
    size: int
    letters: list[DeadLetter] = field(default_factory=list)
    unreadable: list[bytes] = field(default_factory=list)


class _Where(NamedTuple):
    """The copy of a dead letter that counts: of two the one with more attempts."""

    attempts: int
    name: str


_Change = Callable[[DeadLetter], DeadLetter | None]


class DeadLetterQueue:
    """Dead letters under `directory`, a path or a `gs://` URL. Cheap to make; safe to pickle."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self._files = open_files(directory)
        # id → names of files, as last read. It only says where to look first.
        self._seen: dict[str, set[str]] = defaultdict(set)

    def __reduce__(self) -> tuple[Any, ...]:
        return (DeadLetterQueue, (self.directory,))

    def put(self, letters: Sequence[DeadLetter]) -> None:
        """Keeps the dead letters, durably once it returns. The same again: no change, no second file."""
        for part in bounded(sorted(letters, key=lambda letter: letter.id)):
            # Named after the ids in it: a write that is repeated lands on the same file.
            digest = hashlib.sha256("\n".join(dict.fromkeys(letter.id for letter in part)).encode())
            self._put(_name("retry", part, digest.hexdigest()), {letter.coordinates: letter for letter in part})

    def letters(self, kind: Kind = "retry") -> Iterator[DeadLetter]:
        """The dead letters in commit order, each once: of two copies the one with more attempts. One that is in
        `severe/` too is not in `retry`. One that is resolved or moved meanwhile may be left out."""
        return (letter for _, letter in self.every((kind,)))

    def every(self, kinds: tuple[Kind, ...] = BOTH) -> Iterator[tuple[Kind, DeadLetter]]:
        """The same of both folders, or of the requested one, each with where it is."""
        self._seen.clear()
        kept: OrderedDict[str, _File] = OrderedDict()
        index = self._index(kinds if kinds == SEVERE else BOTH, kept)
        found = sorted((at.change_id, at, kind) for kind in kinds for at in index[kind])
        for _, at, kind in found:
            name = index[kind][at].name
            if name in kept:
                kept.move_to_end(name)
            else:
                _keep(kept, self._load(name))
            yield from [(kind, letter) for letter in kept[name].letters if letter.coordinates == at][:1]

    def counts(self) -> dict[Kind, int]:
        """How many dead letters wait for the next try, and how many are parked. The one count of them."""
        return {kind: len(found) for kind, found in self._index(BOTH).items()}

    def find(self, letter_id: str) -> tuple[Kind, DeadLetter] | None:
        """The dead letter and where it is, or None."""
        best: dict[Kind, DeadLetter] = {}
        for kind, file in self._read(BOTH):
            for letter in file.letters:
                if letter.id == letter_id and (kind not in best or best[kind].attempts < letter.attempts):
                    best[kind] = letter
        return next(((kind, best[kind]) for kind in SEVERE + RETRY if kind in best), None)

    def resolve(self, ids: Iterable[str]) -> int:
        """Removes the dead letters from both folders: their changes are in BigQuery. Says how many there were."""
        return len(self._rewrite(BOTH, set(ids), lambda _: None))

    def discard(self, ids: Iterable[str]) -> int:
        """Removes dead letters whose changes should not come to BigQuery. Says how many there were."""
        return len(self._rewrite(BOTH, set(ids), lambda _: None))

    def forget(self, ids: Iterable[str]) -> int:
        """Leaves of dead letters only where to read their changes again. Says how many there were."""
        return len(self._rewrite(BOTH, set(ids), lambda letter: replace(letter, change=None)))

    def update(self, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
        """Keeps what a failed retry said (reason, message, last failure), with one attempt more than is stored.

        Gives the dead letters as they are now, so that the caller can park those with enough attempts. One that was
        resolved or discarded meanwhile is not among them; one that was released meanwhile is still released.
        """
        latest = {letter.coordinates: letter for letter in letters}

        def again(stored: DeadLetter) -> DeadLetter:
            failed = latest.get(stored.coordinates)
            if failed is None:
                return stored
            return replace(
                failed,
                attempts=stored.attempts + 1,
                first_failed_at=stored.first_failed_at,
                released="" if stored.released == failed.released else stored.released,
            )

        updated = self._rewrite(RETRY, {letter.id for letter in latest.values()}, again)
        return [max(updated[i], key=lambda letter: letter.attempts) for i in sorted(updated)]

    def park(self, letters: Iterable[DeadLetter]) -> list[DeadLetter]:
        """Parks dead letters in `severe/`, where nobody retries them, and gives those that it parked.

        Not those that a person released, resolved or discarded since this queue read them: the person's word counts.
        """
        given = {letter.coordinates: letter for letter in letters}
        ids = {letter.id for letter in given.values()}
        read_before = {i for i in ids if i in self._seen}
        parked: set[str] = set()

        def parked_as(stored: DeadLetter) -> DeadLetter | None:
            wanted = given.get(stored.coordinates)
            return wanted if wanted and stored.released in {"", wanted.released} else None

        def park(where: dict[str, set[str]]) -> None:
            for name, there in where.items():
                read_before.update(there)
                if name.startswith("retry/"):
                    parked.update(self._move(name, "severe", there, parked_as))

        park(self._last_seen(RETRY, ids))
        park(self._where(BOTH, ids - parked))
        fresh = [letter for letter in given.values() if letter.id not in read_before]
        self._add("severe", fresh)
        return sorted((x for x in given.values() if x.id in parked or x in fresh), key=_order)

    def release(self, ids: Iterable[str]) -> int:
        """Hands dead letters to the next retry with no attempts behind them, also those parked. Says how many."""
        wanted, released = set(ids), set[str]()
        mark = uuid.uuid4().hex

        def handed(letter: DeadLetter) -> DeadLetter:
            return replace(letter, attempts=0, released=mark)

        # Again for what was moved between looking and taking.
        while where := self._where(BOTH, wanted - released):
            for name, there in where.items():
                if name.startswith("retry/"):
                    released |= {before.id for before, _ in self._edit(name, there, handed)}
            for name, there in where.items():
                if name.startswith("severe/"):
                    # What is in `retry` as well stays there, as it is marked now.
                    self._remove(name, {x.coordinates: x for x in self._load(name).letters if x.id in there & released})
                    released |= self._move(name, "retry", there - released, handed)
        return len(released)

    def unreadable(self) -> int:
        """How many lines are not dead letters. They are kept as they are; somebody has to look at them."""
        return sum(len(file.unreadable) for _, file in self._read(BOTH))

    def exists(self) -> bool:
        """Whether the directory, or the bucket, is there."""
        return self._files.exists()

    # ------------------------------------------------------------------ moves

    def _move(self, name: str, to: Kind, ids: Collection[str], make: _Change) -> set[str]:
        """Moves dead letters of a file to the other folder, as `make` makes them (None: it stays). Gives the ids."""
        taken = {x.coordinates: x for x in self._load(name).letters if x.id in ids and make(x) is not None}
        made = [moved for x in taken.values() if (moved := make(x))]
        written = self._add(to, made)
        removed = self._remove(name, taken)
        late = {x.coordinates: x for x in made if x.coordinates not in removed}
        if late:
            # Another moved or resolved them, or they are as somebody left them since: this move is not needed.
            for copy in written:
                self._remove(copy, late)
        return {x.id for x in taken.values() if x.coordinates in removed}

    def _add(self, kind: Kind, letters: list[DeadLetter]) -> list[str]:
        """Writes new files, whose names nobody else has. Gives the names."""
        written = []
        for part in bounded(sorted(letters, key=lambda letter: letter.id)):
            written.append(_name(kind, part, uuid.uuid4().hex))
            self._put(written[-1], {letter.coordinates: letter for letter in part})
        return written

    def _remove(self, name: str, taken: dict[Coordinates, DeadLetter]) -> set[Coordinates]:
        """Removes copies from a file, those only that are still as they were taken. Gives which."""

        def removed(letter: DeadLetter) -> DeadLetter | None:
            mine = taken.get(letter.coordinates)
            # Under the same mark an attempt may have been counted since.
            same = mine is not None and (mine == letter or mine.released == letter.released != "")
            return None if same else letter

        edited = self._edit(name, {x.id for x in taken.values()}, removed)
        return {before.coordinates for before, after in edited if after is None}

    # ------------------------------------------------------------------ files

    def _put(self, name: str, letters: dict[Coordinates, DeadLetter]) -> None:
        while True:
            file = self._load(name)
            stored = {letter.coordinates: letter for letter in file.letters}
            # The file can have been rewritten without some of its dead letters: what is missing is added.
            missing = [letter for at, letter in letters.items() if at not in stored]
            if not missing or self._swap(file, sorted([*file.letters, *missing], key=_order)) is Swap.DONE:
                break
        for letter in letters.values():
            self._seen[letter.id].add(name)

    def _rewrite(self, kinds: tuple[Kind, ...], ids: Collection[str], change: _Change) -> dict[str, list[DeadLetter]]:
        """Puts what `change` makes in place of every copy of the dead letters (None: nothing), each file written once.

        Looks first where they were last seen, and everywhere unless each is still there. Gives what it made, by id.
        """
        made: dict[str, list[DeadLetter]] = {}
        whole = True
        seen = self._last_seen(kinds, ids)

        def edit(name: str) -> set[str]:
            edited = self._edit(name, ids, change)
            for before, after in edited:
                made.setdefault(before.id, []).extend([after] if after else [])
            return {before.id for before, _ in edited}

        for name, expected in seen.items():
            whole = expected <= edit(name) and whole
        if not whole or set(ids) - made.keys():
            for name in self._names(kinds, known=seen):
                edit(name)
        return made

    def _edit(self, name: str, ids: Collection[str], change: _Change) -> list[tuple[DeadLetter, DeadLetter | None]]:
        """Changes dead letters of a file, decided on what is in it when it is written. Gives (before, after)."""
        in_doubt: list[tuple[DeadLetter, DeadLetter | None]] = []
        while True:
            file = self._load(name)
            edited = [(letter, change(letter)) for letter in file.letters if letter.id in ids]
            if all(before == after for before, after in edited):
                return in_doubt + edited
            after = {before.coordinates: after for before, after in edited}
            kept = [y for x in file.letters if (y := after.get(x.coordinates) if x.id in ids else x)]
            match self._swap(file, kept):
                case Swap.DONE:
                    return in_doubt + edited
                case Swap.IN_DOUBT:
                    # Perhaps it was this one who took them: then nobody else has a copy.
                    in_doubt += edited

    def _index(
        self, kinds: tuple[Kind, ...], kept: OrderedDict[str, _File] | None = None
    ) -> dict[Kind, dict[Coordinates, _Where]]:
        """Where each dead letter is, once. Keeps the files, as far as they may be kept, in `kept`."""
        found: dict[Kind, dict[Coordinates, _Where]] = {"retry": {}, "severe": {}}
        for kind, file in self._read(kinds):
            for letter in file.letters:
                best = found[kind].get(letter.coordinates)
                if best is None or best.attempts < letter.attempts:
                    found[kind][letter.coordinates] = _Where(letter.attempts, file.name)
            if kept is not None:
                _keep(kept, file)
        for at in found["severe"].keys() & found["retry"].keys():
            del found["retry"][at]
        return found

    def _where(self, kinds: tuple[Kind, ...], ids: Collection[str]) -> dict[str, set[str]]:
        """The files that have copies of the dead letters: name → ids."""
        if not ids:
            return {}
        where = {}
        for _, file in self._read(kinds):
            if there := {letter.id for letter in file.letters} & set(ids):
                where[file.name] = there
        return where

    def _last_seen(self, kinds: tuple[Kind, ...], ids: Collection[str]) -> dict[str, set[str]]:
        seen: dict[str, set[str]] = defaultdict(set)
        for i in ids:
            for name in self._seen.get(i, ()):
                if name.startswith(tuple(f"{kind}/" for kind in kinds)):
                    seen[name].add(i)
        return dict(sorted(seen.items()))

    def _read(self, kinds: tuple[Kind, ...]) -> Iterator[tuple[Kind, _File]]:
        for name in self._names(kinds):
            file = self._load(name)
            for letter in file.letters:
                self._seen[letter.id].add(name)
            yield "severe" if name.startswith("severe/") else "retry", file

    def _names(self, kinds: tuple[Kind, ...], known: Iterable[str] = ()) -> Iterator[str]:
        """The files; those as well that turn up meanwhile, since what is on the move is in one of them."""
        done = set(known)
        while names := [name for kind in kinds for name in self._files.list(kind) if name not in done]:
            done.update(names)
            yield from names

    def _load(self, name: str) -> _File:
        content, version = self._files.read(name)
        file = _File(name, version, len(content))
        for line in filter(None, content.split(b"\n")):
            try:
                file.letters.append(decode(line))
            except DeadLetterError:
                file.unreadable.append(line)
        return file

    def _swap(self, file: _File, letters: list[DeadLetter]) -> Swap:
        lines = [*map(encode, letters), *file.unreadable]
        return self._files.swap(file.name, file.version, b"\n".join(lines) + b"\n" if lines else None)


def _name(kind: Kind, letters: list[DeadLetter], digest: str) -> str:
    # An id begins with the commit timestamp: the first id is the first commit.
    first = letters[0].coordinates.commit_timestamp
    # 2026-11-23T09:12:54.… → 2026/11/23/09/12
    return "/".join((kind, *first[:10].split("-"), *first[11:16].split(":"), f"{digest[:16]}.jsonl"))


def _order(letter: DeadLetter) -> tuple[str, Coordinates]:
    return letter.id, letter.coordinates


def _keep(kept: OrderedDict[str, _File], file: _File) -> None:
    kept[file.name] = file
    while len(kept) > 1 and sum(each.size for each in kept.values()) > _KEPT_BYTES:
        kept.popitem(last=False)
