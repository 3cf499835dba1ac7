"""Organisation policies that refuse what the stack makes.

Their constraints: cloud.google.com/resource-manager/docs/organization-policy/org-policy-constraints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from components import services
from delivery.preflight.findings import ORGANISATION, Finding, State
from delivery.preflight.target import Target, looked

# Regions that are in Europe, and in no state of the EU: cloud.google.com/docs/geography-and-regions.
_NOT_EU: Final = frozenset({"europe-west2", "europe-west6"})
# The services of the stack that a policy can require a key for: cloud.google.com/kms/docs/cmek-org-policy.
_KEYED: Final = ("bigquery", "dataflow", "logging", "pubsub", "run", "secretmanager", "spanner", "storage")
_INGRESS: Final = {
    "INGRESS_TRAFFIC_ALL": "all",
    "INGRESS_TRAFFIC_INTERNAL_ONLY": "internal",
    "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER": "internal-and-cloud-load-balancing",
}


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """`wanted`: what the stack needs allowed. `within` says whether a policy's value covers one of these; None, that
    it cannot be said. `hint` is what can be set in the stack instead."""

    wanted: Callable[[Target], Sequence[str]]
    within: Callable[[str, str], bool | None]
    hint: str = ""


def policies(target: Target) -> Iterator[Finding]:
    """Every policy that is in force, by the list of constraints that can refuse something of this stack."""
    good = 0
    for name, constraint in CONSTRAINTS.items():
        found = list(_judged(target, name, constraint))
        good += not found
        yield from found
    if good:
        yield Finding(check="policies", what=f"{good} constraints allow what the stack makes")


def _judged(target: Target, name: str, constraint: Constraint) -> Iterator[Finding]:
    """Source: cloud.google.com/resource-manager/docs/reference/orgpolicy/rest/v2/projects.policies/getEffectivePolicy.

    It answers with the rules as they hold here, from each level of the organisation.
    """
    url = f"orgpolicy.googleapis.com/v2/projects/{target.project}/policies/{name}:getEffectivePolicy"
    policy, unseen = looked("policies", name, lambda: target.google.get(url))
    if unseen:
        yield unseen
        return
    rules = ((policy or {}).get("spec") or {}).get("rules") or []
    allowed = {value: _allows(rules, value, constraint.within) for value in constraint.wanted(target)}
    if refused := [value for value, verdict in allowed.items() if verdict is False]:
        yield _refused(target, name, constraint, ", ".join(refused), _said(rules))
    if unknown := [value for value, verdict in allowed.items() if verdict is None]:
        why = f"whether it allows {', '.join(unknown)} cannot be seen from here: {_said(rules)}"
        yield Finding(check="policies", what=name, state=State.NOT_SEEN, why=why, who=ORGANISATION)


def _refused(target: Target, name: str, constraint: Constraint, value: str, said: str) -> Finding:
    hint = f"{constraint.hint}, or " if constraint.hint else ""
    shown = f"gcloud org-policies describe {name} --project={target.project} --effective"
    return Finding(
        check="policies",
        what=name,
        state=State.BLOCKER,
        why=f"refuses {value}, which the stack needs: {said}",
        repair=f"{hint}allow it for this project; as it is: {shown}",
        who=ORGANISATION,
    )


def _allows(rules: Iterable[Mapping[str, Any]], value: str, within: Callable[[str, str], bool | None]) -> bool | None:
    """Whether the policy allows the value; None where a rule depends on a tag or on what `within` does not know."""
    verdict: bool | None = True
    for rule in rules:
        if rule.get("condition"):
            return None
        if rule.get("denyAll") or rule.get("enforce"):
            return False
        values = rule.get("values") or {}
        denied = [within(each, value) for each in values.get("deniedValues", [])]
        if True in denied:
            return False
        allowed = [within(each, value) for each in values.get("allowedValues", [])]
        if allowed and True not in allowed:
            if None not in allowed:
                return False
            verdict = None
        if None in denied:
            verdict = None
    return verdict


def _said(rules: Iterable[Mapping[str, Any]]) -> str:
    """The rules, as the policy has them."""
    parts: list[str] = []
    for rule in rules:
        values = rule.get("values") or {}
        parts += [f"{word} {', '.join(values[key])}" for word, key in _WORDS.items() if values.get(key)]
        parts += [key for key in ("denyAll", "enforce", "condition") if rule.get(key)]
    return "; ".join(parts) or "it has no rule"


_WORDS: Final = {"allowed": "allowedValues", "denied": "deniedValues"}


# ---------------------------------------------------------------------- what the stack needs, and what covers it


def _locations(target: Target) -> list[str]:
    """Where the stack makes something. A multi-region of Spanner has a name that no value group is documented for."""
    found = {str(node.inputs.get(key) or "").lower() for node in target.graph.nodes for key in ("location", "region")}
    return sorted(found - {"", "global"})


def _in_location(value: str, location: str) -> bool | None:
    """cloud.google.com/resource-manager/docs/organization-policy/defining-locations: a multi-region covers no region, a
    value group does."""
    value = value.lower()
    if not value.startswith("in:"):
        return value.removeprefix("is:") == location
    group = value.removeprefix("in:").removesuffix("-locations")
    if group == location:
        return True
    if group == "eu":
        return location == "eu" or (location.startswith("europe-") and location not in _NOT_EU)
    if re.fullmatch(r"us|europe|asia", group):
        return location.startswith(f"{group}-") or (group == "europe" and location == "eu")
    return False if re.fullmatch(r"[a-z]+-[a-z]+\d", group) else None


def _same(value: str, wanted: str) -> bool:
    return value.removeprefix("is:") == wanted


def _services(target: Target) -> list[str]:
    return [f"{api}.googleapis.com" for api in services.apis(bool(target.of("composer/environment")))]


def _without_key(target: Target) -> list[str]:
    return (
        []
        if target.graph.config["customerManagedKeys"] in (True, "true")
        else [f"{api}.googleapis.com" for api in _KEYED]
    )


def _key_projects(target: Target) -> list[str]:
    """The project of the keys, with what it is in: a policy can name any of these."""
    if _without_key(target):
        return []
    ring = re.match("projects/([^/]+)/", str(target.graph.config["keyRing"]))
    project = ring[1] if ring else target.project
    url = f"cloudresourcemanager.googleapis.com/v1/projects/{project}:getAncestry"
    found, _ = looked("policies", "the project's folders", lambda: target.google.post(url, {}))
    above = [each["resourceId"] for each in (found or {}).get("ancestor", [])]
    return [" ".join([f"projects/{project}", *(f"{each['type']}s/{each['id']}" for each in above)])]


def _under(value: str, ancestry: str) -> bool:
    return value.removeprefix("is:").removeprefix("under:") in ancestry.split()


def _people(target: Target) -> list[str]:
    """The domains of those who are granted something: a policy names them by their customer id, which is not public."""
    members = {str(node.inputs.get("member") or "") for node in target.graph.nodes}
    domains = {member.rpartition("@")[2] for member in members if re.match(r"(user|group|domain):", member)}
    return [", ".join(sorted(domains))] if domains else []


def _ingress(target: Target) -> list[str]:
    found = {_INGRESS.get(str(node.inputs.get("ingress")), "all") for node in target.of("cloudrunv2/service")}
    return sorted(found)


def _egress(target: Target) -> list[str]:
    nodes = [*target.of("cloudrunv2/service"), *target.of("cloudrunv2/job")]
    found = {egress for node in nodes for egress in _named(dict(node.inputs), "egress")}
    return sorted(egress.lower().replace("_", "-") for egress in found)


def _named(value: Any, name: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == name and isinstance(item, str):
                yield item
            yield from _named(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _named(item, name)


def _issuers(target: Target) -> list[str]:
    return [str(node.inputs["oidc"]["issuerUri"]) for node in target.of("iam/workloadIdentityPoolProvider")]


CONSTRAINTS: Final[Mapping[str, Constraint]] = {
    "gcp.resourceLocations": Constraint(
        wanted=_locations, within=_in_location, hint="set payment-audit:region and payment-audit:warehouseLocation"
    ),
    "gcp.restrictNonCmekServices": Constraint(
        wanted=_without_key, within=_same, hint="set payment-audit:customerManagedKeys to true"
    ),
    "gcp.restrictCmekCryptoKeyProjects": Constraint(wanted=_key_projects, within=_under),
    "gcp.restrictServiceUsage": Constraint(wanted=_services, within=_same),
    "iam.allowedPolicyMemberDomains": Constraint(wanted=_people, within=lambda value, wanted: None),
    "iam.disableServiceAccountCreation": Constraint(
        wanted=lambda target: ["service accounts"], within=lambda value, wanted: True
    ),
    "iam.workloadIdentityPoolProviders": Constraint(wanted=_issuers, within=_same),
    "run.allowedIngress": Constraint(
        wanted=_ingress, within=_same, hint="set payment-audit:consoleIngress to internal"
    ),
    "run.allowedVPCEgress": Constraint(wanted=_egress, within=_same),
}
