"""The alerts as Prometheus rules: what `promtool` tests and the local Prometheus evaluates.

`python -m alerts.rules` writes them, with the default numbers.
"""

from __future__ import annotations

import sys
from typing import Any

import click

from alerts.catalog import Alert, alerts
from alerts.thresholds import Thresholds, Watched


def rules(numbers: Thresholds, watched: Watched, *, local: bool = False) -> dict[str, Any]:
    """A rules file. With `local` it has only what can be measured on one machine."""
    chosen = [alert for alert in alerts(numbers, watched) if not (local and alert.cloud_only)]
    groups = [
        {
            "name": f"payment-audit-{every}s",
            "interval": f"{every}s",
            "rules": [rule(alert) for alert in chosen if alert.every == every],
        }
        for every in sorted({alert.every for alert in chosen})
    ]
    return {"groups": groups}


def rule(alert: Alert) -> dict[str, Any]:
    """One alerting rule."""
    return {
        "alert": alert.name,
        "expr": alert.expression,
        "for": f"{alert.holds}s",
        "labels": {"severity": alert.severity, "team": alert.team},
        "annotations": {
            "title": _template(alert.title),
            "summary": alert.summary,
            "runbook": f"runbooks/{alert.runbook}",
        },
    }


def _template(title: str) -> str:
    """`{{state}}`, a label of the result, as Prometheus writes it."""
    return title.replace("{{", "{{ $labels.").replace("}}", " }}")


@click.command()
@click.option("--local", is_flag=True, help="Only what can be measured on one machine.")
def main(local: bool) -> None:
    """Write the rules file, with the default numbers."""
    import yaml

    yaml.safe_dump(rules(Thresholds(), Watched(), local=local), sys.stdout, sort_keys=False, width=1000)


if __name__ == "__main__":
    main()
