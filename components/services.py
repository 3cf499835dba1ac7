"""The APIs of Google Cloud that the stack uses. Everything else waits for them."""

from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import projects

from components import naming
from components.settings import Settings

# Without `.googleapis.com`, and who needs it.
APIS: Final = {
    "accesscontextmanager": "the perimeter",
    "artifactregistry": "the job's image",
    "bigquery": "the warehouse",
    "bigquerydatapolicy": "what others read of personal data",
    "bigquerydatatransfer": "the scheduled merge",
    "bigquerystorage": "the job's appends",
    "billingbudgets": "the budget, where config has one",
    "cloudbuild": "the stack's triggers",
    "cloudidentity": "who is in the groups of the console's roles",
    "cloudkms": "customer-managed keys",
    "cloudresourcemanager": "grants on the project",
    "cloudscheduler": "the probe's minute, and the operations' schedules",
    "compute": "the network, and the job's workers",
    "datacatalog": "the policy tag of personal data",
    "dataflow": "the job",
    "dns": "names of Google's APIs inside the perimeter",
    "iam": "service accounts",
    "iap": "who opens the console",
    "iamcredentials": "workloads that act as an account without a key",
    "logging": "the job's logs and the audit logs",
    "monitoring": "SLOs, alerts, dashboards",
    "pubsub": "replayed payments that are handed over",
    "run": "the probe, replays, and the console",
    "secretmanager": "masking keys",
    "spanner": "the source",
    "storage": "buckets",
    "sts": "tokens of a CI outside Google",
}
# Of a stack that makes an environment of Cloud Composer.
_OF_COMPOSER: Final = {"composer": "the environment that runs the DAGs"}


def apis(composer: bool) -> dict[str, str]:
    """The APIs of a stack, which makes an environment of Cloud Composer or does not."""
    return {**APIS, **(_OF_COMPOSER if composer else {})}


# What preflight asks besides. The program uses none of these, so bootstrap alone enables them.
LOOKED_WITH: Final = ("cloudquotas", "orgpolicy", "policytroubleshooter")


@dataclass(frozen=True, kw_only=True)
class ServicesArgs:
    settings: Settings


class Services(pulumi.ComponentResource):
    """Enables the APIs. A destroyed stack leaves them on: others in the project may use them."""

    def __init__(self, name: str, args: ServicesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Services"), name, {}, opts)
        for api in apis(args.settings.orchestration.own_environment):
            projects.Service(
                api,
                project=args.settings.project,
                service=f"{api}.googleapis.com",
                disable_on_destroy=False,
                opts=pulumi.ResourceOptions(parent=self),
            )
        self.register_outputs({"apis": list(apis(args.settings.orchestration.own_environment))})
