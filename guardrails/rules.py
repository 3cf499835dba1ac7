"""What no stack may ever break. Each rule is a plain function from a graph to the resources that break it.

A rule looks at one resource at a time, so it also holds for a graph of one: the policy pack (`guardrails/__main__.py`)
hands it each resource before Pulumi makes it. Its docstring is what the person reads who broke it: the rule, and the
remedy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from components import naming
from contract.options import NO_EXCEPTION_SAMPLING, OPTIONS
from graph.google import import_id
from graph.resources import Graph, Node
from guardrails.stores import deletion_refused, holds_data

Rule = Callable[[Graph], Iterator[str]]

# Roles that Google grants on a project alone, and what they are for.
PROJECT_ROLES: Final[Mapping[str, str]] = {
    "roles/bigquery.jobUser": "a query is a job of a project",
    "roles/composer.worker": "Google looks for it on the project; a condition leaves it one bucket",
    "roles/dataflow.developer": "a job belongs to a project",
    "roles/dataflow.viewer": "a job belongs to a project",
    "roles/logging.viewer": "the Logs Explorer, and logs that are in none of our buckets, belong to a project",
    "roles/monitoring.metricWriter": "a series belongs to a project",
    "roles/monitoring.viewer": "dashboards, alerts and series belong to a project",
}
# Custom roles of the stack's project, and why none of Google's does. Bootstrap makes them: whoever can change a role
# that the deployer may grant could make itself owner by it.
OWN_ROLES: Final[Mapping[str, str]] = {
    naming.DRAINER: "ends a job; Google's smallest role for that starts jobs too",
    naming.WORKER: "leases work; Google's role for that reads and writes every bucket of the project",
    naming.ON_CALL: "sees the job, looks where Google's smallest roles also change things, silences alerts",
}
# Administrators by name, (principal, role), and why no smaller role does.
ADMINS: Final[Mapping[tuple[str, str], str]] = {}

# Where each kind says its key: the input, or the word that every replica must have. The word is looked for inside.
KEYS: Final[Mapping[str, str]] = {
    "gcp:spanner/database:Database": "encryptionConfig",
    "gcp:spanner/backupSchedule:BackupSchedule": "encryptionConfig",
    "gcp:bigquery/dataset:Dataset": "defaultEncryptionConfiguration",
    "gcp:storage/bucket:Bucket": "encryption",
    "gcp:secretmanager/secret:Secret": "replication",
    "gcp:dataflow/flexTemplateJob:FlexTemplateJob": "kmsKeyName",
    "gcp:artifactregistry/repository:Repository": "kmsKeyName",
    "gcp:logging/projectBucketConfig:ProjectBucketConfig": "cmekSettings",
    "gcp:pubsub/topic:Topic": "kmsKeyName",
    "gcp:cloudrunv2/job:Job": "template",
    "gcp:cloudrunv2/service:Service": "template",
    "gcp:composer/environment:Environment": "config",
}
# Kinds with such an input that need no separate key, and why.
KEYS_ELSEWHERE: Final[Mapping[str, str]] = {
    "gcp:bigquery/table:Table": "a table is encrypted with its dataset's key",
    "gcp:bigquery/dataTransferConfig:DataTransferConfig": "a scheduled script has none, and its tables have one",
    "gcp:storage/bucketObject:BucketObject": "an object is encrypted with its bucket's key",
}
# Labels that the provider does not put on by itself: it knows only `labels`.
_OWN_LABELS: Final[Mapping[str, str]] = {
    "gcp:monitoring/alertPolicy:AlertPolicy": "userLabels",
    "gcp:monitoring/notificationChannel:NotificationChannel": "userLabels",
    "gcp:monitoring/slo:Slo": "userLabels",
    "gcp:monitoring/customService:CustomService": "userLabels",
}
_LABELS: Final = ("service", "stack", "managed-by")

# Kinds of which a project has one, or one for each service: who writes it writes all of it.
ONCE_IN_A_PROJECT: Final = ("IAMAuditConfig", "ServicePerimeter", "Budget")
# Kinds that several stacks of a project have as one, and why none of them takes it from another.
SHARED_IN_A_PROJECT: Final[Mapping[str, str]] = {
    "gcp:projects/service:Service": "an API stays on when a stack is destroyed",
    "gcp:projects/serviceIdentity:ServiceIdentity": "Google makes a service's agent once, and nothing deletes it",
}

# Inputs of a Dataflow job that hold Beam's options. In the first two an item is one; else it is a name with its value.
_BEAM_S: Final = ("additionalExperiments", "additionalPipelineOptions", "parameters", "workload")
_PLAIN: Final = _BEAM_S[:2]
_LAUNCH_OPTIONS: Final = frozenset(option.name for option in OPTIONS)


def no_primitive_role(graph: Graph) -> Iterator[str]:
    """Owner, editor and viewer reach everything in a project. Grant the role of the one task, on the one resource."""
    for node, role in _roles(graph):
        if role in {"roles/owner", "roles/editor", "roles/viewer"}:
            yield f"{node.id}: {role}"


def no_admin_role(graph: Graph) -> Iterator[str]:
    """An administrator's role grants itself more. Take a smaller role, or name and explain it in ADMINS."""
    for node, role in _roles(graph):
        if re.search(r"admin|roles/iam\.security", role, re.I) and (_principal(node), role) not in ADMINS:
            yield f"{node.id}: {role}"


