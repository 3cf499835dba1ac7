"""The supervisor: starts the emulators, provisions the Pulumi program onto them, keeps the pipeline running.

    python -m local.stack.supervisor --state DIR        (what `audit local up` starts in the background)

It reports what it does in its log and in stack.json. A pipeline that dies is started again and resumes where it was. An
emulator that dies takes its data with it: then the stack says so and ends. SIGTERM ends everything, children included.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import importlib
import logging
import pkgutil
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Unpack

from contract import dialects, timestamps
from contract.attached import EXISTING
from contract.errors import AuditError
from local.emulators import launch as emulators
from local.emulators.dataflow import Dataflow, serving
from local.emulators.launch import BigQueryEmulator
from local.machine import installed
from local.machine.ports import LOOPBACK, free_port
from local.machine.processes import Process, started_at
from local.machine.state import (
    FAILED,
    READY,
    STOPPED,
    STOPPING,
    ProcessRecord,
    QueryRecord,
    ResourceRecord,
    State,
    StatusFile,
    now,
    write_json,
)
from local.stack.pipeline_job import PipelineJob

if TYPE_CHECKING:
    from local.provision.engine import Provisioned

log = logging.getLogger("local.stack.supervisor")

STACK: Final = "local"
PIPELINE: Final = "pipeline"
TRAFFIC: Final = "traffic"
CONSOLE: Final = "console"
# Where people look for it; another one where that is taken.
_CONSOLE_PORT: Final = 8090
_LONGEST_PAUSE: Final = 30
_STEADY_SECONDS: Final = 60
_BEGIN_SECONDS: Final = 240
_PROBE_SECONDS: Final = 60
_GRACE_SECONDS: Final = 4
_YEAR_SECONDS: Final = 365 * 24 * 3600


class StackError(AuditError):
    """The stack cannot continue; the message says why and the remedy."""


# With the endpoint of Spanner.
Provision = Callable[[State, str, BigQueryEmulator], "Provisioned"]
Command = Callable[["Provisioned"], list[str]]


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run the stack. Ports None: any that is free. `tps` None: no traffic. `log_level`,
    `tables` and `dialect` None: the config's. `attach`: a database that others own, in an emulator of theirs."""

    state: Path
    spanner_port: int | None = None
    bigquery_port: int | None = None
    bigquery_storage_port: int | None = None
    tps: float | None = None
    duration: float | None = None
    seed: int | None = None
    monitoring: bool = False
    no_dead_letters: bool = False
    design_tps: int | None = None
    with_history: bool = False
    log_level: str | None = None
    tables: str | None = None
    dialect: str | None = None
    attach: str | None = None
    console_port: int | None = None


def provision_program(
    state: State, spanner: str, bigquery: BigQueryEmulator, *, config: Mapping[str, Any] | None = None
) -> Provisioned:
    """Runs `__main__.py`, the program of the cloud, onto the emulators. `config` overrides the stack's file."""
    from local.provision.engine import provision
    from local.provision.place import LocalEndpoints

    return provision(
        stack=STACK,
        state=state.root,
        endpoints=LocalEndpoints(spanner=spanner, bigquery=bigquery.rest, bigquery_storage=bigquery.grpc),
        on_resource=lambda resource: log.info("%s: %s %s", resource.outcome, resource.type, resource.name),
        config=config,
    )


def attached_config(attach: str | None) -> dict[str, Any]:
    """The config of a stack on a database that others own, `HOST:PORT/projects/P/instances/I/databases/D`.

    Its metadata is in a separate instance there. Raises StackError.
    """
    if not attach:
        return {}
    found = re.fullmatch(r"[\w.-]+:\d+/projects/([\w-]+)/instances/([\w-]+)/databases/([\w-]+)", attach)
    if not found:
        raise StackError(f"--attach must be HOST:PORT/projects/P/instances/I/databases/D, got {attach!r}. Fix it.")
    return {
        "schemaOwner": EXISTING,
        "spannerProject": found[1],
        "spannerInstance": found[2],
        "spannerDatabase": found[3],
        "metadataProcessingUnits": 100,
    }


