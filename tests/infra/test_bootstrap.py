"""Bootstrap makes what a stack's first `up` needs, in an order that works, once; and says what it would do.

A recording fake stands in for gcloud (fake_gcloud.py says why): there is no Google Cloud project in tests.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from click.testing import CliRunner

from bootstrap import roles
from bootstrap.__main__ import main
from bootstrap.steps import Stack, steps
from components.config import ROOT
from graph.resources import Graph
from tests import documents
from tests.infra import fake_gcloud
from tests.infra.graphs import graph_of
from tests.infra.published import PERMISSIONS, ROLES

PROD = Stack(name="prod", project="payment-audit-prod", region="us-east4", number="123456789012", access_policy="7")
DEPLOYER = "serviceAccount:deployer-sa@payment-audit-prod.iam.gserviceaccount.com"


EMPTY: dict[str, Any] = {"things": {}, "policies": {}, "changes": [], "calls": []}


class Cloud:
    """A fake gcloud on PATH, and what was made with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        fake = folder / "gcloud"
        # A hundred commands each start a Python: without the environment it starts in half the time.
        fake.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {Path(__file__).with_name("fake_gcloud.py")} "$@"\n')
        fake.chmod(0o755)

    def bootstrap(self, *args: str) -> subprocess.CompletedProcess[str]:
        """In this process, gcloud too: a run is a hundred commands, and each would start a Python."""

        def gcloud(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = fake_gcloud.main([word for word in command[1:] if word != "--quiet"])
            return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())

        state = {"FAKE_GCLOUD": str(self.folder / "state.json")}
        with patch.dict(os.environ, state), patch.object(subprocess, "run", gcloud):
            done = CliRunner().invoke(main, args)
        return subprocess.CompletedProcess(args, done.exit_code, done.stdout, done.stderr)

    def bootstrap_as_a_program(self, *args: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{self.folder}:{os.environ['PATH']}",
            "FAKE_GCLOUD": str(self.folder / "state.json"),
        }
        command = [sys.executable, "-m", "bootstrap", *args]
        return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)

    @property
    def state(self) -> dict[str, Any]:
        file = self.folder / "state.json"
        return json.loads(file.read_text()) if file.exists() else {}


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def test_it_makes_what_the_first_up_needs_and_the_second_run_changes_nothing(cloud: Cloud) -> None:
    first = cloud.bootstrap_as_a_program("--stack", "prod", "--operator", "user:ops@example.com")
    assert first.returncode == 0, first.stderr
    made = cloud.state
    bucket = made["things"]["buckets gs://payment-audit-prod-pulumi-state"]
    assert {"uniform-bucket-level-access", "public-access-prevention", "versioning"} <= bucket.keys()
    ring = "projects/payment-audit-prod/locations/us-east4/keyRings/bootstrap/cryptoKeys"
    assert bucket["default-encryption-key"] == f"{ring}/pulumi-state"
    assert made["things"]["repositories audit-images"]["kms-key"] == f"{ring}/images"
    assert {"service-accounts deployer-sa", "service-accounts preview-sa"} <= made["things"].keys()
    assert f"--secrets-provider=gcpkms://{ring}/pulumi-secrets" in first.stdout
    second = cloud.bootstrap("--stack", "prod", "--operator", "user:ops@example.com")
    assert second.returncode == 0, second.stderr
    assert "Everything was there." in second.stdout
    assert cloud.state["changes"] == made["changes"]


def test_what_was_interrupted_goes_on_where_it_stopped(cloud: Cloud) -> None:
    cloud.bootstrap("--stack", "dev")
    whole = cloud.state
    state = {**whole, "things": dict(whole["things"]), "changes": []}
    del state["things"]["repositories audit-images"]
    (cloud.folder / "state.json").write_text(json.dumps(state))
    again = cloud.bootstrap("--stack", "dev")
    assert "1 made." in again.stdout
    assert [change[:3] for change in cloud.state["changes"]] == [["artifacts", "repositories", "create"]]
    assert cloud.state["things"].keys() == whole["things"].keys()


def test_a_dry_run_prints_every_command_and_runs_none(cloud: Cloud) -> None:
    shown = cloud.bootstrap("--stack", "prod", "--dry-run")
    assert shown.returncode == 0
    assert cloud.state == {}
    commands = [shlex.split(line) for line in shown.stdout.splitlines() if line.startswith("gcloud ")]
    prod = Stack(**{**vars(PROD), "number": "<project number>", "access_policy": "123456789012"})
    assert commands == [["gcloud", *step.make] for step in steps(prod)]


def test_every_command_is_one_that_gcloud_has() -> None:
    """By the installed Google Cloud CLI's own tree of commands, flags and choices: the fake knows no flags."""
    stack = Stack(**{**vars(PROD), "operators": ("user:ops@example.com",), "promotes_to": ("other-prod",)})
    for step in steps(stack):
        documents.gcloud(*step.look)
        documents.gcloud(*step.make)


