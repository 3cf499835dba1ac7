"""The console: a Cloud Run service that Identity-Aware Proxy alone may call, for who may open it.

Beside it the token service, which the console alone may call: a card's number becomes its tokens by the masking key,
which the console never holds. Both run from one image, and are made once there is one. Source:
cloud.google.com/run/docs/securing/identity-aware-proxy-cloud-run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import cloudrunv2, iap, organizations, projects, storage

from components import naming, run
from components.identity import Identity

# Each has a poller, and a count of its viewers' requests: a few large ones rather than many.
_MOST_INSTANCES: Final = 4
# A page that is watched is one long request: as long as Cloud Run lets it be.
_PAGE_SECONDS: Final = 3600
# A search by card is rare.
_MOST_TOKEN_INSTANCES: Final = 2
_TOKEN_SECONDS: Final = 30


@dataclass(frozen=True, kw_only=True)
class ConsoleArgs:
    """`connection` is what `audit` has to know about the stack; `needs` what must be there before the first page."""

    place: run.RunPlace
    accounts: Identity
    connection: Mapping[str, pulumi.Input[str]]
    needs: Sequence[pulumi.Resource]


class Console(pulumi.ComponentResource):
    """The services `audit-console` and `audit-card-tokens`. `url` is the console's, empty where there is none."""

    url: pulumi.Output[str]

    def __init__(self, name: str, args: ConsoleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Console"), name, {}, opts)
        self._args, self._settings = args, args.place.settings
        self.url = pulumi.Output.from_input("")
        if self._settings.console.image:
            service = self._console(self._access(), self._card_tokens())
            run.grant_call(self, "proxy", service, self._agent("iap"))
            self._let_in(service)
            for person in self._settings.identity.on_call:
                run.grant_look(self, person, service)
            self.url = service.uri
        self.register_outputs({"url": self.url})

    def _access(self) -> Sequence[pulumi.Resource]:
        """What it reads and writes in Spanner and BigQuery is granted beside these."""
        settings, member = self._settings, self._args.accounts.console.member
        return (
            storage.BucketIAMMember(
                "dead-letters-console",
                bucket=settings.names.bucket("dead-letters"),
                role="roles/storage.objectUser",
                member=member,
                opts=pulumi.ResourceOptions(parent=self, depends_on=self._args.needs),
            ),
            projects.IAMMember(
                "console-metrics",
                project=settings.project,
                role="roles/monitoring.viewer",
                member=member,
                opts=pulumi.ResourceOptions(parent=self),
            ),
        )

    def _card_tokens(self) -> cloudrunv2.Service:
        """It runs as card-search-sa, which reads the key, and does nothing else."""
        args = self._args
        service = run.service(
            self,
            args.place,
            run.RunService(
                name=naming.CARD_TOKENS,
                description="Turns a card's number into its tokens, for a search in the console",
                image=self._settings.console.image,
                module="support.console.token_service",
                account=args.accounts.card_search,
                environment={"AUDIT_CONNECTION_JSON": pulumi.Output.json_dumps(args.connection)},
                instances=(0, _MOST_TOKEN_INSTANCES),
                request_seconds=_TOKEN_SECONDS,
            ),
            args.needs,
        )
        run.grant_call(self, "console", service, args.accounts.console.member)
        return service

    def _console(self, access: Sequence[pulumi.Resource], card_tokens: cloudrunv2.Service) -> cloudrunv2.Service:
        args = self._args
        given = pulumi.Output.all(self._audience(), card_tokens.uri).apply(self._given)
        return run.service(
            self,
            args.place,
            run.RunService(
                name=naming.CONSOLE,
                description="The payment audit's console, behind Identity-Aware Proxy",
                image=self._settings.console.image,
                module="support.console",
                account=args.accounts.console,
                environment={
                    "AUDIT_CONNECTION_JSON": pulumi.Output.json_dumps(args.connection),
                    "AUDIT_CONSOLE_JSON": given,
                },
                instances=(self._settings.console.min_instances, _MOST_INSTANCES),
                request_seconds=_PAGE_SECONDS,
                proxy=True,
            ),
            [*args.needs, *access],
        )

    def _audience(self) -> pulumi.Output[str]:
        """For whom the proxy signs: this service and no other."""
        project = organizations.get_project_output(
            project_id=self._settings.project,
            opts=pulumi.InvokeOutputOptions(parent=self, depends_on=list(self._args.needs)),
        )
        place = f"/locations/{self._settings.region}/services/{self._settings.names.of(naming.CONSOLE)}"
        return pulumi.Output.concat("/projects/", project.number, place)

    def _given(self, known: Sequence[str]) -> str:
        """What support/console/cloud.py reads."""
        audience, card_tokens = known
        console = self._settings.console
        return json.dumps(
            {
                "audience": audience,
                "cardTokens": card_tokens,
                "agents": console.agents,
                "leads": console.leads,
                "personalDataReaders": self._settings.warehouse.personal_data_readers,
            }
        )

    def _let_in(self, service: cloudrunv2.Service) -> None:
        """The proxy lets in whom config names."""
        console = self._settings.console
        viewers = console.viewers or self._settings.warehouse.readers
        for person in dict.fromkeys((*viewers, *console.agents, *console.leads)):
            iap.WebCloudRunServiceIamMember(
                f"console-{person}",
                location=self._settings.region,
                cloud_run_service_name=service.name,
                role="roles/iap.httpsResourceAccessor",
                member=person,
                opts=pulumi.ResourceOptions(parent=self),
            )

    def _agent(self, service: str) -> pulumi.Output[str]:
        return pulumi.Output.concat("serviceAccount:", self._args.place.keys.agent(service))