def pipeline_command(provisioned: Provisioned) -> list[str]:
    """The job as a process on Prism, with the parameters that its Dataflow job would get."""
    parameters = [f"--{name}={value}" for name, value in provisioned.job_parameters.items()]
    runner = [
        # The first job reads from here on: what is committed while it starts is not missed. Later ones resume.
        f"--startTimestamp={timestamps.now()}",
        "--runner=PrismRunner",
        # Beam waits this number of seconds for the end of a job, and then ends it: five minutes, if nobody says
        # otherwise.
        f"--job_server_timeout={_YEAR_SECONDS}",
        f"--prism_location={installed.prism()}",
        f"--job_name={provisioned.outputs['jobName']}",
    ]
    return [sys.executable, "-m", "pipeline.jobs.stream", *parameters, *runner]


def traffic_command(options: Options) -> list[str]:
    """`audit local traffic` with the options of this run."""
    wanted = {"state": options.state, "tps": options.tps, "duration": options.duration, "seed": options.seed}
    audit = Path(sys.executable).with_name("audit")
    return [
        str(audit),
        "local",
        "traffic",
        *(f"--{name}={value}" for name, value in wanted.items() if value is not None),
        *(["--no-dead-letters"] if options.no_dead_letters else []),
    ]


def console_command(options: Options, connection: Path) -> tuple[list[str], str]:
    """`audit console`, and its address."""
    port = options.console_port or free_port(_CONSOLE_PORT)
    audit = Path(sys.executable).with_name("audit")
    return [str(audit), f"--connection={connection}", "console", f"--port={port}"], f"http://{LOOPBACK}:{port}"