def test_it_has_help(cloud: Cloud) -> None:
    shown = cloud.bootstrap("--help")
    assert shown.returncode == 0
    assert {"--stack", "--operator", "--promotes-to", "--dry-run"} <= set(re.findall(r"--[\w-]+", shown.stdout))


def test_it_ends_with_the_commands_that_come_next_as_the_page_prints_them(cloud: Cloud) -> None:
    """With credentials that Pulumi's state and keys are opened with too, not the provider's alone."""
    shown = cloud.bootstrap("--stack", "dev", "--dry-run").stdout.partition("Next:")[2].split("\n")
    commands = [line.strip() for line in shown if line.strip()]
    login = "gcloud auth application-default login --impersonate-service-account="
    assert commands[0] == f"{login}deployer-sa@payment-audit-dev.iam.gserviceaccount.com"
    documents.gcloud(*shlex.split(commands[0])[1:])
    page = re.sub(r" \\\n\s*", " ", (ROOT / "docs" / "deployment.md").read_text())
    found = [page.find(re.sub(r"(=|gs://).*", r"\1", command)) for command in commands]
    assert -1 not in found
    assert found == sorted(found)


def test_what_google_has_not_carried_out_yet_is_tried_again(cloud: Cloud) -> None:
    """An account that was just made can be granted nothing for a minute."""
    (cloud.folder / "state.json").write_text(json.dumps({**EMPTY, "late": 1}))
    waited = cloud.bootstrap("--stack", "dev")
    assert waited.returncode == 0, waited.stderr
    assert waited.stdout.count("wait   ") == 1
    whole = cloud.state
    (cloud.folder / "state.json").write_text(json.dumps({**EMPTY, "late": 1}))
    refused = cloud.bootstrap("--stack", "dev", "--wait", "0")
    assert refused.returncode == 1
    assert "run bootstrap again: it continues where it stopped." in refused.stderr
    assert cloud.bootstrap("--stack", "dev").returncode == 0
    assert cloud.state["policies"] == whole["policies"]


def test_a_role_of_ours_that_google_refuses_keeps_back_no_grant_of_google_s_roles(cloud: Cloud) -> None:
    (cloud.folder / "state.json").write_text(json.dumps({**EMPTY, "refused": "auditPreview"}))
    assert cloud.bootstrap("--stack", "prod").returncode == 1
    bindings = cloud.state["policies"]["projects payment-audit-prod"]["bindings"]
    held = {binding["role"] for binding in bindings if DEPLOYER in binding["members"]}
    assert {*roles.DEPLOYER, roles.GRANTS} <= held


def test_google_has_each_permission_of_our_roles_in_a_role_of_its_own() -> None:
    """One that there is not is refused with the whole role: logging.cmekSettings.get was such a one."""
    for role in roles.CUSTOM:
        assert set(role.permissions) - PERMISSIONS == set(), role.id
        assert all(
            re.fullmatch(r"[a-z-]+/docs/[\w/-]+", page) or page == "monitoring/access-control"
            for page in role.permissions.values()
        )


def test_every_agent_that_the_program_names_is_requested_before(graph: Graph) -> None:
    """Google needs minutes to make one, and a grant to one that there is not is refused."""
    named = {node.inputs["service"] for node in graph.of("ServiceIdentity")}
    flags = [word.partition("=") for step in steps(PROD) for word in step.make]
    requested = {service for flag, _, service in flags if flag == "--service"}
    assert named - requested == set()


def test_every_api_that_the_program_enables_is_on_before(graph: Graph) -> None:
    enabled = {word for step in steps(PROD) if step.make[:2] == ("services", "enable") for word in step.make}
    assert {
        node.inputs["service"] for node in graph.of("Service") if node.type == "gcp:projects/service:Service"
    } <= enabled


def test_what_gcloud_refuses_is_told_with_the_way_on(cloud: Cloud) -> None:
    (cloud.folder / "gcloud").write_text("#!/bin/sh\necho 'PERMISSION_DENIED: no' >&2\nexit 1\n")
    refused = cloud.bootstrap_as_a_program("--stack", "dev")
    assert refused.returncode == 1
    assert "PERMISSION_DENIED: no" in refused.stderr
    assert "run bootstrap again: it continues where it stopped." in refused.stderr


def test_a_stack_without_a_file_is_refused(cloud: Cloud) -> None:
    refused = cloud.bootstrap("--stack", "qa")
    assert refused.returncode == 1
    assert "There are dev, local, prod, staging." in refused.stderr


