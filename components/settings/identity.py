"""Who may act as the stack's service accounts, none of them with a key; who is on call; who does what at night."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from components import naming
from components.settings.reader import Reader

_NAME: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PROJECT: Final = r"[a-z][a-z0-9-]{4,28}[a-z0-9]"
# What the stack's accounts are called, in its config too, and what each is for.
ACCOUNTS: Final[Mapping[str, str]] = {
    "application-sa": "Services that write payments to Spanner",
    "dataflow-sa": "Workers of the streaming job",
    "launcher-sa": "Keeps the tables and the streaming job, and launches it from its template",
    "merge-sa": "Scheduled merge of payment_state",
    "probe-sa": "Measures latency and throughput from outside the job",
    "console-sa": "Support console",
    "card-search-sa": "Turns a card number into its token, for a search",
    "backup-sa": "Makes and tries backups of BigQuery",
    "validation-sa": "Replay and validation: compares Spanner with BigQuery and repairs",
    "erasure-sa": "Redacts customers who are to be erased",
    "schema-sa": "Compares the source's schema with what it must be",
    "dead-letters-sa": "Counts dead letters by reason and age",
    "retry-sa": "Gives parked dead letters back to the job",
    "scheduler-sa": "Cloud Scheduler, when it calls the starter",
    "starter-sa": "Starts the jobs that have a schedule",
}
_GIVEN: Final = (
    rf"({'|'.join(ACCOUNTS)})=[a-z][a-z0-9-]{{4,28}}[a-z0-9]@[a-z][a-z0-9-]{{4,28}}[a-z0-9]\.iam\.gserviceaccount\.com",
    f"NAME=E-MAIL of a service account that is there, NAME one of {', '.join(ACCOUNTS)}",
)
_PEOPLE: Final = (r"(group|user):[^@\s]+@[^@\s]+", "people, such as group:audit-on-call@example.com")


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """`kubernetes_account` is namespace/name; it and `ci_issuer` are empty where nobody comes from there.

    `on_call` looks, starts the probe and silences alerts; `drainers` may end the job, whose next one continues where it
    stopped; `dead_letter_operators` retry or discard what could not be written; `erasers` have customers erased.

    `given`: e-mails of accounts that others own, by the names of those that the stack then does not make.
    """

    given: Mapping[str, str]

    kubernetes_account: str
    kubernetes_project: str
    ci_issuer: str
    ci_condition: str
    deployers: tuple[str, ...]
    on_call: tuple[str, ...]
    drainers: tuple[str, ...]
    dead_letter_operators: tuple[str, ...]
    erasers: tuple[str, ...]

    @classmethod
    def read(cls, read: Reader) -> Self:
        return cls(
            given=_given(read),
            kubernetes_account=read.text(
                "kubernetesServiceAccount", rf"|{_NAME}/{_NAME}", "empty or namespace/name of a service account"
            ),
            kubernetes_project=read.text("kubernetesProject", rf"|{_PROJECT}", "empty or a Google Cloud project id"),
            ci_issuer=read.text("ciIssuer", r"|https://[\w./-]+", "empty or the https:// URL of an OIDC issuer"),
            ci_condition=read.text(
                "ciCondition",
                r"|.*\bassertion\.\w+.*",
                "empty or a condition on the token's claims, such as assertion.repository == 'org/repo'",
            ),
            deployers=read.texts(
                "deployers", r"(group|user|serviceAccount):[^@\s]+@[^@\s]+", "members such as user:ops@example.com"
            ),
            on_call=read.texts("onCall", *_PEOPLE),
            drainers=read.texts("drainers", *_PEOPLE),
            dead_letter_operators=read.texts("deadLetterOperators", *_PEOPLE),
            erasers=read.texts("erasers", *_PEOPLE),
        )

    def relations(self, read: Reader, project: str, own_network: bool) -> None:
        if own_network and (worker := self.given.get("dataflow-sa")) and naming.project_of(worker) != project:
            # cloud.google.com/firewall/docs/firewalls, service accounts.
            rule = (
                "one of the stack's project for dataflow-sa, unless subnetwork names a network of others: the "
                "firewall of a network that the stack makes lets workers in by their account, one of that project"
            )
            read.refuse("serviceAccounts", rule, worker)
        if self.ci_issuer and not self.ci_condition:
            rule = "set together with ciIssuer: without it every repository of that issuer could deploy"
            read.refuse("ciCondition", rule, self.ci_condition)
        if self.kubernetes_project and not self.kubernetes_account:
            rule = "set together with kubernetesProject, or neither"
            read.refuse("kubernetesServiceAccount", rule, self.kubernetes_account)


def _given(read: Reader) -> Mapping[str, str]:
    """Each name once and each account once: two tasks of one account would have each other's rights."""
    pairs = [pair.split("=") for pair in read.texts("serviceAccounts", *_GIVEN)]
    for place, what in ((0, "name"), (1, "account")):
        found = [pair[place] for pair in pairs]
        if twice := sorted({each for each in found if found.count(each) > 1}):
            read.refuse("serviceAccounts", f"a list with each {what} once", ", ".join(twice))
    return dict(pairs)
