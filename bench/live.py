"""The whole service on the emulators under payment traffic: latency, what was lost, CPU by process, memory, stages.

    python -m bench.live [--tps 50] [--duration 120] [--rounds 3] [--set batchMillis=100 …]

It has its own state folder, so a stack that runs already is not touched. Traffic starts once the stack is ready;
then everything must arrive, and `audit local check` compares row by row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from apache_beam.portability.api import beam_job_api_pb2 as jobs
from apache_beam.portability.api import beam_job_api_pb2_grpc as job_service

from bench.results import keep, machine, middle, percentiles
from bench.watch import Watch
from contract import metrics
from local.machine import installed
from local.machine.processes import Process, group_members
from local.machine.state import FAILED, READY, State

_READY_SECONDS: Final = 180
_ARRIVE_SECONDS: Final = 180
_AUDIT: Final = str(Path(sys.executable).with_name("audit"))


@contextmanager
def local_stack(state: State, chosen: list[str]) -> Iterator[Process]:
    """A local stack that is ready. Raises RuntimeError when it does not become so."""
    command = [sys.executable, "-m", "bench.stack", f"--state={state.root}", *(f"--set={each}" for each in chosen)]
    with Process.start("local stack", command, log=state.logs / "stack.log", cwd=installed.ROOT) as process:
        process.await_ready(lambda: state.read().get("phase") in {READY, FAILED}, timeout=_READY_SECONDS)
        if state.read()["phase"] == FAILED:
            raise RuntimeError(state.read()["error"])
        try:
            yield process
        finally:
            process.stop(grace=30)


def measure(tps: float, duration: float, seed: int, chosen: list[str]) -> dict[str, Any]:
    """One run."""
    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder))
        with local_stack(state, chosen):
            before = machine()
            traffic = start_traffic(state, tps, duration, seed)
            watch = Watch(state, {"traffic": traffic.pid})
            watch.start()
            _await_end(traffic)
            summary = json.loads(traffic.output().splitlines()[-1])
            in_pipeline = _beam_metrics(state)
            watch.stop()
            report = _check(state)
            return {
                "machine": before | {"load_after": machine()["load"]},
                "asked": {"tps": tps, "seconds": duration, "seed": seed, "options": chosen},
                "traffic": {
                    "commits": summary["operations"],
                    "changes": summary["changes"],
                    "commits_a_second": round(summary["rate"], 1),
                },
                "check": _counts(report),
                "latency_ms": report["latency"],
                "stages_ms": _stages(state) | in_pipeline,
                "cpu_seconds": watch.cpu_seconds(),
                "memory_mib": {name: watch.memory_mib(name) for name in ("pipeline", "prism")},
                "restarts": state.read()["restarts"],
            }


def start_traffic(state: State, tps: float, duration: float, seed: int) -> Process:
    """Payment traffic onto a stack."""
    command = [_AUDIT, "local", "traffic", f"--state={state.root}", f"--tps={tps}", f"--duration={duration}"]
    return Process.start("traffic", [*command, f"--seed={seed}"], log=state.logs / "traffic.log", cwd=installed.ROOT)


def _await_end(traffic: Process) -> None:
    traffic.popen.wait()
    if traffic.popen.returncode:
        raise RuntimeError(traffic.output())
    # The last changes are still on their way; what it costs to carry them belongs to the run.
    time.sleep(3)


def _check(state: State) -> dict[str, Any]:
    command = [_AUDIT, "local", "check", f"--state={state.root}", "--json", f"--wait={_ARRIVE_SECONDS}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=installed.ROOT)
    if not done.stdout:
        raise RuntimeError(done.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _counts(report: dict[str, Any]) -> dict[str, Any]:
    arrivals = report["arrivals"]
    return {
        "ok": report["ok"],
        "committed": report["committed"],
        "arrived": arrivals["arrived"],
        "dead_letters": arrivals["dead"],
        "lost": len(arrivals["missing"]),
        "doubled": len(arrivals["doubled"]),
        "unmasked": len(report["unmasked"]),
        "wrong_state": len(report["wrong_state"]),
    }


def _stages(state: State) -> dict[str, Any]:
    """Change by change: commit → append sent, and append sent → queryable; append by append: how long, how many rows.

    A row's stamp is the worker's clock just before its append, and the emulator says when the append was visible.
    """
    waits: list[float] = []
    appends: list[float] = []
    sizes: list[float] = []
    for line in state.arrivals.read_text().splitlines():
        arrival = json.loads(line)
        if arrival["stamp"] is None or not arrival["latencies_ms"]:
            continue
        stamp = datetime.fromisoformat(arrival["stamp"])
        queryable = datetime.fromisoformat(arrival["queryable_at"])
        took = (queryable - stamp.replace(tzinfo=stamp.tzinfo or queryable.tzinfo)).total_seconds() * 1000
        appends.append(took)
        sizes.append(arrival["rows"])
        waits += [latency - took for latency in arrival["latencies_ms"]]
    return {
        "commit_to_append_sent": percentiles(waits),
        "append_sent_to_queryable": percentiles(appends),
        "rows_an_append": percentiles(sizes),
        "appends": len(appends),
    }


def _beam_metrics(state: State) -> dict[str, Any]:
    """What the pipeline reports of itself: mean and maximum of its distributions, asked of Prism."""
    pipeline = state.pids()["pipeline"]
    [prism] = [p for p in group_members(pipeline) if p.name() == "prism"]
    with grpc.insecure_channel(f"localhost:{_job_port(prism)}") as channel:
        service = job_service.JobServiceStub(channel)
        [job] = service.GetJobs(jobs.GetJobsRequest()).job_info
        answer = service.GetJobMetrics(jobs.GetJobMetricsRequest(job_id=job.job_id))
    found: dict[str, Any] = {}
    for info in answer.metrics.committed:
        name = info.labels.get("NAME")
        if info.labels.get("NAMESPACE") == metrics.NAMESPACE and info.type == "beam:metrics:distribution_int64:v1":
            count, total, _, most = _varints(info.payload)
            found[name] = {"mean": round(total / count), "max": most, "count": count} if count else {}
    return found


def _job_port(prism: psutil.Process) -> str:
    arguments = prism.cmdline()
    return arguments[arguments.index("--job_port") + 1]


def _varints(payload: bytes) -> list[int]:
    """The numbers of a distribution's payload: count, sum, min, max."""
    numbers, value, shift = [], 0, 0
    for byte in payload:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
    return numbers


