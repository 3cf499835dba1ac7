"""The catalog with the default numbers."""

from __future__ import annotations

from alerts.catalog import Alert, alerts
from alerts.thresholds import Thresholds, Watched

CATALOG: dict[str, Alert] = {alert.name: alert for alert in alerts(Thresholds(), Watched())}