class Supervisor:
    """One run of the stack. What is provisioned and run are parameters, so that supervision can be tried alone."""

    def __init__(
        self,
        options: Options,
        *,
        provision: Provision | None = None,
        command: Command = pipeline_command,
        console: bool = True,
    ) -> None:
        self.options, self._console = options, console
        self.state = State(options.state)
        self.stopped = threading.Event()
        config = {
            **({"tables": options.tables} if options.tables else {}),
            **({"spannerDialect": dialects.TYPED[options.dialect]} if options.dialect else {}),
            **attached_config(options.attach),
        }
        self._provision, self._command = provision or partial(provision_program, config=config), command
        self._status = StatusFile(self.state)
        self._processes: dict[str, Process] = {}
        # What was stopped on purpose, and how to start it again.
        self._starts: dict[str, Callable[[], None]] = {PIPELINE: self._start_pipeline}
        self._held: frozenset[str] = frozenset()
        self._open = contextlib.ExitStack()
        self._restarts = 0
        self._quick_deaths = 0

    def run(self) -> int:
        """Runs until `stop` or until an emulator dies. Returns the exit code. Raises StackError if not alone."""
        with self._alone():
            self.state.end_leftovers()
            self.state.clear()
            self._status.report()
            error = self._run()
            self._end_processes()
            self._status.report(phase=FAILED if error else STOPPED, error=error)
            return 1 if error else 0

    def _run(self) -> str | None:
        """Starts and watches. Returns why it cannot continue, or None when it was asked to end."""
        try:
            self._start()
            self._watch()
        except KeyboardInterrupt:
            log.info("asked to end")
            return None
        except AuditError as error:
            log.error(error)
            return str(error)
        except Exception as error:
            log.exception("The stack cannot continue.")
            return f"{type(error).__name__}: {error}"
        return None

    def stop(self, *_: object) -> None:
        """Ends the run from a signal handler: waiting and starting are broken off, once."""
        if not self.stopped.is_set():
            self.stopped.set()
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.state.root.mkdir(parents=True, exist_ok=True)
        with self.state.lock.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StackError(f"A local stack runs already with the state folder {self.state.root}.") from error
            yield

    # ------------------------------------------------------------------ the start

    def _start(self) -> None:
        # The program takes seconds to import, and the emulators take seconds to start.
        threading.Thread(target=_import_program, daemon=True).start()
        with self._status.step("emulators"):
            spanner, bigquery = self._start_emulators()
        with self._status.step("provision"):
            provisioned = self._provision(self.state, spanner, bigquery)
            self._serve_dataflow(provisioned.outputs)
            write_json(self.state.connection, provisioned.outputs)
        resources: list[ResourceRecord] = [
            {"type": r.type, "name": r.name, "outcome": r.outcome} for r in provisioned.resources
        ]
        self._status.report(resources=resources, job_parameters=provisioned.job_parameters)
        with self._status.step(PIPELINE):
            level = self.options.log_level
            self._pipeline = [*self._command(provisioned), *([f"--logLevel={level}"] if level else [])]
            self._start_pipeline()
            self._await_begun(provisioned.outputs)
        if self.options.monitoring:
            self._start_monitoring(provisioned.outputs)
        if self._console:
            command, url = console_command(self.options, self.state.connection)
            self._starts[CONSOLE] = partial(self._launch, CONSOLE, command, url=url)
            self._starts[CONSOLE]()
        self._status.report(phase=READY, ready_seconds=self._status.seconds)
        log.info("ready after %.1f s", self._status.seconds)
        if self.options.tps:
            self._starts[TRAFFIC] = partial(self._launch, TRAFFIC, traffic_command(self.options))
            self._starts[TRAFFIC]()
        threading.Thread(target=self._run_scheduled, args=(bigquery.rest, provisioned), daemon=True).start()

    def _start_emulators(self) -> tuple[str, BigQueryEmulator]:
        """Those that run then: Spanner's endpoint, which may be that of an emulator of others, and BigQuery's."""
        options = self.options
        bigquery = emulators.launch_bigquery(
            logs=self.state.logs,
            data=self.state.bigquery,
            arrivals=self.state.arrivals,
            rest_port=options.bigquery_port,
            grpc_port=options.bigquery_storage_port,
        )
        self._keep(bigquery.process, rest=bigquery.rest, storage=bigquery.grpc)
        if options.attach:
            endpoint = options.attach.partition("/")[0]
            if not emulators.answers(int(endpoint.rpartition(":")[2])):
                raise StackError(f"A Spanner emulator must answer at {endpoint}. Start it, or fix --attach.")
            emulators.drop_metadata(endpoint)
        else:
            spanner = emulators.launch_spanner(logs=self.state.logs, port=options.spanner_port)
            endpoint = spanner.endpoint
            self._keep(spanner.process, endpoint=endpoint)
            emulators.await_spanner(spanner)
        emulators.await_bigquery(bigquery)
        return endpoint, bigquery

    def _await_begun(self, outputs: dict[str, Any]) -> None:
        """Waits until the job has recorded where it reads from: nothing that is committed from then on is missed."""
        database = emulators.metadata_database(outputs)
        deadline = time.monotonic() + _BEGIN_SECONDS
        while resume_position(database, outputs["jobName"]) is None:
            if time.monotonic() > deadline:
                raise StackError(
                    f"The pipeline did not begin to read within {_BEGIN_SECONDS} s. "
                    f"Its log says why: {self.state.logs / 'pipeline.log'}."
                )
            self.stopped.wait(0.1)
            self._look_after()

    # ------------------------------------------------------------------ what runs

    def _watch(self) -> None:
        while not self.stopped.wait(0.5):
            self._look_after()

    def _look_after(self) -> None:
        """Starts a dead pipeline again; notes the end of the traffic. Raises StackError for a dead emulator."""
        self._obey()
        for name, process in list(self._processes.items()):
            if process.alive:
                continue
            code = process.popen.returncode
            if name == PIPELINE:
                self._restart_pipeline(process)
            elif name in self._starts and name != TRAFFIC:
                log.warning("%s ended with exit code %s; it is started again. Its log: %s", name, code, process.log)
                process.kill()
                self.stopped.wait(1)
                self._starts[name]()
            elif name == TRAFFIC:
                log.info("traffic ended with exit code %s", code)
                self._processes.pop(name).stop()
                self._status.report_process(name, {"pid": None, "exit_code": code})
            else:
                raise StackError(
                    f"The {name} ended by itself (exit code {code}), and the data in it is gone. "
                    f"Its log is {process.log}. Run `audit local down`, then `audit local up`."
                )

    def _obey(self) -> None:
        """Ends what a person stopped (`audit local stop`), and starts it once nobody does any more."""
        wanted = self.state.held() & self._starts.keys()
        for name in wanted - self._held:
            log.warning("%s is stopped on request", name)
            if process := self._processes.pop(name, None):
                process.stop(grace=_GRACE_SECONDS)
            self._status.report_process(name, {"pid": None})
        for name in self._held - wanted:
            log.info("%s is started on request", name)
            self._starts[name]()
        self._held = wanted

    def _start_monitoring(self, outputs: dict[str, Any]) -> None:
        """The probe, the scheduled operations, and a Prometheus that reads the probe and evaluates the alerts."""
        from local.monitoring import launch as monitoring

        with self._status.step("monitoring"):
            design = self.options.design_tps
            local = monitoring.prepare(self.state, {"design_tps": design} if design else None)
            write_json(self.state.connection, {**outputs, "prometheusEndpoint": local.prometheus_url})
            if self.options.with_history:
                monitoring.fill_history(self.state, self.options.tps or 1)
            commands = {
                monitoring.ALERTMANAGER: (local.alertmanager, local.alertmanager_url),
                monitoring.PROBE: (local.probe, local.probe_url),
                monitoring.PROMETHEUS: (local.prometheus, local.prometheus_url),
            }
            for name, (command, url) in commands.items():
                self._starts[name] = partial(self._launch, name, command, url=url)
                self._starts[name]()
                if name == monitoring.PROBE:
                    self._await_probe(local.probe_url)
            self._starts[monitoring.OPERATIONS] = partial(self._launch, monitoring.OPERATIONS, local.operations)
            self._starts[monitoring.OPERATIONS]()

    def _await_probe(self, url: str) -> None:
        """Waits for the first run: a Prometheus that finds nothing would take the probe for silent."""
        from local.monitoring import launch as monitoring

        deadline = time.monotonic() + _PROBE_SECONDS
        while not monitoring.measured(url) and time.monotonic() < deadline:
            self.stopped.wait(0.2)
            self._look_after()

    def _serve_dataflow(self, outputs: dict[str, Any]) -> None:
        """The pipeline's process as a job, where `audit pipeline` looks for it."""
        job = PipelineJob(state_folder=self.state, process=PIPELINE, pid=self._pipeline_pid)
        self._dataflow = Dataflow(job)
        self._job_place = (outputs.get("project", ""), outputs.get("region", "")), outputs["jobName"]
        outputs["dataflowEndpoint"] = self._open.enter_context(serving(self._dataflow))

    def _pipeline_pid(self) -> int | None:
        process = self._processes.get(PIPELINE)
        return process.pid if process and process.alive else None

    def _start_pipeline(self) -> None:
        self._pipeline_began = time.monotonic()
        self._launch(PIPELINE, self._pipeline)
        place, name = self._job_place
        self._dataflow.adopt(PipelineJob.job_id(self._processes[PIPELINE].pid), name, place)

    def _restart_pipeline(self, dead: Process) -> None:
        # Prism, or anything else that is left of it, would continue the old job beside the new one.
        dead.kill()
        lived = time.monotonic() - self._pipeline_began
        self._quick_deaths = 0 if lived > _STEADY_SECONDS else self._quick_deaths + 1
        self._restarts += 1
        pause = min(_LONGEST_PAUSE, 2**self._quick_deaths / 4)
        log.warning(
            "pipeline ended with exit code %s after %.0f s; restart %d in %.1f s. Its log: %s",
            dead.popen.returncode,
            lived,
            self._restarts,
            pause,
            dead.log,
        )
        self._status.report(restarts=self._restarts)
        self.stopped.wait(pause)
        self._start_pipeline()

    def _run_scheduled(self, rest: str, provisioned: Provisioned) -> None:
        """Runs the scheduled queries as BigQuery does it in the cloud, but one after the other."""
        from pipeline.clients import bigquery_client

        client = bigquery_client(rest, provisioned.outputs["project"])
        last: dict[str, QueryRecord] = {}
        due = {query: time.monotonic() + query.seconds for query in provisioned.scheduled}
        while due and not self.stopped.wait(max(0.0, min(due.values()) - time.monotonic())):
            query = min(due, key=due.__getitem__)
            began = time.monotonic()
            try:
                client.query(query.sql).result(timeout=query.seconds)
                last[query.name] = {"at": now(), "seconds": round(time.monotonic() - began, 2)}
            except Exception as error:
                # The next one makes up for it: it takes everything since the last that succeeded.
                log.warning("%s failed, next try in %d s: %s", query.name, query.seconds, error)
                last[query.name] = {"at": now(), "error": str(error)}
            self._status.report(queries=dict(last))
            due[query] = time.monotonic() + query.seconds

    def _launch(self, name: str, command: list[str], **where: Unpack[ProcessRecord]) -> None:
        log_file = self.state.logs / f"{name}.log"
        # The log of a process that is started again continues.
        append = name in self.state.read().get("processes", {})
        self._keep(Process.start(name, command, log=log_file, cwd=installed.ROOT, append=append), **where)

    def _keep(self, process: Process, **where: Unpack[ProcessRecord]) -> None:
        self._processes[process.name] = process
        record: ProcessRecord = {"pid": process.pid, "started_at": started_at(process.pid), "log": str(process.log)}
        self._status.report_process(process.name, {**record, **where})
        log.info("%s started, pid %d", process.name, process.pid)

    def _end_processes(self) -> None:
        """Ends all of them, writers first, so that none complains about an emulator that is gone."""
        self.stopped.set()
        self._open.close()
        self._status.report(phase=STOPPING)
        writers = {TRAFFIC, PIPELINE, *self._starts}
        for name in sorted(self._processes, key=lambda name: name not in writers):
            self._processes.pop(name).stop(grace=_GRACE_SECONDS)