def test_a_second_stack_of_a_project_finds_all_of_it_there() -> None:
    """State, keys, images, roles and accounts are the project's: a stack's prefix is in none of them."""
    assert list(steps(replace(PROD, name="eu"))) == list(steps(PROD))


def test_later_stacks_take_images_from_this_one_s_repository() -> None:
    stack = Stack(**{**vars(PROD), "promotes_to": ("other-prod",)})
    takers = [s.grant for s in steps(stack) if s.make[:2] == ("artifacts", "repositories") and s.grant]
    assert (
        "serviceAccount:deployer-sa@other-prod.iam.gserviceaccount.com",
        "roles/artifactregistry.admin",
        "",
    ) in takers


def test_a_permission_that_a_later_version_asks_for_is_added(cloud: Cloud) -> None:
    cloud.bootstrap("--stack", "dev")
    whole = cloud.state
    older = {**whole, "changes": []}
    older["things"]["roles auditPreview"]["permissions"] = "resourcemanager.projects.get,of.somebody.else"
    (cloud.folder / "state.json").write_text(json.dumps(older))
    assert "1 made." in cloud.bootstrap("--stack", "dev").stdout
    held = set(cloud.state["things"]["roles auditPreview"]["permissions"].split(","))
    assert held == {*roles.LOOK.permissions, "of.somebody.else"}


def test_later_stacks_look_at_this_one_s_images_too() -> None:
    stack = Stack(**{**vars(PROD), "promotes_to": ("other-prod",)})
    readers = [s.grant[0] for s in steps(stack) if s.grant and s.grant[1] == "roles/artifactregistry.reader"]
    assert readers == [f"serviceAccount:preview-sa@{p}.iam.gserviceaccount.com" for p in (PROD.project, "other-prod")]


def test_nobody_gets_a_primitive_role_and_every_role_has_a_reason() -> None:
    granted = {step.grant[1] for step in steps(PROD) if step.grant}
    assert not granted & {"roles/owner", "roles/editor", "roles/viewer"}
    reasons = [reason for table in (roles.DEPLOYER, roles.PREVIEW) for reason in table.values()]
    assert all([*reasons, *(role.reason for role in roles.CUSTOM)])


def test_the_deployer_reaches_no_version_of_a_secret() -> None:
    assert not [role for role in _held(DEPLOYER) if role.startswith("roles/secretmanager.")]
    assert [p for p in roles.SECRETS.permissions if not p.startswith("secretmanager.secrets.")] == []
    assert roles.SECRETS.of(PROD.project) in _held(DEPLOYER)


def test_a_preview_changes_neither_the_state_nor_the_stack() -> None:
    """Whoever proposes a change runs code as this account. All that it may write is its log and the state's lock."""
    preview = DEPLOYER.replace("deployer-sa", "preview-sa")
    locks = "resource.name.startsWith('projects/_/buckets/payment-audit-prod-pulumi-state/objects/.pulumi/locks/')"
    assert _held(preview) == {
        "roles/cloudbuild.workerPoolUser": "",
        "roles/logging.logWriter": "",
        roles.LOOK.of(PROD.project): "",
        "roles/storage.objectViewer": "",
        "roles/storage.objectUser": locks,
        "roles/cloudkms.cryptoKeyDecrypter": "",
        "roles/artifactregistry.reader": "",
    }
    harmless = {"bigquery.jobs.create", "serviceusage.services.use"}
    assert [p for p in roles.LOOK.permissions if not p.endswith(".get") and p not in harmless] == []


def test_the_deployer_may_give_the_triggers_their_accounts() -> None:
    acted_as = {
        step.make[3].partition("@")[0]
        for step in steps(PROD)
        if step.grant and step.grant[:2] == (DEPLOYER, "roles/iam.serviceAccountUser")
    }
    assert acted_as == {"deployer-sa", "preview-sa"}


# With which of its roles the deployer makes what is of a service: gcp:SERVICE/….
MAKERS = {
    "accesscontextmanager": "roles/accesscontextmanager.policyEditor",
    "artifactregistry": "roles/artifactregistry.admin",
    "bigquery": "roles/bigquery.admin",
    "bigquerydatapolicy": "roles/bigquery.admin",
    "cloudbuild": "roles/cloudbuild.builds.editor",
    "cloudrunv2": "roles/run.admin",
    "cloudscheduler": "roles/cloudscheduler.admin",
    "compute": "roles/compute.networkAdmin",
    "datacatalog": "roles/datacatalog.categoryAdmin",
    "dataflow": "roles/dataflow.developer",
    "dns": "roles/dns.admin",
    "iam": "roles/iam.workloadIdentityPoolAdmin",
    "iap": "roles/iap.admin",
    "kms": "roles/cloudkms.admin",
    "logging": "roles/logging.configWriter",
    "monitoring": "roles/monitoring.editor",
    "projects": roles.GRANTS,
    "secretmanager": roles.SECRETS.of(PROD.project),
    "serviceaccount": "roles/iam.serviceAccountAdmin",
    "spanner": "roles/spanner.admin",
    "storage": "roles/storage.admin",
}


