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
from pulumi_gcp import logging, monitoring, projects

from alerts import cloud_monitoring, metrics
from alerts.catalog import Alert, alerts
from alerts.dashboards import rows
from alerts.objectives import PERIOD_DAYS, Objective, burn_windows, objectives
from alerts.routing import targets
from components import naming
from components.settings import Settings
from components.settings.monitoring import watched
from contract.metrics import PROBE_METRICS, Metric

_SEVERITY: Final = {"page": "CRITICAL", "ticket": "WARNING"}
# Cloud Monitoring closes an incident without data no sooner.
_AUTO_CLOSE: Final = "1800s"
_NATIVE_BURN: Final = "AuditLatencyFastBurn"


@dataclass(frozen=True, kw_only=True)
class MonitoringArgs:
    settings: Settings


class Monitoring(pulumi.ComponentResource):
    """Every alert of the catalog as a policy. `dashboard` is where a person looks."""

    dashboard: pulumi.Output[str]

    def __init__(self, name: str, args: MonitoringArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Monitoring"), name, {}, opts)
        self._settings, self._numbers = args.settings, args.settings.monitoring.thresholds
        self._watched = watched(args.settings.spanner, args.settings.watched)
        self._catalog = alerts(self._numbers, self._watched)
        # An alert on a metric that nobody has made is answered with 404.
        self._metrics = [self._descriptor(metric) for metric in PROBE_METRICS]
        self._metrics += [self._log_metric(log) for log in metrics.LOG_METRICS]
        self._channels = self._channel_names()
        for alert in self._catalog:
            self._policy(alert)
        self._objectives()
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

    def _descriptor(self, metric: Metric) -> pulumi.Resource:
        name = metric.type.rpartition("/")[2]
        return monitoring.MetricDescriptor(
            name,
            type=metric.type,
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
            name=log.name,
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
            user_labels=naming.labels(self._settings.stack),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _policy(self, alert: Alert) -> None:
        query: monitoring.AlertPolicyConditionConditionPrometheusQueryLanguageArgsDict = {
            "query": alert.expression,
            "duration": f"{alert.holds}s",
            "evaluation_interval": f"{alert.every}s",
            "alert_rule": alert.name,
            "rule_group": f"payment-audit-{alert.every}s",
            # A counter has no series before its first event.
            "disable_metric_validation": True,
        }
        self._alert_policy(
            alert, alert.name, [{"display_name": alert.name, "condition_prometheus_query_language": query}]
        )

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
            severity=_SEVERITY[severity],
            conditions=conditions,
            notification_channels=[self._channels[target] for target in recipients],
            documentation=self._documentation(alert, name, severity),
            alert_strategy={"auto_close": _AUTO_CLOSE, "notification_prompts": ["OPENED", "CLOSED"]},
            user_labels={**naming.labels(self._settings.stack), "severity": severity, "team": alert.team},
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

    def _objectives(self) -> None:
        """The error budgets in the console, and a ticket for their burn. The series of an SLO cannot be read in
        PromQL, so it also shows whether both definitions agree."""
        service = monitoring.CustomService(
            "payment-audit",
            service_id="payment-audit",
            display_name="Payment audit",
            user_labels=naming.labels(self._settings.stack),
            opts=pulumi.ResourceOptions(parent=self),
        )
        made = {objective.id: self._slo(service, objective) for objective in objectives(self._numbers)}
        slo = made["commit-to-queryable"]
        factor = burn_windows(self._numbers)[0].factor
        [alert] = [alert for alert in self._catalog if alert.name == _NATIVE_BURN]
        self._alert_policy(
            alert,
            f"{_NATIVE_BURN}Native",
            [self._native_burn(slo, seconds, factor) for seconds in (3600, 300)],
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
            user_labels=naming.labels(self._settings.stack),
            request_based_sli=_indicator(objective),
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
            rows(self._numbers, self._watched), self._catalog, self._settings.monitoring.runbooks
        )
        made = monitoring.Dashboard(
            "payment-audit", dashboard_json=json.dumps(body), opts=pulumi.ResourceOptions(parent=self)
        )
        project = self._settings.project
        return made.id.apply(
            lambda id: (
                f"https://console.cloud.google.com/monitoring/dashboards/builder/{id.rpartition('/')[2]}"
                f"?project={project}"
            )
        )


def _indicator(objective: Objective) -> monitoring.SloRequestBasedSliArgsDict:
    if objective.below is not None:
        cut: monitoring.SloRequestBasedSliDistributionCutRangeArgsDict = {"max": objective.below}
        return {"distribution_cut": {"distribution_filter": _filter(objective.good), "range": cut}}
    return {
        "good_total_ratio": {
            "good_service_filter": _filter(objective.good),
            "total_service_filter": _filter(objective.total),
        }
    }


def _filter(metric: Metric) -> str:
    return f'metric.type="{metric.type}" resource.type="{metric.resource}"'