def show(result: dict[str, Any]) -> str:
    asked, check, latency = result["asked"], result["check"], result["latency_ms"]
    pipeline = result["memory_mib"]["pipeline"]
    lines = [
        f"{asked['tps']:g} commits a second asked for {asked['seconds']:g} s, "
        f"{result['traffic']['commits_a_second']} made; load {result['machine']['load'][0]}",
        f"  {check['committed']:,} changes, {check['arrived']:,} arrived, {check['dead_letters']} expected dead "
        f"dead letters, {check['lost']} lost, {check['doubled']} doubled, {check['unmasked']} unmasked",
        "  commit → queryable: " + ", ".join(f"{name} {latency[name]:,} ms" for name in ("p50", "p95", "p99", "max")),
        *(f"  {name}: {json.dumps(found)}" for name, found in result["stages_ms"].items()),
        f"  CPU seconds: {json.dumps(result['cpu_seconds'])}",
        f"  pipeline: at most {pipeline['most']} MiB, "
        f"{pipeline['growth_mib_a_minute_second_half']:+} MiB a minute over the second half",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tps", type=float, default=50, help="Commits a second.  [50]")
    parser.add_argument("--duration", type=float, default=120, help="Seconds of traffic.  [120]")
    parser.add_argument("--seed", type=int, default=1, help="Seed of the traffic.  [1]")
    parser.add_argument("--rounds", type=int, default=1, help="Runs; the one with the median p99 counts.  [1]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="OPTION=VALUE", dest="chosen", help="Launch option of the job."
    )
    parser.add_argument("--name", help="Name of the result.  [live-<tps>]")
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        rounds.append(measure(options.tps, options.duration, options.seed, options.chosen))
        print(show(rounds[-1]), flush=True)
    result = middle(rounds, lambda each: float(each["latency_ms"]["p99"]))
    print(f"Kept in {keep(options.name or f'live-{options.tps:g}', result)}")
    sys.exit(0 if all(each["check"]["ok"] for each in rounds) else 1)


if __name__ == "__main__":
    main()