def test_the_deployer_has_a_role_for_whatever_the_program_makes(graph: Graph) -> None:
    services = {node.type.removeprefix("gcp:").partition("/")[0] for node in graph.nodes if node.type[:4] == "gcp:"}
    assert services - MAKERS.keys() == set(), "give deployer-sa a role for it in bootstrap/roles.py, and name it here"
    assert {MAKERS[service] for service in services} - _held(DEPLOYER).keys() == set()


def test_the_deployer_may_act_as_every_account_that_something_runs_as(graph: Graph) -> None:
    """Google asks for that of who makes a job, a schedule or a scheduled query."""
    acted_as = {
        node.inputs["serviceAccountId"].rpartition("/")[2]
        for node in graph.nodes
        if node.inputs.get("role") == "roles/iam.serviceAccountUser" and "deployer-sa" in node.inputs["member"]
    }
    run_as = {account for node in graph.nodes if "role" not in node.inputs for account in _run_as(dict(node.inputs))}
    assert len(run_as) >= 2
    assert run_as <= acted_as


def test_the_deployer_may_run_builds_on_the_stack_s_machines() -> None:
    """Who makes a trigger runs its builds: with a pool, that takes a permission that a pool's owner does not have."""
    held = {permission for role in _held(DEPLOYER) for permission in ROLES.get(role, ())}
    assert "cloudbuild.workerpools.use" not in ROLES["roles/cloudbuild.workerPoolOwner"]
    assert "cloudbuild.workerpools.use" in held


def test_who_makes_views_over_masked_columns_may_read_them_masked(prod: Graph) -> None:
    """BigQuery checks a view's query as who makes it, and no administrator's role opens a masked column."""
    masked = {n.inputs["member"]: n.inputs["role"] for n in prod.of("DataPolicyIamMember")}
    assert masked[DEPLOYER] == "roles/bigquerydatapolicy.maskedReader"


def _run_as(value: Any) -> Iterator[str]:
    """The accounts that a resource runs as."""
    if isinstance(value, list):
        for item in value:
            yield from _run_as(item)
    if isinstance(value, Mapping):
        for key, item in value.items():
            if re.fullmatch(r"serviceAccount(Email|Name)?", key) and isinstance(item, str):
                yield item
            yield from _run_as(item)


def _held(member: str) -> dict[str, str]:
    """What a member is granted, and under which condition."""
    return {s.grant[1]: s.grant[2] for s in steps(PROD) if s.grant and s.grant[0] == member}


def test_the_deployer_may_grant_on_the_project_what_the_program_grants_and_nothing_else(graph: Graph) -> None:
    [grants] = [step for step in steps(PROD) if step.grant and step.grant[1] == roles.GRANTS]
    assert grants.grant and grants.grant[2] == roles.grants_condition(PROD.project)
    allowed = set(
        re.findall(r"'((?:projects/[\w-]+/)?roles/[\w.]+)'", roles.grants_condition(graph.outputs["project"]))
    )
    granted = {n.inputs["role"] for n in graph.nodes if n.type == "gcp:projects/iAMMember:IAMMember"}
    assert granted <= allowed
    assert roles.COMPOSER_WORKER not in allowed
    # Of a list of roles a condition takes ten. A stack that makes an environment of Composer takes the last.
    assert len(allowed) <= 9


def test_only_the_deployer_of_a_stack_that_makes_composer_may_grant_its_workers_role() -> None:
    own = {"orchestration": "composer", "pipelineOwner": "composer", "composerWebRanges": ["203.0.113.0/24"]}
    graph = graph_of("dev", own)
    granted = {n.inputs["role"] for n in graph.nodes if n.type == "gcp:projects/iAMMember:IAMMember"}
    stack = Stack(name="dev", project=graph.outputs["project"], region="us-central1", number="1", composer=True)
    [condition] = [step.grant[2] for step in steps(stack) if step.grant and step.grant[1] == roles.GRANTS]
    allowed = set(re.findall(r"'((?:projects/[\w-]+/)?roles/[\w.]+)'", condition))
    assert roles.COMPOSER_WORKER in granted <= allowed
    # What a condition takes. One more role on the project means that one of these becomes part of a custom role.
    assert len(allowed) <= 10


def test_state_and_keys_of_two_stacks_are_apart() -> None:
    dev = Stack(name="dev", project="payment-audit-dev", region="us-central1", number="1")
    assert dev.state != PROD.state
    assert dev.secrets != PROD.secrets
    assert not [step for step in steps(dev) if "payment-audit-prod" in str(step)]
