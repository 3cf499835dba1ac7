"""What the owners of a network, keys, a log bucket, accounts or a secret are to run before a stack can use them.

\b
    python -m delivery.owners -s prod > for-the-owners.sh

After bootstrap, which requests the service agents, and before the first `up`. It prints, and changes nothing: each
owner reads the part of their project and runs it. What they own is what the stack's file names: subnetwork, keyRing,
logBucket, maskingSecret, serviceAccounts. Of a database that others own: python -m delivery.schema owners.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import click

from components import naming
from components.config import stack_config
from components.logging import job_log_filter
from components.settings.identity import ACCOUNTS
from components.settings.network import NetworkSettings
from contract.errors import AuditError
from delivery.program import exit_code
from graph.google import PROJECT_NUMBER
from graph.resources import Graph, Node, graph_of
from support.cli.explained import Command

_ENCRYPTION: Final = "gcp:kms/cryptoKeyIAMMember:CryptoKeyIAMMember"
_ACTING: Final = "gcp:serviceaccount/iAMMember:IAMMember"
_READING: Final = "gcp:secretmanager/secretIamMember:SecretIamMember"
_TOKENS: Final = "roles/iam.serviceAccountTokenCreator"
# The service agents that have tokens made for an account which what they run has, and for which of the stack's.
_RUN_BY: Final[Mapping[str, frozenset[str]]] = {
    "dataflow-service-producer-prod": frozenset({"dataflow-sa", "validation-sa"}),
    "compute-system": frozenset({"dataflow-sa", "validation-sa"}),
    "serverless-robot-prod": frozenset(
        {"dataflow-sa", "probe-sa", "validation-sa", "erasure-sa", "backup-sa", "console-sa", "card-search-sa"}
        | {"launcher-sa", "schema-sa", "dead-letters-sa", "retry-sa", "starter-sa"}
    ),
    "gcp-sa-cloudscheduler": frozenset({"scheduler-sa"}),
    "gcp-sa-bigquerydatatransfer": frozenset({"merge-sa"}),
}
_HEAD: Final = """\
#!/bin/sh
# What the payment audit ({project}, stack {stack}) needs of what others own.
# For the owners of each project in it: read your part, and run it after bootstrap. It deletes nothing.
set -eu
# Who may not see the project sets NUMBER instead.
NUMBER=${{NUMBER:-$(gcloud projects describe {project} --format='value(projectNumber)')}}"""


class NothingOfOthers(AuditError):
    """A stack that makes everything itself has no owners to ask."""


@click.command(cls=Command, help=__doc__)
@click.option("-s", "--stack", required=True, help="dev, staging or prod.")
def main(stack: str) -> None:
    config = stack_config(stack)
    parts = list(script(graph_of(stack, every_grant(config)), config))
    if not parts:
        raise NothingOfOthers(
            f"one of subnetwork, keyRing, logBucket, maskingSecret and serviceAccounts must be set in "
            f"Pulumi.{stack}.yaml for this, got none of them: the stack makes its own. See docs/deployment.md."
        )
    click.echo("\n".join([_HEAD.format(project=config["project"], stack=stack), *parts]))


def script(graph: Graph, config: Mapping[str, Any] | None = None) -> Iterator[str]:
    """The commands, from a graph in which the stack makes every account, and every grant on the keys, itself.

    `config` is the stack's own, where the graph was made from another one.
    """
    config = config or graph.config
    subnetwork, bucket = places(config)
    if subnetwork:
        yield from _network(subnetwork, str(config["project"]))
    if config["keyRing"]:
        yield from _keys(graph.nodes)
    if bucket and not bucket.startswith(f"projects/{config['project']}/"):
        yield from _log_bucket(bucket, config)
    secret = str(config["maskingSecret"])
    if secret and not secret.startswith(f"projects/{config['project']}/"):
        yield from _secret(secret, graph.nodes, config)
    for name, _, email in (pair.partition("=") for pair in config["serviceAccounts"]):
        yield from _account(name, email, graph.nodes, config)


def every_grant(config: Mapping[str, Any]) -> dict[str, Any]:
    """What makes a stack's graph one in which it makes each grant itself."""
    # The network of others has no firewall by accounts.
    own: dict[str, Any] = {"serviceAccounts": [], "maskingSecret": ""}
    return own | ({"keyGrants": True} if config["keyRing"] else {})


def places(config: Mapping[str, Any]) -> tuple[str, str]:
    """Subnetwork and log bucket of others, by their full names; empty where the stack makes its own."""
    given = NetworkSettings(subnetwork=str(config["subnetwork"]), addresses="", nat=False)
    return given.place(str(config["project"])), str(config["logBucket"])


def used_keys(graph: Graph) -> list[str]:
    """The keys that the stack's stores name, by their full names."""
    found: set[str] = set()
    for node in graph.nodes:
        found |= set(
            re.findall(r"projects/[^/'\"]+/locations/[^/]+/keyRings/[\w-]+/cryptoKeys/[\w-]+", str(node.inputs))
        )
    ring = re.escape(str(graph.config["keyRing"])).replace(re.escape("{location}"), "[^/]+")
    return sorted(key for key in found if re.match(ring, key))