def payments_of_others_stay_theirs(graph: Graph) -> Iterator[str]:
    """A stack makes no Spanner database but audit-db and audit-metadata: name another in the config, for its owners."""
    names = naming.Names.of_config(graph.config)
    own = (names.of(naming.INSTANCE), names.of(naming.METADATA_INSTANCE), None, UNKNOWN)
    for node in graph.nodes:
        if not node.type.startswith("gcp:spanner/"):
            continue
        name, instance = node.inputs.get("name"), node.inputs.get("instance")
        if node.kind == "Instance":
            theirs = name not in own
        else:
            database = name if node.kind == "Database" else node.inputs.get("database")
            # The audit's own metadata may be in an instance of others.
            theirs = database not in (names.of(naming.METADATA_DATABASE), UNKNOWN) and (
                database != names.of(naming.AUDIT_DATABASE) or instance not in own
            )
        if theirs:
            yield node.id


def what_a_project_has_once_is_of_one_stack(graph: Graph) -> Iterator[str]:
    """Two stacks that write it undo each other's. Leave it to the stack of the project that has projectWide true."""
    if str(graph.config.get("projectWide", True)).lower() == "false":
        yield from (node.id for node in graph.nodes if node.kind in ONCE_IN_A_PROJECT)


def names_have_the_stack_s_prefix(graph: Graph) -> Iterator[str]:
    """Without it a stack beside this one would take the resource, or get a 409. Name it by settings.names."""
    names = naming.Names.of_config(graph.config)
    for node in graph.nodes if names.prefix else ():
        id = import_id(names.project, node.type, node.inputs) if node.type not in SHARED_IN_A_PROJECT else None
        if any(f"/datasets/{dataset}/" in (id or "") for dataset in graph.config.get("existingDatasets") or ()):
            continue
        if id and UNKNOWN not in id and not re.search(rf"\b({names.of('')}|{names.with_underscores('')})", id):
            yield f"{node.id}: {id}"


def nobody_is_everybody(graph: Graph) -> Iterator[str]:
    """Everybody on the internet is in allUsers and allAuthenticatedUsers. Name a group or an account."""
    for node in graph.nodes:
        if re.search(r"allUsers|allAuthenticatedUsers", str(dict(node.inputs))):
            yield node.id


def grants_are_members(graph: Graph) -> Iterator[str]:
    """A binding or a policy takes away what others granted on the same resource. Use the kind that ends in Member."""
    for node in graph.nodes:
        # An audit config says what is logged for its one service; that of all services would undo others' settings.
        everything = node.kind == "IAMAuditConfig" and node.inputs.get("service") == "allServices"
        if everything or re.search(r"I(AM|am)(Binding|Policy)$", node.type):
            yield node.id


def grants_are_on_one_resource(graph: Graph) -> Iterator[str]:
    """A role on a project reaches what will be made later. Grant it on the resource, or explain it in PROJECT_ROLES."""
    for node, role in _roles(graph):
        known = role in PROJECT_ROLES or re.sub(r"^projects/[^/]+/roles/", "", role) in OWN_ROLES
        if node.type.startswith(("gcp:projects", "gcp:folder", "gcp:organizations")) and not known:
            yield f"{node.id}: {role}"


def no_key_of_a_service_account(graph: Graph) -> Iterator[str]:
    """A key can be copied and does not expire. Let the workload impersonate the account."""
    yield from (node.id for node in graph.nodes if node.type == "gcp:serviceaccount/key:Key")


def datasets_say_who_reads(graph: Graph) -> Iterator[str]:
    """Without a list a dataset lets every viewer of the project read. List accounts and groups, and no project's."""
    for node in graph.nodes:
        accesses = node.inputs.get("accesses")
        if node.kind == "Dataset" and (not accesses or "specialGroup" in str(accesses)):
            yield node.id


