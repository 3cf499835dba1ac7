"""A Google Cloud that is a JSON file: what Pulumi's real CLI makes and deletes in the tests (`tests/infra/plugin.py`).

It knows what a resource is asked to be, what of that cannot be changed, and what an update leaves as it is. Drift is an
edit of the file. What Google never gives back (key rings, identity pools) stays in it, marked as deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from graph.google import IMPORT_IDS
from guardrails.stores import RETAINED, STORES
from tests.infra.given_back import JOB, LOG_BUCKET, TABLE, kept_policy_tags

Inputs = Mapping[str, Any]

# Inputs that say which resource it is: a change of one is another resource. A grant is nothing but such inputs.
_IDENTITY: Final = frozenset(
    {"project", "location", "region", "name", "instance", "database", "bucket", "datasetId", "tableId", "secretId"}
    | {"accountId", "keyRing", "repositoryId", "workloadIdentityPoolId", "workloadIdentityPoolProviderId"}
)
_WAITING_SECONDS: Final = 0.05


class Refused(RuntimeError):
    """What the cloud does not do; the message is what a person reads."""


@dataclass(frozen=True)
class Cloud:
    """`file` has all projects. `<file>.hold` names a resource; whoever makes it waits there until that file is gone."""

    file: Path

    def create(self, project: str, kind: str, id: str, inputs: Inputs) -> Inputs:
        """Makes it; a grant also twice. Returns what is there. Raises Refused where something has its name, deleted or
        not: but for a log bucket, which the provider takes over, and a job that says so (createIgnoreAlreadyExists)."""
        with self._changed() as there:
            key = _key(project, kind, id)
            takes_over = kind == LOG_BUCKET or inputs.get("createIgnoreAlreadyExists") is True
            if key in there and kind in {*IMPORT_IDS, JOB} and not takes_over:
                way = " It was deleted, but stays: adopt it." if there[key]["deleted"] else ""
                raise Refused(f"Error 409: {kind} {id} already exists.{way}")
            if not (key in there and kind == JOB):
                # The provider reads the job that it found: it changes nothing of it.
                there[key] = {"inputs": dict(inputs), "deleted": False}
            self._note("create", kind, id)
            return dict(there[key]["inputs"])

    def read(self, project: str, kind: str, id: str) -> Inputs | None:
        """What it is; for a kind that Google keeps, also when it was deleted."""
        with self._locked():
            found = self._load().get(_key(project, kind, id))
            return dict(found["inputs"]) if found else None

    def update(self, project: str, kind: str, id: str, inputs: Inputs) -> Inputs:
        """Changes it into what is asked for, as far as Google does. Returns what is there."""
        with self._changed() as there:
            key = _key(project, kind, id)
            if key not in there:
                raise Refused(f"Error 404: {kind} {id} is not there.")
            now = dict(inputs)
            if kind == TABLE and "schema" in now:
                now["schema"] = kept_policy_tags(there[key]["inputs"].get("schema", ""), now["schema"])
            there[key] = {"inputs": now, "deleted": False}
            self._note("update", kind, id)
            return now

    def delete(self, project: str, kind: str, id: str) -> None:
        """Takes it away. Raises Refused while it is protected by its own switch."""
        with self._changed() as there:
            key = _key(project, kind, id)
            if key not in there:
                return
            inputs = there[key]["inputs"]
            on = [switch for switch, wanted in STORES.get(kind, {}).items() if wanted and inputs.get(switch)]
            if on:
                raise Refused(f"Error 400: {kind} {id} cannot be deleted while {on[0]} is on.")
            if kind in RETAINED:
                there[key]["deleted"] = True
            else:
                del there[key]
            self._note("delete", kind, id)

    def ids(self, project: str, kind: str, *, deleted: bool = False) -> list[str]:
        """The resources of a kind that are there, or those that were deleted and stay."""
        with self._locked():
            prefix = _key(project, kind, "")
            found = {key: value for key, value in self._load().items() if key.startswith(prefix)}
        return sorted(key.removeprefix(prefix) for key, value in found.items() if value["deleted"] is deleted)

    def edit(self, project: str, kind: str, id: str, **changed: Any) -> None:
        """Changes it behind Pulumi's back."""
        with self._changed() as there:
            there[_key(project, kind, id)]["inputs"].update(changed)

    def lose(self, project: str, kind: str, id: str) -> None:
        """Takes it away without Pulumi, despite any protection."""
        with self._changed() as there:
            del there[_key(project, kind, id)]

    # ------------------------------------------------------------------ holding a creation up, so as to interrupt it

    @property
    def holding(self) -> Path:
        return self.file.with_suffix(".hold")

    @property
    def held(self) -> Path:
        """There once somebody waits."""
        return self.file.with_suffix(".held")

    def wait_if_held(self, name: str, still: Callable[[], bool]) -> None:
        """Waits while it is held up and `still` somebody waits for the answer."""
        if not self._holds(name):
            return
        self.held.touch()
        while still() and self._holds(name):
            time.sleep(_WAITING_SECONDS)
        self.held.unlink()

    def _holds(self, name: str) -> bool:
        return self.holding.exists() and self.holding.read_text() == name

    # ------------------------------------------------------------------ the file

    @property
    def journal(self) -> list[tuple[str, str, str]]:
        """What was done, in order: (create, update or delete; kind; id)."""
        file = self.file.with_suffix(".journal")
        lines = file.read_text().splitlines() if file.exists() else []
        return [(verb, kind, id) for verb, kind, id in (line.split(" ", 2) for line in lines)]

    def _note(self, verb: str, kind: str, id: str) -> None:
        with self.file.with_suffix(".journal").open("a") as journal:
            journal.write(f"{verb} {kind} {id}\n")

    @contextlib.contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        with self._locked():
            there = self._load()
            yield there
            part = self.file.with_suffix(".part")
            part.write_text(json.dumps(there))
            part.replace(self.file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _load(self) -> dict[str, Any]:
        return dict(json.loads(self.file.read_text())) if self.file.exists() else {}


def replacing(kind: str, old: Inputs, new: Inputs) -> list[str]:
    """The inputs whose change makes another resource of it."""
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if "role" in new and "member" in new:
        return changed
    return [key for key in changed if key in _IDENTITY or (key == "ddls" and not _appended(old, new))]


def _appended(old: Inputs, new: Inputs) -> bool:
    """A database's statements only grow: nothing else can be done to one that lives."""
    before = list(old.get("ddls") or [])
    return list(new.get("ddls") or [])[: len(before)] == before


def _key(project: str, kind: str, id: str) -> str:
    return f"{project} {kind} {id}"
