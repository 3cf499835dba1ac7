"""Goals and limits of the alerts, who is notified, and where runbooks are read."""

from dataclasses import dataclass
from typing import Any, Self

from alerts import routing, thresholds
from alerts.thresholds import Thresholds, Watched
from components import naming
from components.settings.reader import Reader
from components.settings.spanner import SpannerSettings
from contract import schema
from contract.watched import WatchedTables


@dataclass(frozen=True, kw_only=True)
class MonitoringSettings:
    """`runbooks` is the URL under which the runbooks are read, or empty."""

    thresholds: Thresholds
    routes: tuple[routing.Route, ...]
    runbooks: str

    @classmethod
    def read(cls, read: Reader) -> Self:
        numbers: dict[str, Any] = {}
        for name, kind, low, high in thresholds.ranges():
            key = thresholds.key(name)
            numbers[name] = read.integer(key, int(low), int(high)) if kind is int else read.number(key, low, high)
        return cls(
            thresholds=Thresholds(**numbers),
            routes=tuple(map(routing.Route.parse, read.texts("notifications", routing.ROUTE, routing.RULE))),
            runbooks=read.text(
                "runbooksUrl", r"|https://[^\s]+[^/\s]", "empty or an https:// URL without a / at its end"
            ),
        )

    def relations(self, read: Reader, spanner: SpannerSettings, tables: WatchedTables) -> None:
        for problem in thresholds.problems(self.thresholds, watched(spanner, tables)):
            read.refuse(problem.key, problem.rule, problem.value)
        if read.stack != "prod":
            return
        for severity in ("page", "ticket"):
            if not any(route.severity == severity and route.team is None for route in self.routes):
                rule = f"one {severity}=target at least in prod, or nobody is notified"
                read.refuse("notifications", rule, ", ".join(route.target for route in self.routes))


def watched(spanner: SpannerSettings, tables: WatchedTables) -> Watched:
    """What a stack's alerts look at."""
    return Watched(
        job=naming.STREAM_JOB,
        instance=naming.INSTANCE,
        multi_region=spanner.multi_region,
        retention_hours=schema.change_retention_hours(tables.source_changelog),
    )
