"""Where the job's workers run: a separate network without a route in or out, except to Google's APIs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pulumi
from pulumi_gcp import compute, dns

from components import naming
from components.settings import Settings

# The domains by which a worker reaches Google, and the addresses that answer only what a perimeter may reach.
_DOMAINS: Final = {"googleapis": "googleapis.com.", "artifacts": "pkg.dev."}
_RESTRICTED: Final = ["199.36.153.4", "199.36.153.5", "199.36.153.6", "199.36.153.7"]
# Dataflow's workers shuffle data among themselves on these.
_WORKER_PORTS: Final = ["12345-12346"]


@dataclass(frozen=True, kw_only=True)
class NetworkArgs:
    """`worker`: the e-mail of the account that the job's workers run as."""

    settings: Settings
    worker: pulumi.Input[str]


class Network(pulumi.ComponentResource):
    """The subnetwork of the job: the stack's own, or one that is there already (setting `subnetwork`).

    Of the latter nothing is made, changed or granted: `python -m delivery.owners` prints what its owners run.
    `subnetwork` is as Dataflow takes it, `run_subnetwork` as Cloud Run does. `network` is the network's id, None where
    it is somebody else's.
    """

    subnetwork: pulumi.Output[str]
    run_subnetwork: pulumi.Output[str]
    network: pulumi.Output[str] | None

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(naming.component("Network"), name, {}, opts)
        self._args, self._settings = args, args.settings
        self.network = None
        given, project = args.settings.network, args.settings.project
        if given.subnetwork:
            self.subnetwork = pulumi.Output.from_input(given.url)
            self.run_subnetwork = pulumi.Output.from_input(given.place(project))
        else:
            network = self._network()
            self.network = network.id
            self.subnetwork = self._subnetwork(network)
            self._firewall(network)
            if args.settings.perimeter.on:
                self._restricted_names(network)
            self.run_subnetwork = pulumi.Output.concat(f"projects/{project}/", self.subnetwork)
        self.register_outputs({"subnetwork": self.subnetwork})

    def _network(self) -> compute.Network:
        return compute.Network(
            naming.NETWORK,
            name=self._settings.names.of(naming.NETWORK),
            auto_create_subnetworks=False,
            routing_mode="REGIONAL",
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _subnetwork(self, network: compute.Network) -> pulumi.Output[str]:
        region = self._settings.region
        subnetwork = compute.Subnetwork(
            f"{naming.NETWORK}-{region}",
            name=self._settings.names.of(f"{naming.NETWORK}-{region}"),
            network=network.id,
            region=region,
            ip_cidr_range=self._settings.network.addresses,
            private_ip_google_access=True,
            log_config={
                "aggregation_interval": "INTERVAL_5_SEC",
                "flow_sampling": 0.5,
                "metadata": "INCLUDE_ALL_METADATA",
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        if self._settings.network.nat:
            self._nat(network, subnetwork)
        return pulumi.Output.concat("regions/", region, "/subnetworks/", subnetwork.name)

    def _nat(self, network: compute.Network, subnetwork: compute.Subnetwork) -> None:
        """A route out to the internet for the workers, and none in."""
        router = compute.Router(
            naming.NETWORK,
            name=self._settings.names.of(naming.NETWORK),
            network=network.id,
            region=self._settings.region,
            opts=pulumi.ResourceOptions(parent=self),
        )
        compute.RouterNat(
            naming.NETWORK,
            name=self._settings.names.of(naming.NETWORK),
            router=router.name,
            region=self._settings.region,
            nat_ip_allocate_option="AUTO_ONLY",
            source_subnetwork_ip_ranges_to_nat="LIST_OF_SUBNETWORKS",
            subnetworks=[{"name": subnetwork.id, "source_ip_ranges_to_nats": ["PRIMARY_IP_RANGE"]}],
            log_config={"enable": True, "filter": "ERRORS_ONLY"},
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _firewall(self, network: compute.Network) -> None:
        """Workers talk to workers, and nobody else to anybody. An account cannot be put on a machine as a tag can."""
        compute.Firewall(
            "workers",
            name=self._settings.names.of(f"{naming.NETWORK}-workers"),
            network=network.id,
            direction="INGRESS",
            priority=1000,
            allows=[{"protocol": "tcp", "ports": _WORKER_PORTS}],
            source_service_accounts=[self._args.worker],
            target_service_accounts=[self._args.worker],
            opts=pulumi.ResourceOptions(parent=self),
        )
        compute.Firewall(
            "nobody-else",
            name=self._settings.names.of(f"{naming.NETWORK}-nobody-else"),
            network=network.id,
            direction="INGRESS",
            priority=65534,
            denies=[{"protocol": "all"}],
            source_ranges=["0.0.0.0/0"],
            log_config={"metadata": "INCLUDE_ALL_METADATA"},
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _restricted_names(self, network: compute.Network) -> None:
        """Inside a perimeter Google's names lead to the addresses that serve only what supports it."""
        for key, domain in _DOMAINS.items():
            zone = dns.ManagedZone(
                f"restricted-{key}",
                name=self._settings.names.of(f"restricted-{key}"),
                dns_name=domain,
                description="Leads to restricted.googleapis.com",
                visibility="private",
                private_visibility_config={"networks": [{"network_url": network.id}]},
                opts=pulumi.ResourceOptions(parent=self),
            )
            apex = "restricted.googleapis.com." if key == "googleapis" else domain
            self._record(f"restricted-{key}-addresses", zone, "A", apex, _RESTRICTED)
            self._record(f"restricted-{key}-names", zone, "CNAME", f"*.{domain}", [apex])

    def _record(self, key: str, zone: dns.ManagedZone, kind: str, name: str, values: Sequence[str]) -> None:
        dns.RecordSet(
            key,
            managed_zone=zone.name,
            name=name,
            type=kind,
            ttl=300,
            rrdatas=values,
            opts=pulumi.ResourceOptions(parent=self),
        )
