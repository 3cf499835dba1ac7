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
    """`runbooks` is the URL under which the runbooks are read, or empty. A `budget` of 0 makes no budget."""

    thresholds: Thresholds
    routes: tuple[routing.Route, ...]
    runbooks: str
    budget: int
    billing_account: str

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
            budget=read.integer("budgetDollars", 0, 10_000_000),
            billing_account=read.text(
                "billingAccount", r"|[0-9A-F]{6}(-[0-9A-F]{6}){2}", "empty or XXXXXX-XXXXXX-XXXXXX"
            ),
        )

    def relations(self, read: Reader, looked_at: Watched) -> None:
        for problem in thresholds.problems(self.thresholds, looked_at):
            read.refuse(problem.key, problem.rule, problem.value)
        if self.budget and not self.billing_account:
            read.refuse("billingAccount", "the account that pays for the project, where budgetDollars is set", "")
        if self.budget and not looked_at.project_wide:
            rule = "0 where projectWide is false: a budget is of all that the project costs, and the other stack's"
            read.refuse("budgetDollars", rule, str(self.budget))
        if read.stack != "prod":
            return
        if self.thresholds.probe_minutes != 1:
            rule = "1 in prod, where a page must come within minutes"
            read.refuse("probeMinutes", rule, str(self.thresholds.probe_minutes))
        for severity in ("page", "ticket"):
            if not any(route.severity == severity and route.team is None for route in self.routes):
                rule = f"one {severity}=target at least in prod, or nobody is notified"
                read.refuse("notifications", rule, ", ".join(route.target for route in self.routes))


def watched(spanner: SpannerSettings, tables: WatchedTables, names: naming.Names, *, project_wide: bool) -> Watched:
    """What a stack's alerts look at."""
    return Watched(
        project_wide=project_wide,
        job=names.of(naming.STREAM_JOB),
        console=names.of(naming.CONSOLE),
        instance=spanner.instance or names.of(naming.INSTANCE),
        multi_region=spanner.multi_region,
        retention_hours=schema.change_retention_hours(tables.source_changelog, tables.change_streams),
    )
