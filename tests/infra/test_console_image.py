"""The console's image, as far as it can be tried without a container engine: with what it copies and pins."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from support.connection import IN_ENVIRONMENT as CONNECTION
from support.console.cloud import IN_ENVIRONMENT
from tests.infra.graphs import graph_of
from tests.infra.images import ROOT, ImageFile
from tests.unit.test_console_cloud import GIVEN, STACK

FOLDER = ROOT / "support" / "console" / "image"
OF = ImageFile(FOLDER, FOLDER / "Dockerfile.dockerignore")


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the image has: of the repository, and of packages."""
    place, packages = tmp_path_factory.mktemp("console"), tmp_path_factory.mktemp("packages")
    OF.lay_out(place)
    OF.install(packages)
    return place, packages


def test_what_the_dockerfile_copies_is_there_and_sent_to_the_build() -> None:
    for source in OF.copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source.partition("/")[0], pattern) for pattern in OF.sent), source


def test_its_lock_is_a_part_of_the_whole_lock_without_what_the_console_does_not_need() -> None:
    whole = set(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", (ROOT / "requirements.lock").read_text(), re.M))
    assert set(OF.pinned.items()) <= whole
    assert OF.lock.count("--hash=sha256:") >= len(OF.pinned)
    assert not {"apache-beam", "pyarrow", "pulumi", "pulumi-gcp", "pytest"} & set(OF.pinned)
    assert {"fastapi", "uvicorn", "jinja2", "cryptography"} <= set(OF.pinned)


def test_it_is_of_a_python_that_does_not_move_to_another_version_and_not_root() -> None:
    assert re.findall(r"^FROM (\S+)$", OF.text, re.M) == ["python:3.11-slim"]
    assert re.findall(r"^USER (\S+)$", OF.text, re.M) == ["nobody"]


def test_what_its_build_tries_works_with_what_it_copies_and_pins(laid_out: tuple[Path, Path]) -> None:
    done = OF.try_as_built(*laid_out)
    assert done.returncode == 0, done.stderr
    assert "Serves the console" in done.stdout and "Serves tokens" in done.stdout


@pytest.fixture
def address(laid_out: tuple[Path, Path]) -> Iterator[str]:
    """Of what the stack runs from it, but on the loopback address."""
    [container] = graph_of("dev").one("Service", "audit-console").inputs["template"]["containers"]
    _, minus, module, *_ = container["commands"]
    place, packages = laid_out
    environment = {"PYTHONPATH": f"{place}:{packages}", CONNECTION: STACK, IN_ENVIRONMENT: json.dumps(GIVEN)}
    with subprocess.Popen(
        [sys.executable, "-S", "-u", minus, module, "--port", "0"],
        cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        found = re.findall(r"http://\S+", process.stdout.readline())
        assert found, process.stderr.read()
        yield found[0]
        process.terminate()


def test_what_the_stack_runs_from_it_answers_its_probe_and_lets_nobody_in_without_the_proxy(address: str) -> None:
    assert requests.get(f"{address}/healthz", timeout=20).text == "ok\n"
    assert requests.get(f"{address}/runbooks", timeout=20).status_code == 401