def buckets_are_private(graph: Graph) -> Iterator[str]:
    """A bucket has uniform access and enforced prevention of public access: one object cannot be let out by its ACL."""
    for node in graph.of("Bucket"):
        private = node.inputs.get("publicAccessPrevention") == "enforced"
        if not (private and node.inputs.get("uniformBucketLevelAccess") is True):
            yield node.id


def dead_letters_are_kept_a_week(graph: Graph) -> Iterator[str]:
    """A dead letter is kept 7 days or longer, so that a weekend does not lose it. Set dlqRetentionDays."""
    for node in graph.of("Bucket"):
        conditions = [rule.get("condition") or {} for rule in node.inputs.get("lifecycleRules") or []]
        ages = [condition["age"] for condition in conditions if "age" in condition]
        if node.name == "dead-letters" and not (ages and min(ages) >= 7):
            yield node.id


def no_public_address(graph: Graph) -> Iterator[str]:
    """Nothing has an address on the internet or a firewall open to it. Use private addresses, Private Google Access."""
    for node in graph.nodes:
        if any(is_open(node.inputs) for kind, is_open in _OPEN.items() if node.type == kind):
            yield node.id


def services_are_behind_a_proxy(graph: Graph) -> Iterator[str]:
    """Other networks reach a service through Identity-Aware Proxy alone, and IAM checks who calls. Set iapEnabled."""
    for node in graph.nodes:
        if node.type != "gcp:cloudrunv2/service:Service":
            continue
        internal = node.inputs.get("ingress") == "INGRESS_TRAFFIC_INTERNAL_ONLY"
        if node.inputs.get("invokerIamDisabled") or not (node.inputs.get("iapEnabled") is True or internal):
            yield node.id


def keys_are_our_own(graph: Graph) -> Iterator[str]:
    """What takes a customer-managed key has one. Give it its key; only dev may turn customerManagedKeys off."""
    if graph.stack == "dev" and graph.config.get("customerManagedKeys") in (False, "false"):
        return
    for node in graph.nodes:
        if node.type in KEYS and not _has_key(node.inputs.get(KEYS[node.type])):
            yield node.id


def nothing_that_holds_data_can_be_deleted_in_prod(graph: Graph) -> Iterator[str]:
    """In prod a store refuses deletion by its own switches and by protect. Set both from deletionProtection."""
    if graph.stack != "prod":
        return
    for node in graph.nodes:
        store = holds_data(node.type, node.name, node.inputs)
        if store and not (node.protect and deletion_refused(node.type, node.inputs)):
            yield node.id


def everything_is_where_the_stack_is(graph: Graph) -> Iterator[str]:
    """A resource is in the region or a location that the config names. Give it one: a default may be elsewhere."""
    named = {
        place
        for key, value in graph.config.items()
        if key.lower().endswith(("region", "regions", "location"))
        for place in (value if isinstance(value, list) else [str(value)])
    }
    # Cloud KMS writes US as us, and EU as europe.
    named |= {place.lower() for place in named}
    named |= {"europe"} if "eu" in named else set()
    region = graph.config.get("region")
    # An image repository may be in another region, and in another project: config names it with the image.
    images = [text for text in map(str, graph.config.values()) if "-docker.pkg.dev/" in text]
    registries = {region for text in images for region in re.findall(r"([a-z0-9-]+)-docker\.pkg\.dev/", text)}
    # So may a log bucket of others.
    log_buckets = set(re.findall(r"/locations/([a-z0-9-]+)/", str(graph.config.get("logBucket"))))
    elsewhere = {"gcp:artifactregistry": registries, "gcp:logging": log_buckets}
    for node in graph.nodes:
        known = {*named, *elsewhere.get(node.type.partition("/")[0], ()), "global", UNKNOWN}
        for key in ("location", "region"):
            place = node.inputs.get(key)
            if node.type.startswith("gcp:") and place and place not in known:
                yield f"{node.id}: {key} {place}"
        config = str(node.inputs.get("config")) if node.type == "gcp:spanner/instance:Instance" else ""
        if config.startswith("regional-") and config != f"regional-{region}":
            yield f"{node.id}: config {config}"


def everything_is_labelled(graph: Graph) -> Iterator[str]:
    """Costs and owners are found by labels: service, stack, managed-by. The stack's provider puts them on."""
    for node in graph.nodes:
        key = "defaultLabels" if node.type == "pulumi:providers:gcp" else _OWN_LABELS.get(node.type)
        if key and not set(_LABELS) <= set(_mapping(node.inputs.get(key))):
            yield node.id


def everything_uses_the_stack_s_provider(graph: Graph) -> Iterator[str]:
    """A default provider takes project and region from whoever runs Pulumi. Pass the component's options on."""
    for node in graph.nodes:
        if node.type.startswith("gcp:") and "pulumi:providers:gcp::google" not in node.provider:
            yield node.id


