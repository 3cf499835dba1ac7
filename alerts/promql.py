"""Parts of PromQL expressions, from metrics and not from strings.

Google's engine is typed and Prometheus is not: a `rate` of a GAUGE runs here and is refused there, so it is refused
when it is written. A metric is always selected with its monitored resource, as Google asks for.
"""

from __future__ import annotations

from contract.metrics import LATENCY_SECONDS, Metric


def select(metric: Metric, suffix: str = "", **labels: str) -> str:
    """The metric's series. A label's value that begins with `~` is a regex. `suffix` is a part of a distribution."""
    if (metric.value == "DISTRIBUTION") != bool(suffix):
        raise ValueError(
            f"{metric.type} is {metric.value}: a distribution is selected by _bucket, _count or _sum, others by none."
        )
    matchers = {"monitored_resource": metric.resource, **labels}
    inside = ",".join(
        f'{name}=~"{value[1:]}"' if value.startswith("~") else f'{name}="{value}"' for name, value in matchers.items()
    )
    return f"{metric.promql}{suffix}{{{inside}}}"


def increase(metric: Metric, window: str, suffix: str = "", by: str = "", **labels: str) -> str:
    """How much a counter grew in the window, over all its series or `by` a label."""
    return _over("increase", metric, window, suffix, by, labels)


def rate(metric: Metric, window: str, suffix: str = "", by: str = "", **labels: str) -> str:
    """How fast a counter grew in the window, a second."""
    return _over("rate", metric, window, suffix, by, labels)


def delta(metric: Metric, window: str) -> str:
    """How much a gauge changed in the window, over all its series."""
    if metric.kind != "GAUGE":
        raise ValueError(f"delta needs a GAUGE, got {metric.type}, which is {metric.kind}. Use increase.")
    return f"sum(delta({select(metric)}[{window}]))"


def slow_share(metric: Metric, window: str) -> str:
    """Share of events that took longer than the SLO allows. Without the bucket of those in time, all were late."""
    # Google writes the bound as 10, Prometheus clients as 10.0.
    in_time = increase(metric, window, "_bucket", le=f"~{LATENCY_SECONDS}|{LATENCY_SECONDS}.0")
    return f"1 - ({in_time} or vector(0)) / {increase(metric, window, '_count')}"


def quantile(metric: Metric, q: float, window: str, **labels: str) -> str:
    """A quantile of a distribution's growth in the window, such as 0.99."""
    return f"histogram_quantile({q}, {rate(metric, window, '_bucket', by='le', **labels)})"


def _over(function: str, metric: Metric, window: str, suffix: str, by: str, labels: dict[str, str]) -> str:
    if metric.kind == "GAUGE":
        raise ValueError(f"{function} needs a DELTA or CUMULATIVE metric, got {metric.type}, a GAUGE. Use delta.")
    group = f"sum by ({by}) " if by else "sum"
    return f"{group}({function}({select(metric, suffix, **labels)}[{window}]))"
