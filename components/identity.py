"""Who acts: one service account a role. What each may do stands beside the resource that it guards."""

from typing import Final

import pulumi
from pulumi_gcp import serviceaccount

from components import naming

_ACCOUNTS: Final = {
    "application-sa": "Services that write payments to Spanner",
    "dataflow-sa": "Workers of the streaming job",
    "merge-sa": "Scheduled merge of payment_state",
}


class Identity(pulumi.ComponentResource):
    """The service accounts of the stack. None has a key: workloads impersonate them."""

    application: serviceaccount.Account
    pipeline: serviceaccount.Account
    merge: serviceaccount.Account

    def __init__(self, name: str, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Identity"), name, {}, opts)
        accounts = {key: self._account(key, what) for key, what in _ACCOUNTS.items()}
        self.application = accounts["application-sa"]
        self.pipeline = accounts["dataflow-sa"]
        self.merge = accounts["merge-sa"]
        self.register_outputs({key: account.email for key, account in accounts.items()})

    def _account(self, key: str, what: str) -> serviceaccount.Account:
        return serviceaccount.Account(key, account_id=key, display_name=what, opts=pulumi.ResourceOptions(parent=self))