def everything_is_in_a_component(graph: Graph) -> Iterator[str]:
    """A resource is a child of the component that it belongs to, or nobody finds it in a preview. Set its parent."""
    for node in graph.nodes:
        if node.type.startswith("gcp:") and "payment-audit:components:" not in node.parent:
            yield node.id


def no_element_is_sampled(graph: Graph) -> Iterator[str]:
    """Dataflow keeps samples of elements, cards included: give every job disable_always_on_exception_sampling alone."""
    for node in graph.nodes:
        if not node.type.startswith("gcp:dataflow/"):
            continue
        asked = [text for name in _BEAM_S for text in _asked_of_beam(name, node.inputs.get(name))]
        # However it is written: enable_data_sampling, --experiments=…, dataSamplingEnabled.
        letters = [re.sub(r"[^a-z]", "", text.lower()) for text in asked]
        if any(re.search(r"datasampling|enablealwayson", text) for text in letters):
            yield f"{node.id}: sampling is enabled"
        elif NO_EXCEPTION_SAMPLING not in asked and UNKNOWN not in asked:
            yield f"{node.id}: without {NO_EXCEPTION_SAMPLING}"


RULES: Final[tuple[Rule, ...]] = (
    no_primitive_role,
    no_admin_role,
    payments_of_others_stay_theirs,
    what_a_project_has_once_is_of_one_stack,
    names_have_the_stack_s_prefix,
    nobody_is_everybody,
    grants_are_members,
    grants_are_on_one_resource,
    no_key_of_a_service_account,
    datasets_say_who_reads,
    buckets_are_private,
    dead_letters_are_kept_a_week,
    no_public_address,
    services_are_behind_a_proxy,
    no_element_is_sampled,
    keys_are_our_own,
    nothing_that_holds_data_can_be_deleted_in_prod,
    everything_is_where_the_stack_is,
    everything_is_labelled,
    everything_uses_the_stack_s_provider,
    everything_is_in_a_component,
)

# A value that is not known before its resource is made. A rule lets it pass, and sees the real one in `up`.
UNKNOWN: Final = "(known after up)"

_OPEN: Final[Mapping[str, Callable[[Mapping[str, Any]], bool]]] = {
    "gcp:dataflow/flexTemplateJob:FlexTemplateJob": lambda job: job.get("ipConfiguration") != "WORKER_IP_PRIVATE",
    "gcp:compute/instance:Instance": lambda vm: "accessConfigs" in str(vm.get("networkInterfaces")),
    "gcp:compute/address:Address": lambda address: address.get("addressType", "EXTERNAL") == "EXTERNAL",
    "gcp:compute/globalAddress:GlobalAddress": lambda address: address.get("addressType", "EXTERNAL") == "EXTERNAL",
    "gcp:compute/firewall:Firewall": lambda wall: (
        bool(wall.get("allows"))
        and wall.get("direction", "INGRESS") == "INGRESS"
        and bool({"0.0.0.0/0", "::/0"} & set(wall.get("sourceRanges") or []))
    ),
    "gcp:cloudbuild/workerPool:WorkerPool": lambda pool: (
        _mapping(pool.get("workerConfig")).get("noExternalIp") is not True
    ),
}


def _asked_of_beam(name: str, value: Any) -> Iterator[str]:
    """Every text of a job's inputs that is or may be an option of Beam's; our own launch options are not."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key not in _LAUNCH_OPTIONS:
                yield from _asked_of_beam(key, each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _asked_of_beam(name, each)
    elif value not in (None, False, "false"):
        yield f"{name}={value}" if name not in _PLAIN else str(value)


def _has_key(value: Any) -> bool:
    """Whether a key is named in every place that takes one: a replicated secret has one for each replica."""
    if isinstance(value, str):
        return bool(value)
    replicas = _mapping(_mapping(value).get("userManaged")).get("replicas")
    if replicas:
        return all("kmskeyname" in str(replica).lower() for replica in replicas)
    # A backup may take the key of its database, which this rule looks at too.
    return re.search(r"kmskeyname|encryptionkey|use_database_encryption", str(value).lower()) is not None


def _roles(graph: Graph) -> Iterator[tuple[Node, str]]:
    yield from ((node, node.inputs["role"]) for node in graph.nodes if "role" in node.inputs)


def _principal(node: Node) -> str:
    """`dataflow-sa` of the account's e-mail; anything else as it is."""
    return str(node.inputs.get("member", "")).removeprefix("serviceAccount:").partition("@")[0]


def _mapping(value: Any) -> Mapping[str, Any]:
    """What is in it. A provider gets its own inputs as JSON."""
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    return value if isinstance(value, Mapping) else {}
