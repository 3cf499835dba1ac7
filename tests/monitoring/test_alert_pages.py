"""Every alert has its page, and the page says of it what the catalog says. What a page must hold: `tests/docs/`."""

from __future__ import annotations

import re

import pytest

from components.config import ROOT
from tests.monitoring.defaults import CATALOG

PAGES = {path.stem: path.read_text() for path in (ROOT / "runbooks").glob("*.md") if path.name != "README.md"}


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    assert set(PAGES) == set(CATALOG)


@pytest.mark.parametrize("name", tuple(CATALOG))
def test_a_page_has_the_alert_s_severity_team_and_place(name: str) -> None:
    alert = CATALOG[name]
    place = f"cloud only: {alert.cloud_only}" if alert.cloud_only else "here and in the cloud"
    assert PAGES[name].splitlines()[2] == f"**{alert.severity}** · {alert.team} · {place}"


@pytest.mark.parametrize("name", tuple(CATALOG))
def test_a_page_names_no_alert_that_is_not_there(name: str) -> None:
    named = set(re.findall(r"\b((?:Audit|Payment|Dataflow|Spanner|BigQuery)(?:[A-Z][a-z]+){2,})\b", PAGES[name]))
    assert named - set(CATALOG) <= {"AuditLogChangeStream", "PaymentAuditTrailChangeStream"}