def resume_position(metadata_database: Any, job: str) -> datetime.datetime | None:
    """Every change committed before it is in BigQuery or is a dead letter; None when the job has not begun."""
    sql = "SELECT ResumePosition FROM jobs WHERE JobName = @job AND ResumePosition IS NOT NULL"
    with metadata_database.snapshot() as snapshot:
        rows = list(snapshot.execute_sql(sql, params={"job": job}))
    return rows[0][0] if rows else None


def _import_program() -> None:
    """Imports what the program needs, Pulumi first of all. Who needs it imports it again, and gets the error if any."""
    import components

    with contextlib.suppress(Exception):
        for module in (
            "local.provision.engine",
            *(f"components.{m.name}" for m in pkgutil.iter_modules(components.__path__)),
        ):
            importlib.import_module(module)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, required=True)
    for port in ("spanner", "bigquery", "bigquery-storage", "console"):
        parser.add_argument(f"--{port}-port", type=int)
    parser.add_argument("--tps", type=float)
    parser.add_argument("--duration", type=float)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--monitoring", action="store_true")
    parser.add_argument("--no-dead-letters", action="store_true")
    parser.add_argument("--design-tps", type=int)
    parser.add_argument("--with-history", action="store_true")
    parser.add_argument("--log-level")
    parser.add_argument("--tables")
    parser.add_argument("--dialect", choices=dialects.TYPED)
    parser.add_argument("--attach")
    options = Options(**vars(parser.parse_args()))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    supervisor = Supervisor(options)
    signal.signal(signal.SIGTERM, supervisor.stop)
    signal.signal(signal.SIGINT, supervisor.stop)
    try:
        sys.exit(supervisor.run())
    except StackError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
