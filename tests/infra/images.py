"""An image's Dockerfile, as far as it can be read without a container engine: what it copies, pins and tries."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import distribution
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ImageFile:
    """`folder` has the Dockerfile and the lock; `ignore` lists what is sent to its build."""

    folder: Path
    ignore: Path

    @cached_property
    def text(self) -> str:
        return (self.folder / "Dockerfile").read_text()

    @cached_property
    def lock(self) -> str:
        return (self.folder / "requirements.lock").read_text()

    @cached_property
    def pinned(self) -> Mapping[str, str]:
        return dict(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", self.lock, re.M))

    @property
    def copied(self) -> list[str]:
        """What it copies from the repository, the lock first."""
        return [source for line in re.findall(r"^COPY (?!--from)(.+) \S+$", self.text, re.M) for source in line.split()]

    @property
    def sent(self) -> list[str]:
        """Patterns of what its build is sent."""
        return [line[1:] for line in self._lines if line.startswith("!")]

    def files(self, folder: str) -> list[Path]:
        """Files of a folder that reach the image."""
        left_out = [ROOT / line for line in self._lines if line[0] not in "!*"]
        found = [file for file in (ROOT / folder).rglob("*") if file.is_file() and "__pycache__" not in file.parts]
        return [file for file in found if not any(file.is_relative_to(each) for each in left_out)]

    def lay_out(self, place: Path) -> None:
        """Copies into a folder what the image has of the repository."""
        for folder in self.copied[1:]:
            for file in self.files(folder):
                (place / file.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, place / file.relative_to(ROOT))

    def install(self, place: Path) -> None:
        """Links into a folder what the lock pins, and nothing else that this environment has."""
        for name in self.pinned:
            for file in distribution(name).files or ():
                if ".." in file.parts or file.suffix == ".pyc":
                    continue
                (place / file).parent.mkdir(parents=True, exist_ok=True)
                (place / file).symlink_to(file.locate())

    def try_as_built(self, place: Path, packages: Path) -> subprocess.CompletedProcess[str]:
        """Runs what the build tries in `place`, with a Python that has `packages` alone: not this repository either."""
        [tries] = re.findall(r"^RUN (.*python -.*)$", self.text.replace("\\\n", " "), re.M)
        assert tries.count("python -") >= 2, "the Dockerfile tries what it has copied"
        script = re.sub(r"\bpython -", f"{sys.executable} -S -", tries)
        environment = {"PYTHONPATH": f"{place}:{packages}", "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            ["sh", "-ec", script], cwd=place, env=environment, check=False, capture_output=True, text=True
        )

    @property
    def _lines(self) -> list[str]:
        return [line for line in self.ignore.read_text().splitlines() if line and line[0] != "#"]
