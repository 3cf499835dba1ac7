"""The alert on what a project costs: made where config has a sum, for the recipients of tickets."""

from __future__ import annotations

import pytest

from tests.infra.graphs import graph_of
from tests.infra.test_settings import refusal

ACCOUNT = "012345-6789AB-CDEF01"
SUM = {"budgetDollars": 150, "billingAccount": ACCOUNT}


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_no_stack_has_a_budget_before_config_says_one(stack: str) -> None:
    assert graph_of(stack).of("Budget") == []


def test_a_budget_is_of_this_project_alone_and_warns_before_it_is_spent() -> None:
    budget = graph_of("dev", SUM).one("Budget").inputs
    assert budget["billingAccount"] == ACCOUNT
    assert budget["amount"] == {"specifiedAmount": {"units": "150"}}
    [project] = budget["budgetFilter"]["projects"]
    assert project.startswith("projects/") and project.removeprefix("projects/").isdigit()
    rules = {(rule["spendBasis"], rule["thresholdPercent"]) for rule in budget["thresholdRules"]}
    assert rules == {("CURRENT_SPEND", share) for share in (0.5, 0.9, 1.0)} | {("FORECASTED_SPEND", 1.0)}


def test_it_notifies_whom_a_ticket_does_by_e_mail_and_without_one_the_account_s_administrators() -> None:
    """A budget takes channels of e-mail alone, five at most."""
    assert "allUpdatesRule" not in graph_of("dev", SUM).one("Budget").inputs
    routes = [f"ticket={name}@example.com" for name in "abcdef"]
    others = ["page=p@example.com", "ticket/security=s@example.com", "ticket=projects/p/notificationChannels/1"]
    graph = graph_of("dev", {**SUM, "notifications": [*others, *routes]})
    channels = graph.one("Budget").inputs["allUpdatesRule"]["monitoringNotificationChannels"]
    named = {node.name: node for node in graph.of("NotificationChannel")}
    assert len(channels) == 5
    assert all(any(name in channel for name in named if name[0] in "abcde") for channel in channels)


def test_a_sum_without_an_account_and_an_account_that_is_none_are_refused() -> None:
    [problem] = refusal(budgetDollars=150)
    assert problem.startswith("billingAccount must be the account that pays for the project")
    [problem] = refusal(billingAccount="my account")
    assert problem.startswith("billingAccount must be empty or XXXXXX-XXXXXX-XXXXXX")
