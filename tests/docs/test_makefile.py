"""`make`: what it lists, and what it passes on."""

from __future__ import annotations

import os
import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from local.machine import installed

ROOT = Path(__file__).parents[2]
SETUP = ROOT / "local" / "setup.sh"
TARGETS = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)[0].split()


def _make(*args: str) -> str:
    return subprocess.run(["make", *args], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def test_make_without_a_target_lists_all_of_them_with_what_they_do() -> None:
    listed = re.findall(r"^  make (\S+) +(\S.*)$", _make(), re.M)
    assert [name for name, _ in listed] == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_made(target: str) -> None:
    commands = _make("--dry-run", target)
    for module in re.findall(r"python -m (\S+)", commands):
        spec = find_spec(module)
        package = spec and spec.submodule_search_locations
        assert find_spec(f"{module}.__main__") if package else spec, f"there is no python -m {module}"


def test_make_run_hands_its_settings_to_the_command() -> None:
    assert "audit local run --duration 120 --tps 50 --seed 7" in _make("-n", "run", "DURATION=120", "TPS=50", "SEED=7")
    assert re.search(r"audit local run *$", _make("-n", "run"), re.M)


def test_what_is_installed_is_what_the_locks_say() -> None:
    checked = subprocess.run([SETUP, "check"], check=False, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


def test_a_set_up_that_is_asked_what_is_missing_names_it_and_installs_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    checked = subprocess.run([SETUP, "check"], env=environment, check=False, capture_output=True, text=True)
    assert checked.returncode == 1
    assert "BigQuery emulator,Prism" in checked.stderr
    assert not list(tmp_path.iterdir())


def test_the_set_up_without_the_spanner_emulator_says_how_to_get_it(tmp_path: Path) -> None:
    for tool in ("bash", "cat", "cksum", "dirname", "readlink", "sed"):
        found = subprocess.run(["sh", "-c", f"command -v {tool}"], check=True, capture_output=True, text=True).stdout
        (tmp_path / tool).symlink_to(found.strip())
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    failed = subprocess.run([SETUP], env=environment, check=False, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "gcloud components install cloud-spanner-emulator" in failed.stderr
    assert not (tmp_path / ".cache").exists()


def test_the_set_up_of_monitoring_without_prometheus_says_how_to_get_it(tmp_path: Path) -> None:
    """On a machine without apt, whose cache has all the rest."""
    programs, cache = tmp_path / "bin", tmp_path / "cache" / "payment-audit"
    programs.mkdir()
    cache.mkdir(parents=True)
    for tool in ("bash", "cat", "cksum", "dirname", "mkdir", "readlink", "rm", "sed", "tail"):
        found = subprocess.run(["sh", "-c", f"command -v {tool}"], check=True, capture_output=True, text=True).stdout
        (programs / tool).symlink_to(found.strip())
    (programs / "emulator_main").symlink_to(installed.spanner_emulator())
    for part in installed.cache().iterdir():
        if part.is_dir() and part.name != "prometheus":
            (cache / part.name).symlink_to(part)
    environment = {"PATH": str(programs), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(cache.parent)}
    failed = subprocess.run([SETUP, "monitoring"], env=environment, check=False, capture_output=True, text=True)
    assert failed.returncode == 1
    assert "there is no apt-get here" in failed.stderr
    assert "so that promtool and prometheus are on PATH" in failed.stderr


def test_ci_runs_what_the_makefile_offers() -> None:
    steps = re.findall(r"^make ([\w-]+)", (ROOT / ".ci" / "run").read_text(), re.M)
    assert steps == ["lint", "test", "test-dags", "soak", "gameday"]
