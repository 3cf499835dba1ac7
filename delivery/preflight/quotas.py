"""Quotas of the region, against what the stack asks for."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

from delivery.preflight.findings import OWNER, Finding, State
from delivery.preflight.target import Target, looked

_UNITS_A_NODE: Final = 1000
# Google keeps four of a subnetwork's addresses: cloud.google.com/vpc/docs/subnets.
_KEPT_ADDRESSES: Final = 4
_MORE: Final = "ask for more: https://console.cloud.google.com/iam-admin/quotas?project={project}, filter {metric}"


def quotas(target: Target) -> Iterator[Finding]:
    """As docs/deployment.md has them: a job that replaces another runs beside it while that one drains."""
    if target.of("dataflow/flexTemplateJob"):
        # The job's template has its size, and its resource does not.
        workers = int(target.graph.config["maxWorkers"])
        yield from _machines(target, str(target.graph.config["machineType"]), workers)
        yield from _addresses(target, workers)
    yield from _limit(target, "dataflow.googleapis.com", "dataflow.googleapis.com/job_count", 2, "jobs at once")
    for instance in target.of("spanner/instance"):
        metric, nodes = _nodes(instance.inputs)
        yield from _limit(target, "spanner.googleapis.com", metric, nodes, f"nodes of {instance.inputs['config']}")


def _machines(target: Target, machine_type: str, workers: int) -> Iterator[Finding]:
    """Source: cloud.google.com/compute/docs/reference/rest/v1/regions, `quotas`."""
    family, cpus = _machine(machine_type)
    needed = 2 * cpus * workers
    place = f"compute.googleapis.com/compute/v1/projects/{target.project}"
    for url, metrics in {
        f"{place}/regions/{target.region}": ("CPUS",) if family in ("E2", "N1") else (f"{family}_CPUS",),
        place: ("CPUS_ALL_REGIONS",),
    }.items():
        found, unseen = looked("quotas", ", ".join(metrics), partial(target.google.get, url))
        if unseen:
            yield unseen
            continue
        limits = {quota["metric"]: quota for quota in (found or {}).get("quotas", [])}
        for metric in metrics:
            quota = limits.get(metric)
            free = float(quota["limit"]) - float(quota.get("usage", 0)) if quota else None
            yield _judged(target, metric, needed, free, f"free {metric} for two jobs of {workers} workers")


def _machine(machine_type: str) -> tuple[str, int]:
    """`n2-standard-4` is of the family N2 and has 4 CPUs."""
    family, _, size = machine_type.partition("-")
    cpus = re.search(r"(\d+)$", size)
    return family.upper(), int(cpus[1]) if cpus else 1


def _addresses(target: Target, workers: int) -> Iterator[Finding]:
    needed = 2 * workers
    for subnetwork in target.of("compute/subnetwork"):
        free = 2 ** (32 - int(str(subnetwork.inputs["ipCidrRange"]).rpartition("/")[2])) - _KEPT_ADDRESSES
        if free >= needed:
            yield Finding(check="quotas", what=f"{free} addresses of {subnetwork.inputs['name']}, {needed} needed")
        else:
            why = f"{free} addresses, {needed} needed while a job replaces another"
            repair = "set a wider payment-audit:subnetworkRange before the first `up`"
            what = f"addresses of {subnetwork.inputs['name']}"
            yield Finding(check="quotas", what=what, state=State.BLOCKER, why=why, repair=repair)


def _nodes(given: Mapping[str, Any]) -> tuple[str, int]:
    """The metric and the most nodes of an instance. A multi-region's metric has its name:
    cloud.google.com/spanner/quotas#instance_limits.
    """
    scaling = (given.get("autoscalingConfig") or {}).get("autoscalingLimits") or {}
    units = max(float(scaling.get("maxProcessingUnits") or 0), float(given.get("processingUnits") or 0))
    config = str(given["config"]).rpartition("/")[2]
    metric = "spanner.googleapis.com/nodes"
    return metric if config.startswith("regional-") else f"{metric}_{config}", math.ceil(units / _UNITS_A_NODE)


def _limit(target: Target, service: str, metric: str, needed: int, what: str) -> Iterator[Finding]:
    """Source: cloud.google.com/docs/quotas/reference/rest/v1/projects.locations.services.quotaInfos/list."""
    parent = f"projects/{target.project}/locations/global/services/{service}"
    url = f"cloudquotas.googleapis.com/v1/{parent}/quotaInfos"
    found, unseen = looked("quotas", metric, lambda: list(_pages(target, url)))
    if unseen:
        yield unseen
        return
    limits = [limit for info in found if info.get("metric") == metric for limit in _limits(info, target.region)]
    yield _judged(target, metric, needed, min(limits) if limits else None, what)


def _pages(target: Target, url: str) -> Iterator[dict[str, Any]]:
    token = ""
    while True:
        page = target.google.get(url, pageSize=500, pageToken=token) or {}
        yield from page.get("quotaInfos", [])
        token = page.get("nextPageToken", "")
        if not token:
            return


def _limits(info: Mapping[str, Any], region: str) -> Iterator[float]:
    """The limits that hold in the region, where it has some for itself only those; -1 stands for unlimited."""
    dimensions = info.get("dimensionsInfos", [])
    own = [d for d in dimensions if (d.get("dimensions") or {}).get("region") == region]
    for dimension in own or [d for d in dimensions if region in d.get("applicableLocations", [region])]:
        value = float((dimension.get("details") or {}).get("value", -1))
        yield math.inf if value < 0 else value


def _judged(target: Target, metric: str, needed: int, there: float | None, what: str) -> Finding:
    if there is None:
        why = f"Google names no quota {metric} here, so {needed} may be there or not"
        return Finding(check="quotas", what=what, state=State.NOT_SEEN, why=why)
    if there >= needed:
        return Finding(check="quotas", what=f"{what}: {there:,.0f}, {needed} needed")
    return Finding(
        check="quotas",
        what=what,
        state=State.TO_DO,
        why=f"{there:,.0f}, and {needed} are needed: a job waits for workers, an instance is refused",
        repair=_MORE.format(project=target.project, metric=metric),
        who=OWNER,
    )