def _network(subnetwork: str, project: str) -> Iterator[str]:
    """Sources: cloud.google.com/dataflow/docs/guides/specifying-networks and …/routes-firewall;
    cloud.google.com/run/docs/configuring/shared-vpc-direct-vpc."""
    _, host, _, region, _, name = subnetwork.split("/")
    where = f"{name} --project={host} --region={region}"
    yield f"\n# {subnetwork}: a free /26 at least."
    yield f"gcloud compute networks subnets update {where} --enable-private-ip-google-access"
    if host != project:
        yield "# Dataflow's agent makes workers there, Cloud Run's puts services and jobs there. No account needs more."
        for agent in ("dataflow-service-producer-prod", "serverless-robot-prod"):
            yield (
                f"gcloud compute networks subnets add-iam-policy-binding {where} "
                f"--member={_agent(agent)} --role=roles/compute.networkUser"
            )
        yield (
            f"gcloud projects add-iam-policy-binding {host} --member={_agent('serverless-robot-prod')} "
            "--role=roles/compute.networkViewer --condition=None"
        )
    yield "# Workers shuffle data among themselves; Dataflow puts this tag on each. Nobody else needs to reach them."
    rule = f"audit-workers --project={host}"
    yield f"NETWORK=$(gcloud compute networks subnets describe {where} --format='value(network)')"
    yield (
        f"gcloud compute firewall-rules describe {rule} > /dev/null 2>&1 || "
        f"gcloud compute firewall-rules create {rule} "
        '--network="$NETWORK" --direction=INGRESS --allow=tcp:12345-12346 --source-tags=dataflow --target-tags=dataflow'
    )


def _keys(nodes: Sequence[Node]) -> Iterator[str]:
    """A grant for each agent on the key of its store: who may use a key, and no more."""
    yield "\n# Keys, each in the place of its store. The names are the stack's, the rotation is yours."
    grants = [node.inputs for node in nodes if node.type == _ENCRYPTION]
    for grant in sorted(grants, key=lambda grant: (str(grant["cryptoKeyId"]), str(grant["member"]))):
        member = shlex.quote(str(grant["member"])).replace(PROJECT_NUMBER, '"$NUMBER"')
        yield f"gcloud kms keys add-iam-policy-binding {grant['cryptoKeyId']} --member={member} --role={grant['role']}"


def _log_bucket(bucket: str, config: Mapping[str, Any]) -> Iterator[str]:
    """Source: cloud.google.com/logging/docs/export/configure_export_v2, destination permissions."""
    _, project, _, location, _, name = bucket.split("/")
    names = naming.Names.of_config(config)
    condition = f'title={name},expression=resource.name.endsWith("locations/{location}/buckets/{name}")'
    yield f"\n# {bucket}. What the stack sends there is lost until its project's logging agent may write."
    sink = names.of(naming.LOG_BUCKET)
    yield f"# After `up` this must be the writer that `gcloud logging sinks describe {sink}` names."
    yield (
        f"gcloud projects add-iam-policy-binding {project} --member={_agent('gcp-sa-logging')} "
        f"--role=roles/logging.bucketWriter --condition={shlex.quote(condition)}"
    )
    # A bucket of several projects has a view for each.
    view = f"{names.of(naming.JOB_LOG)}-{config['project']} --bucket={name} --location={location} --project={project}"
    shown = shlex.quote(job_log_filter(str(config["project"])))
    yield "# The view of the job's log, for who is on call."
    yield (
        f"gcloud logging views describe {view} > /dev/null 2>&1 || "
        f"gcloud logging views create {view} --log-filter={shown}"
    )
    for person in config["onCall"]:
        member = f"--member={shlex.quote(person)} --role=roles/logging.viewAccessor"
        yield f"gcloud logging views add-iam-policy-binding {view} {member}"


def _secret(secret: str, nodes: Sequence[Node], config: Mapping[str, Any]) -> Iterator[str]:
    """Who reads the masking keys. A version is 32 bytes or more: docs/operations.md says what one is for."""
    _, project, _, name = secret.split("/")
    yield f"\n# {secret}. Its versions are the masking keys: none is destroyed while rows are masked with it."
    emails = _emails(config)
    for node in nodes:
        if node.type == _READING:
            member = shlex.quote(emails.get(str(node.inputs["member"]), str(node.inputs["member"])))
            yield (
                f"gcloud secrets add-iam-policy-binding {name} --project={project} --member={member} "
                f"--role={node.inputs['role']}"
            )


def _emails(config: Mapping[str, Any]) -> dict[str, str]:
    """Each account as a member, as the stack makes it and as config has it."""
    given = naming.Names.of_config(config)
    own = replace(given, given=())
    return {f"serviceAccount:{own.account(key)}": f"serviceAccount:{given.account(key)}" for key in ACCOUNTS}


def _account(name: str, email: str, nodes: Sequence[Node], config: Mapping[str, Any]) -> Iterator[str]:
    """Who may act as an account of others. What it may do itself, the stack grants.

    Source: cloud.google.com/iam/docs/attach-service-accounts, of a resource in a different project.
    """
    emails, names = _emails(config), replace(naming.Names.of_config(config), given=())
    there, project = naming.project_of(email), str(config["project"])
    where = f"{email} --project={there}"
    yield f"\n# {email} in {there} is the stack's {name}."
    own = f"/{names.account(name)}"
    acting = [(n.inputs["role"], n.inputs["member"]) for n in nodes if n.type == _ACTING and _on(n).endswith(own)]
    if there != project:
        yield "# iam.disableCrossProjectServiceAccountUsage must not be enforced in its project."
        acting += [(_TOKENS, _agent(agent)) for agent, who in _RUN_BY.items() if name in who]
    for role, member in acting:
        quoted = member if '"$NUMBER"' in member else shlex.quote(emails.get(member, member))
        yield f"gcloud iam service-accounts add-iam-policy-binding {where} --member={quoted} --role={role}"


def _on(grant: Node) -> str:
    return str(grant.inputs["serviceAccountId"])


def _agent(service: str) -> str:
    return f'serviceAccount:service-"$NUMBER"@{service}.iam.gserviceaccount.com'


def run(args: list[str] | None = None) -> int:
    """The program: its exit code."""
    return exit_code(main, "delivery.owners", args)


if __name__ == "__main__":
    sys.exit(run())
