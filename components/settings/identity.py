"""Who may act as the stack's service accounts, none of them with a key; who is on call; who does what at night."""

from dataclasses import dataclass
from typing import Final, Self

from components.settings.reader import Reader

_NAME: Final = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_PROJECT: Final = r"[a-z][a-z0-9-]{4,28}[a-z0-9]"
_PEOPLE: Final = (r"(group|user):[^@\s]+@[^@\s]+", "people, such as group:audit-on-call@example.com")


@dataclass(frozen=True, kw_only=True)
class IdentitySettings:
    """`kubernetes_account` is namespace/name; it and `ci_issuer` are empty where nobody comes from there.

    `on_call` looks, starts the probe and silences alerts; `drainers` may end the job, whose next one continues where it
    stopped; `dead_letter_operators` retry or discard what could not be written; `erasers` have customers erased.
    """

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

    def relations(self, read: Reader) -> None:
        if self.ci_issuer and not self.ci_condition:
            rule = "set together with ciIssuer: without it every repository of that issuer could deploy"
            read.refuse("ciCondition", rule, self.ci_condition)
        if self.kubernetes_project and not self.kubernetes_account:
            rule = "set together with kubernetesProject, or neither"
            read.refuse("kubernetesServiceAccount", rule, self.kubernetes_account)
