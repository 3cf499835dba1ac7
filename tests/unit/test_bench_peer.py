"""The comparison with Beam's Java connector, as far as it needs no Java."""

from __future__ import annotations

import inspect
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from bench.peer import __main__ as bench
from bench.peer import program
from bench.peer.figures import figures, peer_latencies, product_latencies, table
from bench.results import percentiles
from local.machine.installed import NotInstalled

_SIDE = {
    "commits_a_second": 5.0,
    "changes": 200,
    "arrived": 200,
    "latency_ms": {"p50": 1000, "p95": 2000, "p99": 3000, "max": 4000},
    "cpu_seconds_per_1000": 10.0,
    "memory_mib": 1500,
    "idle_cores": 0.5,
}


def _line(committed: str, arrived: str, change: str, value: str = '{"A":"b"}') -> str:
    return f"{committed}\t{arrived}\t{change}\tpayment_audit_trail\tINSERT\t{value}\t{value}\t\n"


def test_a_change_that_the_peer_writes_twice_counts_once_from_its_first_line() -> None:
    first = _line("2026-11-30T10:00:00.000000000Z", "2026-11-30T10:00:02.500Z", "a/0/0")
    again = _line("2026-11-30T10:00:00.000000000Z", "2026-11-30T10:00:09Z", "a/0/0")
    other = _line("2026-11-30T10:00:01Z", "2026-11-30T10:00:01.000250Z", "a/0/1")
    assert peer_latencies(first + again + other) == [2500.0, 0.25]


def test_the_line_that_the_peer_is_writing_is_left_for_later() -> None:
    whole = _line("2026-11-30T10:00:00Z", "2026-11-30T10:00:01Z", "a/0/0")
    assert peer_latencies(whole + whole[:-20]) == [1000.0]
    assert peer_latencies("") == []


def test_a_value_with_a_separator_of_lines_is_within_one_change() -> None:
    line = _line("2026-11-30T10:00:00Z", "2026-11-30T10:00:01Z", "a/0/0", value='{"A":"x\u2028y\u0085z"}')
    assert peer_latencies(line) == [1000.0]


def test_the_product_s_latencies_are_those_of_its_rows() -> None:
    lines = [json.dumps({"rows": 2, "latencies_ms": [212, 209]}), json.dumps({"rows": 1, "latencies_ms": [300]})]
    assert product_latencies("\n".join(lines) + '\n{"rows": 1, "late') == [212.0, 209.0, 300.0]


def _begins_at(start: int) -> Callable[[bench.Reader | None], dict[str, Any]]:
    """A side that reads nothing until that start."""
    starts: list[int] = []

    def measured(_: bench.Reader | None) -> dict[str, Any]:
        starts.append(1)
        if len(starts) < start:
            raise bench.NotArrived("0 of the first 74 changes arrived.")
        return {"changes": 7}

    return measured


def _nothing(_: Path) -> nullcontext[Any]:
    """No process: what is measured needs none."""
    return nullcontext()


def test_a_side_that_ends_before_its_first_change_is_started_again() -> None:
    assert bench.started(_nothing, _begins_at(1)) == {"changes": 7, "starts": 1}
    assert bench.started(_nothing, _begins_at(3)) == {"changes": 7, "starts": 3}


def test_a_side_that_never_reads_ends_the_bench() -> None:
    with pytest.raises(bench.NotArrived, match="0 of the first 74"):
        bench.started(_nothing, _begins_at(4))


def test_percentiles_are_values_that_were_measured() -> None:
    assert percentiles([float(n) for n in range(100, 0, -1)]) == {"p50": 51, "p95": 96, "p99": 100, "max": 100}
    assert percentiles([]) == {}


def test_both_are_side_by_side_with_the_median_of_each_figure() -> None:
    rounds = [{"peer": _SIDE | {"idle_cores": cores}, "product": _SIDE | {"memory_mib": mib}} for cores, mib in
              ((1.0, 300), (9.0, 100), (1.2, 200))]  # fmt: skip
    rows = table(rounds).splitlines()
    assert rows[0] == "| | peer | product |"
    assert "| idle, cores | 1.20 | 0.50 |" in rows
    assert "| memory at most, MiB | 1,500 | 200 |" in rows
    assert "| commit → arrived, p99, ms | 3,000 | 3,000 |" in rows
    assert len(rows) == 2 + 9


def test_what_was_not_measured_has_no_row() -> None:
    assert figures([{"peer": {"idle_cores": 1.0}, "product": {"idle_cores": 0.1}}]) == [("idle, cores", "1.00", "0.10")]


def test_the_options_of_a_start_are_those_of_the_java_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (program.HOME / "Peer.java").read_text()
    known = {name[0].lower() + name[1:] for name in re.findall(r"String get(\w+)\(\);", source)}
    _java(tmp_path, monkeypatch)
    (tmp_path / "classpath").write_text("a.jar:b.jar\n")
    given = {name: f"the {name}" for name in inspect.signature(program.command).parameters if name != "folder"}
    command = program.command(**given, folder=tmp_path)
    assert known == set(given)
    assert {f"--{name}=the {name}" for name in known} < set(command)
    assert f"{tmp_path / 'classes'}:a.jar:b.jar" in command


def test_a_peer_that_is_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="Run `make bench-peer`"):
        program.check(tmp_path)


@pytest.mark.parametrize("missing", ["java", "mvn"])
def test_a_build_without_a_tool_names_it_and_its_package(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path, monkeypatch)
    if missing == "java":
        (tmp_path / "java").unlink()
    with pytest.raises(NotInstalled, match=rf"{missing} is not on PATH.*\(the package \S+\), then `make bench-peer`"):
        program.build()


def test_a_built_peer_without_java_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "classpath").write_text("a.jar")
    with pytest.raises(NotInstalled, match="java is not on PATH"):
        program.check(tmp_path)


def test_every_version_of_the_build_is_pinned() -> None:
    """The plugins too, of each phase up to `compile`: Maven has versions of its own for those that are not named."""
    space = "{http://maven.apache.org/POM/4.0.0}"
    pom = ET.parse(program.HOME / "pom.xml").getroot()
    properties = {each.tag.removeprefix(space): each.text or "" for each in pom.find(f"{space}properties") or ()}
    named = [*pom.iter(f"{space}dependency"), *pom.iter(f"{space}plugin")]
    artifacts = {each.findtext(f"{space}artifactId"): each.findtext(f"{space}version") or "" for each in named}
    assert {"maven-resources-plugin", "maven-compiler-plugin", "maven-dependency-plugin"} < artifacts.keys()
    for artifact, version in artifacts.items():
        resolved = re.sub(r"\$\{([\w.]+)\}", lambda match: properties[match[1]], version)
        assert re.fullmatch(r"\d+\.\d+\.\d+", resolved), f"{artifact}: {resolved}"


def _java(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with Java and nothing else."""
    java = folder / "java"
    java.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(folder))
