"""Who reads personal data: a policy tag on the columns that identify a person, and NULL there for everybody else.

Policy tags, because they hold through views: over authorised views BigQuery asks who runs the query for the tag, and
nobody for the table. A rule on rows would hide whole payments, and a rule in the views' SQL knows no groups.
"""

from dataclasses import dataclass

import pulumi
from pulumi_gcp import bigquerydatapolicy, datacatalog

from components import naming
from components.identity import Identity
from components.settings import Settings


@dataclass(frozen=True, kw_only=True)
class PersonalDataArgs:
    settings: Settings
    accounts: Identity


class PersonalData(pulumi.ComponentResource):
    """The tag of the personal columns, or None where config names no `personalDataReaders`: then nothing is hidden."""

    tag: pulumi.Output[str] | None

    def __init__(self, name: str, args: PersonalDataArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("PersonalData"), name, {}, opts)
        self._settings = args.settings
        warehouse = args.settings.warehouse
        self.tag = None
        if warehouse.personal_data_readers:
            tag = self._tag()
            hidden = self._hidden(tag)
            accounts = args.accounts
            # Merge and backups copy rows, validation compares, erasure seeks them: masked they would be other rows.
            work: dict[str, pulumi.Input[str]] = {
                "merge": accounts.merge.member,
                "validation": accounts.validation.member,
                "backup": accounts.backup.member,
                "erasure": accounts.erasure.member,
            }
            if self._settings.console.image:
                # It shows them to whom they are shown here, and hides them from all others.
                work["console"] = accounts.console.member
            # BigQuery checks a view's query as who makes it, and refuses a column that is neither read nor masked:
            # cloud.google.com/bigquery/docs/column-data-masking-intro. No role of an administrator has either.
            deployer = f"serviceAccount:{naming.account(naming.DEPLOYER, self._settings.project)}"
            views: dict[str, pulumi.Input[str]] = {
                "deployer": deployer,
                "probe": accounts.probe.member,
                "card-search": accounts.card_search.member,
            }
            chosen = {reader: reader for reader in warehouse.personal_data_readers}
            grants: list[pulumi.CustomResource] = [
                self._grant_read(who, tag, member) for who, member in {**work, **chosen}.items()
            ]
            makers = {who: who for who in self._settings.identity.deployers}
            readers = {reader: reader for reader in (*makers, *self._settings.viewers) if reader not in chosen}
            grants += [self._grant_read_null(who, hidden, member) for who, member in {**views, **readers}.items()]
            # No column is closed before its readers may pass: the merge would fail, and so would every search.
            self.tag = pulumi.Output.all(tag.id, *(grant.id for grant in grants)).apply(lambda made: str(made[0]))
        self.register_outputs({"tag": self.tag})

    def _tag(self) -> datacatalog.PolicyTag:
        settings = self._settings
        taxonomy = datacatalog.Taxonomy(
            "personal-data",
            region=settings.warehouse.location.lower(),
            # Unique in the whole organisation.
            display_name=f"{settings.project} {settings.names.of('personal data')}",
            description="Columns of the payment audit that identify a person.",
            activated_policy_types=["FINE_GRAINED_ACCESS_CONTROL"],
            opts=pulumi.ResourceOptions(parent=self),
        )
        return datacatalog.PolicyTag(
            "personal",
            taxonomy=taxonomy.id,
            display_name="personal",
            description="Read by personalDataReaders; NULL for everybody else.",
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _hidden(self, tag: datacatalog.PolicyTag) -> bigquerydatapolicy.DataPolicy:
        """NULL rather than a hash: customer ids can be counted through, and a hash of each compared."""
        return bigquerydatapolicy.DataPolicy(
            "personal-as-null",
            location=self._settings.warehouse.location.lower(),
            data_policy_id=self._settings.names.with_underscores("personal_as_null"),
            policy_tag=tag.id,
            data_policy_type="DATA_MASKING_POLICY",
            data_masking_policy={"predefined_expression": "ALWAYS_NULL"},
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _grant_read(self, who: str, tag: datacatalog.PolicyTag, member: pulumi.Input[str]) -> pulumi.CustomResource:
        return datacatalog.PolicyTagIamMember(
            f"personal-{who}",
            policy_tag=tag.id,
            role="roles/datacatalog.categoryFineGrainedReader",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _grant_read_null(
        self, who: str, hidden: bigquerydatapolicy.DataPolicy, member: pulumi.Input[str]
    ) -> pulumi.CustomResource:
        return bigquerydatapolicy.DataPolicyIamMember(
            f"personal-as-null-{who}",
            location=hidden.location,
            data_policy_id=hidden.data_policy_id,
            role="roles/bigquerydatapolicy.maskedReader",
            member=member,
            opts=pulumi.ResourceOptions(parent=self),
        )
