"""Monitoring: the metrics of the probe, the SLOs, the alerts with their runbooks, the notification channels, the
dashboard.

All of it is data in `alerts/`; here it becomes resources. Snoozes are made by people, in the console: a snooze in code
would outlive its reason.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import billing, logging, monitoring, organizations, projects

from alerts import cloud_monitoring, metrics
from alerts.catalog import Alert, alerts
from alerts.dashboards import TITLE, rows
from alerts.objectives import PERIOD_DAYS, Objective, burn_windows, objectives
from alerts.routing import targets
from components import naming
from components.settings import Settings
from contract.metrics import PROBE_METRICS, Metric, of_stack

_SEVERITY: Final = {"page": "CRITICAL", "ticket": "WARNING"}
# Cloud Monitoring closes an incident without data no sooner.
_AUTO_CLOSE: Final = "1800s"
_NATIVE_BURN: Final = "AuditLatencyFastBurn"
# The one alert of a paused stack: its runbook says how long is left, and what to do.
_CLOCK: Final = "AuditRetentionClock"
_BUDGET_CHANNELS: Final = 5


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    settings: Settings


class Monitoring(pulumi.ComponentResource):
    """Every alert of the catalog as a policy. `dashboard` is where a person looks."""

    dashboard: pulumi.Output[str]

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Monitoring"), name, {}, opts)
        self._settings, self._numbers = args.settings, args.settings.monitoring.thresholds
        self._watched = args.settings.looked_at
        self._catalog = alerts(self._numbers, self._watched)
        # An alert on a metric that nobody has made is answered with 404.
        self._metrics = [self._descriptor(metric) for metric in PROBE_METRICS]
        self._metrics += [self._log_metric(log) for log in metrics.LOG_METRICS]
        self._channels = self._channel_names()
        for alert in self._catalog:
            self._policy(alert)
        self._objectives()
        self._budget()
        self.dashboard = self._dashboard()
        for person in args.settings.identity.on_call:
            self._grant_look(person)
        self.register_outputs({"dashboard": self.dashboard})

    def _grant_look(self, person: str) -> None:
        """Dashboards, alerts and series have no grant on anything smaller than the project, nor have snoozes."""
        project = self._settings.project
        for name, role in (
            ("monitoring", "roles/monitoring.viewer"),
            ("on-call", naming.role(naming.ON_CALL, project)),
        ):
            projects.IAMMember(
                f"{name}-{person}",
                project=project,
                role=role,
                member=person,
                opts=pulumi.ResourceOptions(parent=self),
            )

    def _of_stack(self, text: str) -> str:
        return of_stack(self._settings.prefix, text)

    def _descriptor(self, metric: Metric) -> pulumi.Resource:
        name = metric.type.rpartition("/")[2]
        return monitoring.MetricDescriptor(
            name,
            type=self._of_stack(metric.type),
            metric_kind=metric.kind,
            value_type=metric.value,
            unit=metric.unit,
            display_name=name.replace("_", " "),
            description=metric.description,
            labels=[{"key": key, "value_type": "STRING", "description": what} for key, what in metric.labels],
            # Taking a label away takes the history away.
            opts=pulumi.ResourceOptions(parent=self, protect=self._settings.protect),
        )

    def _log_metric(self, log: metrics.LogMetric) -> pulumi.Resource:
        return logging.Metric(
            log.name,
            name=self._settings.names.with_underscores(log.name),
            description=log.metric.description,
            filter=log.filter.format(job=self._watched.job),
            metric_descriptor={
                "metric_kind": log.metric.kind,
                "value_type": log.metric.value,
                "unit": log.metric.unit,
                "labels": [{"key": key, "description": what} for key, what in log.metric.labels],
            },
            label_extractors=log.extractors,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _channel_names(self) -> dict[str, pulumi.Input[str]]:
        """A target that is a channel already, such as a pager with its secret, was made by a person."""
        routes = self._settings.monitoring.routes
        return {
            target: self._email(target).name if is_email else target
            for target, is_email in {route.target: route.is_email for route in routes}.items()
        }

    def _email(self, address: str) -> monitoring.NotificationChannel:
        return monitoring.NotificationChannel(
            address,
            type="email",
            display_name=address,
            labels={"email_address": address},
            user_labels=self._settings.labels,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _policy(self, alert: Alert) -> None:
        query: monitoring.AlertPolicyConditionConditionPrometheusQueryLanguageArgsDict = {
            # The console shows the threshold of a query in one line alone.
            "query": " ".join(line.strip() for line in self._expression(alert).splitlines()),
            "evaluation_interval": f"{alert.every}s",
            "alert_rule": alert.name,
            "rule_group": f"payment-audit-{alert.every}s",
            # A counter has no series before its first event.
            "disable_metric_validation": True,
        }
        if alert.holds:
            # Zero is the default, and asked for it may not come back: a change in every preview.
            query["duration"] = f"{alert.holds}s"
        self._alert_policy(
            alert, alert.name, [{"display_name": alert.name, "condition_prometheus_query_language": query}]
        )

    def _expression(self, alert: Alert) -> str:
        """Of a paused stack nothing is measured, so the clock is a clock.

        The functions of PromQL that take no metric run in Cloud Monitoring too:
        https://cloud.google.com/monitoring/promql/promql-mapping.
        """
        pause = self._settings.pause
        if pause is None or alert.name != _CLOCK:
            return self._of_stack(alert.expression)
        fires = pause.until(self._numbers.retention_share * self._watched.retention_hours)
        return f"vector(time()) > {fires.timestamp():.0f}"

    def _alert_policy(
        self,
        alert: Alert,
        name: str,
        conditions: Sequence[monitoring.AlertPolicyConditionArgsDict],
        *,
        severity: str | None = None,
        needs: Sequence[pulumi.Resource] = (),
    ) -> None:
        severity = severity or alert.severity
        recipients = targets(alert, self._settings.monitoring.routes, severity)
        monitoring.AlertPolicy(
            name,
            display_name=name,
            combiner="AND" if len(conditions) > 1 else "OR",
            enabled=not self._settings.pause or alert.name == _CLOCK,
            severity=_SEVERITY[severity],
            conditions=conditions,
            notification_channels=[self._channels[target] for target in recipients],
            documentation=self._documentation(alert, name, severity),
            alert_strategy={"auto_close": _AUTO_CLOSE, "notification_prompts": ["OPENED", "CLOSED"]},
            user_labels={**self._settings.labels, "severity": severity, "team": alert.team},
            opts=pulumi.ResourceOptions(parent=self, depends_on=[*self._metrics, *needs]),
        )

    def _documentation(self, alert: Alert, name: str, severity: str) -> monitoring.AlertPolicyDocumentationArgsDict:
        """What a person reads first: what it means and where it says what to do."""
        title = alert.title.replace("{{", "${metric_or_resource.label.").replace("}}", "}")
        base = self._settings.monitoring.runbooks
        said: monitoring.AlertPolicyDocumentationArgsDict = {
            "subject": f"[{self._settings.stack} {severity}] {name}: {title}",
            "content": f"**{title}**\n\n{alert.summary}\n\nRunbook: `runbooks/{alert.runbook}`",
            "mime_type": "text/markdown",
        }
        if base:
            said["links"] = [{"display_name": "Runbook", "url": f"{base}/{alert.runbook}"}]
        return said

    def _budget(self) -> None:
        """What the project may cost in a month, where config says it. Nothing is stopped: people are notified.

        The recipients of a ticket, at most five and by e-mail, besides those of the billing account:
        https://docs.cloud.google.com/billing/docs/how-to/budgets.
        """
        config, project = self._settings.monitoring, self._settings.project
        if not config.budget:
            return
        opts = pulumi.InvokeOutputOptions(parent=self)
        number = organizations.get_project_output(project_id=project, opts=opts).number
        tickets = [r.target for r in config.routes if r.severity == "ticket" and r.team is None and r.is_email]
        channels = [self._channels[target] for target in dict.fromkeys(tickets)][:_BUDGET_CHANNELS]
        rules: list[billing.BudgetThresholdRuleArgsDict] = [
            {"threshold_percent": share, "spend_basis": "CURRENT_SPEND"} for share in (0.5, 0.9, 1.0)
        ]
        billing.Budget(
            "budget",
            billing_account=config.billing_account,
            display_name=f"{TITLE}, {self._settings.stack}",
            amount={"specified_amount": {"units": str(config.budget)}},
            # By its number: that is what comes back.
            budget_filter={"projects": [pulumi.Output.concat("projects/", number)], "calendar_period": "MONTH"},
            threshold_rules=[*rules, {"threshold_percent": 1.0, "spend_basis": "FORECASTED_SPEND"}],
            all_updates_rule={"monitoring_notification_channels": channels} if channels else None,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _objectives(self) -> None:
        """The error budgets in the console, and a ticket for their burn. The series of an SLO cannot be read in
        PromQL, so it also shows whether both definitions agree."""
        service = monitoring.CustomService(
            "payment-audit",
            service_id=self._settings.names.of("payment-audit"),
            display_name=self._title(TITLE),
            user_labels=self._settings.labels,
            opts=pulumi.ResourceOptions(parent=self),
        )
        made = {objective.id: self._slo(service, objective) for objective in objectives(self._numbers)}
        slo = made["commit-to-queryable"]
        factor = burn_windows(self._numbers)[0].factor
        [alert] = [alert for alert in self._catalog if alert.name == _NATIVE_BURN]
        self._alert_policy(
            alert,
            f"{_NATIVE_BURN}Native",
            [self._native_burn(slo, seconds, factor) for seconds in (3600, 300 * self._numbers.probe_minutes)],
            severity="ticket",
            needs=[slo],
        )

    def _slo(self, service: monitoring.CustomService, objective: Objective) -> monitoring.Slo:
        return monitoring.Slo(
            objective.id,
            service=service.service_id,
            slo_id=objective.id,
            display_name=objective.title,
            goal=objective.goal,
            rolling_period_days=PERIOD_DAYS,
            user_labels=self._settings.labels,
            request_based_sli=self._indicator(objective),
            opts=pulumi.ResourceOptions(parent=self, depends_on=self._metrics),
        )

    def _native_burn(self, slo: monitoring.Slo, seconds: int, factor: float) -> monitoring.AlertPolicyConditionArgsDict:
        return {
            "display_name": f"budget burns over {seconds} s",
            "condition_threshold": {
                "filter": slo.name.apply(lambda name: f'select_slo_burn_rate("{name}", "{seconds}s")'),
                "comparison": "COMPARISON_GT",
                "threshold_value": factor,
                "duration": "0s",
            },
        }

    def _dashboard(self) -> pulumi.Output[str]:
        body = cloud_monitoring.dashboard(
            rows(self._numbers, self._watched), self._catalog, self._settings.monitoring.runbooks, self._title(TITLE)
        )
        made = monitoring.Dashboard(
            "payment-audit", dashboard_json=self._of_stack(json.dumps(body)), opts=pulumi.ResourceOptions(parent=self)
        )
        project = self._settings.project
        return made.id.apply(
            lambda id: (
                f"https://console.cloud.google.com/monitoring/dashboards/builder/{id.rpartition('/')[2]}"
                f"?project={project}"
            )
        )

    def _title(self, title: str) -> str:
        """For people, who see those of every stack of the project in one list."""
        return f"{title}, {self._settings.prefix}" if self._settings.prefix else title

    def _indicator(self, objective: Objective) -> monitoring.SloRequestBasedSliArgsDict:
        if objective.below is not None:
            cut: monitoring.SloRequestBasedSliDistributionCutRangeArgsDict = {"max": objective.below}
            return {"distribution_cut": {"distribution_filter": self._filter(objective.good), "range": cut}}
        return {
            "good_total_ratio": {
                "good_service_filter": self._filter(objective.good),
                "total_service_filter": self._filter(objective.total),
            }
        }

    def _filter(self, metric: Metric) -> str:
        return self._of_stack(f'metric.type="{metric.type}" resource.type="{metric.resource}"')
