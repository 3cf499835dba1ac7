"""The rules as a CrossGuard policy pack: `pulumi preview --policy-pack guardrails`.

Each resource is judged alone, before it is made or changed, so a broken rule stops `up` as well as `preview`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pulumi
from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

from graph.resources import Graph, Node
from guardrails.rules import RULES, UNKNOWN, Rule


def policy(rule: Rule) -> ResourceValidationPolicy:
    """A rule as a policy. Its docstring is what the person reads who broke it."""

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        node = node_of(args)
        # What --exclude leaves out before it was ever made has no inputs: nothing is there to judge until it is made.
        for broken in (
            rule(Graph(stack=pulumi.get_stack(), nodes=(node,), config=stack_values())) if node.inputs else ()
        ):
            report(broken, None)

    return ResourceValidationPolicy(
        name=rule.__name__.replace("_", "-"), description=str(rule.__doc__), validate=validate
    )


def node_of(args: ResourceValidationArgs) -> Node:
    """A resource as the rules see it."""
    return Node(
        type=args.resource_type,
        name=args.name,
        inputs=known(args.props),
        parent=args.opts.parent or "",
        provider=args.provider.urn if args.provider else "",
        protect=args.opts.protect,
    )


def known(value: Any) -> Any:
    """The value in plain dictionaries and lists, with UNKNOWN for what is not known before something else is made."""
    if isinstance(value, Mapping):
        return {key: _item(value, key) for key in value}
    if isinstance(value, str) or not hasattr(value, "__getitem__"):
        return value
    return [_item(value, index) for index in range(len(value))]


def _item(values: Any, key: Any) -> Any:
    try:
        return known(values[key])
    except UnknownValueError:
        return UNKNOWN


@cache
def stack_values() -> Mapping[str, Any]:
    """The stack's config by key: the CLI puts it into this process's environment, lists as JSON, all else as text."""
    texts = pulumi.runtime.get_config_env()
    return {key.partition(":")[2]: json.loads(text) if text.startswith("[") else text for key, text in texts.items()}


if __name__ == "__main__":
    PolicyPack("payment-audit", [policy(rule) for rule in RULES], EnforcementLevel.MANDATORY)
