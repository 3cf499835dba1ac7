"""The Cloud Build files, as Google's own client reads them, and an image's way to prod through their scripts."""

from __future__ import annotations

import copy
import graphlib
import importlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from google.cloud.devtools import cloudbuild_v1
from google.protobuf import json_format

from components.config import ROOT, stack_config
from components.settings import Settings, SettingsError
from graph.resources import IMAGE as STREAM_IMAGE
from graph.resources import Graph
from guardrails.rules import RULES
from tests.infra.graphs import graph_of

FILES = ("delivery/cloudbuild.preview.yaml", "delivery/cloudbuild.yaml")
# What Cloud Build fills in for a build that a trigger starts.
BUILT_IN = {"COMMIT_SHA", "PROJECT_ID", "BUILD_ID", "LOCATION", "REPO_NAME", "BRANCH_NAME"}
COMMIT = "3f2c9d1e5b7a4c6d8e0f1a2b3c4d5e6f7a8b9c0d"
IMAGE = "us-central1-docker.pkg.dev/audit-images/audit/audit-stream-job"

Build = dict[str, Any]


def read(file: str) -> Build:
    content: Build = yaml.safe_load((ROOT / file).read_text())
    return content


def script(build: Build, step: str) -> str:
    [found] = [each["script"] for each in build["steps"] if each["id"] == step]
    return str(found)


# ---------------------------------------------------------------------- the files


def problems(build: Build) -> Iterator[str]:
    """What is wrong with a build, by Cloud Build's own rules and ours."""
    parsed = cloudbuild_v1.Build(json_format.ParseDict(build, cloudbuild_v1.Build.pb(cloudbuild_v1.Build())))
    yield from _order(parsed)
    yield from _substitutions(build, parsed)
    yield from _secrets(parsed)
    for step in parsed.steps:
        checked = subprocess.run(["bash", "-n"], input=step.script, text=True, capture_output=True, check=False)
        if checked.returncode or not step.script.startswith("#!/usr/bin/env bash\nset -euo pipefail\n"):
            yield f"{step.id}: the script must be bash that stops at an error"
        yield from (f"{step.id}: {problem}" for problem in _commands(step.script))


def _order(build: Any) -> Iterator[str]:
    there: set[str] = set()
    for step in build.steps:
        if not step.wait_for:
            yield f"{step.id} must say what it waits for"
        for name in step.wait_for:
            if name not in {"-", *there}:
                yield f"{step.id} waits for {name}, which is not before it"
        if step.id in there:
            yield f"{step.id} is there twice"
        there.add(step.id)


def _substitutions(build: Build, parsed: Any) -> Iterator[str]:
    declared = set(build.get("substitutions", {}))
    used: set[str] = set()
    for step in parsed.steps:
        if "$$" in step.script:
            yield f"{step.id}: $$ in a script is a process id; Cloud Build replaces nothing in scripts"
        assigned = set(re.findall(r"^\s*(?:\[.*\|\| )?(\w+)=", step.script, re.M))
        named = set(re.findall(r"\$\{?(\w+)", step.script)) - assigned
        used |= named
        yield from (f"{step.id}: ${name} is not declared" for name in sorted(named - declared - BUILT_IN))
    rest = {key: value for key, value in build.items() if key not in ("steps", "substitutions")}
    texts = json.dumps([rest, [{k: v for k, v in step.items() if k != "script"} for step in build["steps"]]])
    named = set(re.findall(r"(?<!\$)\$\{?(\w+)", texts))
    used |= named
    yield from (f"${name} is not declared" for name in sorted(named - declared - BUILT_IN))
    yield from (f"{name} is declared and not used" for name in sorted(declared - used))
    yield from (f"{name}: a substitution of ours begins with _" for name in sorted(declared) if name[0] != "_")


def _secrets(build: Any) -> Iterator[str]:
    declared = {secret.env for secret in build.available_secrets.secret_manager}
    used = {name for step in build.steps for name in step.secret_env}
    yield from (f"{name} is not among availableSecrets" for name in sorted(used - declared))
    yield from (f"{name} is a secret that no step uses" for name in sorted(declared - used))


def _commands(text: str) -> Iterator[str]:
    """Commands that are not there, by their own parsers; files that are not there."""
    lines = [re.sub(r'"?\$\{?\w+\}?"?', "prod", line.partition(" > ")[0]).split() for line in text.splitlines()]
    for words in filter(None, lines):
        if words[0] == "make":
            made = subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, capture_output=True, check=False)
            if made.returncode:
                yield f"make {words[1]} is not there"
        if words[:2] == [".venv/bin/python", "-m"]:
            yield from _module(words[2], words[3:])
        for word in words:
            file = re.fullmatch(r"(?!\.venv/|/)[\w./-]+/[\w.-]+", word)
            if file and not (ROOT / word).exists():
                yield f"{word} is not there"


def _module(name: str, arguments: list[str]) -> Iterator[str]:
    try:
        main = importlib.import_module(name).main
    except ImportError:
        yield f"python -m {name} is not there"
        return
    # --help last: the parser has read what is before it, and refuses the unknown.
    shown = CliRunner().invoke(main, [*arguments, "--help"])
    if shown.exit_code:
        yield f"python -m {name} {' '.join(arguments)}: {shown.output.splitlines()[-1]}"


@pytest.mark.parametrize("file", FILES)
def test_the_file_is_a_build_whose_every_step_can_run(file: str) -> None:
    assert list(problems(read(file))) == []


def _step(name: str, **changed: Any) -> Callable[[Build], None]:
    def change(build: Build) -> None:
        [step] = [each for each in build["steps"] if each["id"] == name]
        step.update(changed)

    return change


def _script(name: str, old: str, new: str) -> Callable[[Build], None]:
    def change(build: Build) -> None:
        [step] = [each for each in build["steps"] if each["id"] == name]
        assert old in step["script"]
        step["script"] = step["script"].replace(old, new)

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_step("push", waitFor=["lint", "test"]), "push waits for test, which is not before it"),
        (_step("lint", waitFor=["pipeline"]), "lint waits for pipeline, which is not before it"),
        (_step("lint", waitFor=[]), "lint must say what it waits for"),
        (_step("lint", id="setup"), "setup is there twice"),
        (_script("image", "$COMMIT_SHA", "$COMIT_SHA"), "image: $COMIT_SHA is not declared"),
        (_script("image", "$_IMAGE", "$$_IMAGE"), "image: $$ in a script is a process id"),
        (_script("smoke", "$_REGION", "us-central1"), "_REGION is declared and not used"),
        (lambda build: build["options"]["env"].append("A=$_NOBODY"), "$_NOBODY is not declared"),
        (lambda build: build["substitutions"].update(STACK="dev"), "STACK: a substitution of ours begins with _"),
        (_step("push", secretEnv=["TOKEN"]), "TOKEN is not among availableSecrets"),
        (
            lambda build: build.update(
                availableSecrets={"secretManager": [{"versionName": "projects/p/secrets/s/versions/1", "env": "T"}]}
            ),
            "T is a secret that no step uses",
        ),
        (_script("lint", "make lint", "make lnt"), "lint: make lnt is not there"),
        (_script("smoke", "delivery.smoke", "delivery.smok"), "smoke: python -m delivery.smok is not there"),
        (_script("smoke", "--wait", "--await"), "smoke: python -m delivery.smoke"),
        (_script("foundation", "deploy up", "deploy upp"), "foundation: python -m delivery.deploy upp"),
        (_script("image", "pipeline/image/Dockerfile", "pipeline/Dockerfile"), "pipeline/Dockerfile is not there"),
        (_script("lint", "make lint", "if make lint"), "lint: the script must be bash that stops at an error"),
        (_script("lint", "set -euo pipefail", "set -u"), "lint: the script must be bash that stops at an error"),
    ],
)
def test_what_is_wrong_with_a_file_is_found(change: Callable[[Build], None], problem: str) -> None:
    build = copy.deepcopy(read("delivery/cloudbuild.yaml"))
    change(build)
    assert any(problem in found for found in problems(build)), list(problems(build))


@pytest.mark.parametrize("file", FILES)
def test_a_key_that_cloud_build_does_not_know_is_refused(file: str) -> None:
    build = read(file)
    build["steps"][0]["wait_four"] = ["-"]
    with pytest.raises(json_format.ParseError):
        list(problems(build))


def before(build: Build) -> dict[str, set[str]]:
    """What has ended when a step begins."""
    waits = {step["id"]: set(step["waitFor"]) - {"-"} for step in build["steps"]}
    ended: dict[str, set[str]] = {}
    for step in graphlib.TopologicalSorter(waits).static_order():
        ended[step] = set().union(*({name} | ended[name] for name in waits[step]), set())
    return ended


def test_a_merge_goes_in_the_promised_order() -> None:
    ended = before(read("delivery/cloudbuild.yaml"))
    order = ["push", "template", "foundation", "schema", "verify", "dry-run", "pipeline", "dags", "smoke", "passed"]
    for earlier, later in itertools.pairwise(order):
        assert earlier in ended[later]
    assert {"lint", "tests", "image"} <= ended["push"]


def test_checks_and_image_are_made_side_by_side() -> None:
    ended = before(read("delivery/cloudbuild.yaml"))
    assert ended["image"] == set()
    assert ended["lint"] == ended["tests"] == {"setup"}


def test_a_preview_changes_nothing() -> None:
    build = read("delivery/cloudbuild.preview.yaml")
    text = "\n".join(step["script"] for step in build["steps"])
    assert re.findall(r"delivery\.deploy (\w+)", text) == ["preview"]
    assert "docker" not in text
    assert "preview" not in before(build)["tests"]


@pytest.mark.parametrize("step", ["foundation", "pipeline"])
def test_a_deploy_that_changed_something_is_no_failure(step: str) -> None:
    [found] = [each for each in read("delivery/cloudbuild.yaml")["steps"] if each["id"] == step]
    assert found["allowExitCodes"] == [2]


# ---------------------------------------------------------------------- an image on its way


class Delivery:
    """A checkout with the stacks' files, and a registry in a file, which two small programs keep: docker and gcloud."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkout"
        self.registry = folder / "registry.json"
        self.registry.write_text("{}")
        self.calls = folder / "calls"
        self.programs = folder / "programs"
        self.programs.mkdir()
        self.folder.mkdir()
        for name in (".venv", "delivery", "pipeline"):
            (self.folder / name).symlink_to(ROOT / name)
        for file in ROOT.glob("Pulumi*.yaml"):
            shutil.copy(file, self.folder)
        for name in ("docker", "gcloud"):
            (self.programs / name).write_text(f"#!{sys.executable}\n{REGISTRY}")
            (self.programs / name).chmod(0o755)

    def run(self, step: str, file: str = "delivery/cloudbuild.yaml", **values: str) -> subprocess.CompletedProcess[str]:
        """A step's script, with its build's substitutions as variables, as automapSubstitutions gives them."""
        build = read(file)
        given = {**build["substitutions"], "_IMAGE": IMAGE, "COMMIT_SHA": COMMIT, **values}
        environment = {
            **os.environ, **given, "PATH": f"{self.programs}:{os.environ['PATH']}",
            "REGISTRY": str(self.registry), "CALLS": str(self.calls),
        }  # fmt: skip
        return subprocess.run(
            ["bash"], input=script(build, step), cwd=self.folder, env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip

    def through(self, *steps: str, **values: str) -> None:
        for step in steps:
            done = self.run(step, **values)
            assert done.returncode == 0, f"{step}: {done.stdout}{done.stderr}"

    def image(self, stack: str, setting: str = "image") -> str:
        config = yaml.safe_load((self.folder / f"Pulumi.{stack}.yaml").read_text())["config"]
        return str(config[f"payment-audit:{setting}"])

    @property
    def tags(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.registry.read_text())
        return found


# What the scripts ask of docker and gcloud, and nothing else: anything else ends with an error.
REGISTRY = """
import hashlib, json, os, sys
file, words = os.environ["REGISTRY"], sys.argv[1:]
tags = json.load(open(file))
with open(os.environ["CALLS"], "a") as calls:
    calls.write(" ".join([os.path.basename(sys.argv[0]), *words]) + "\\n")
if words[0] == "build":
    pass
elif words[0] == "push":
    tags[words[1]] = "sha256:" + hashlib.sha256(words[1].encode()).hexdigest()
elif words[:4] == ["artifacts", "docker", "images", "describe"]:
    if words[4] not in tags:
        sys.exit("ERROR: (gcloud.artifacts.docker.images.describe) Image not found.")
    print(tags[words[4]])
elif words[:4] == ["artifacts", "docker", "tags", "add"]:
    tags[words[5]] = words[4].partition("@")[2]
else:
    sys.exit(f"what is {words}?")
json.dump(tags, open(file, "w"))
"""


@pytest.fixture
def delivery(tmp_path: Path) -> Delivery:
    return Delivery(tmp_path)


def test_prod_gets_the_digest_that_passed_in_staging_and_builds_nothing(delivery: Delivery) -> None:
    delivery.through("image", "push", "template", "passed", _STACK="staging")
    built = delivery.image("staging")
    assert re.fullmatch(rf"{IMAGE}@sha256:[0-9a-f]{{64}}", built)
    delivery.calls.unlink()
    delivery.through("image", "push", "template", _STACK="prod", _PROMOTED_FROM="staging")
    assert delivery.image("prod") == built
    console = delivery.image("staging", "consoleImage")
    assert re.fullmatch(rf"{IMAGE}-console@sha256:[0-9a-f]{{64}}", console)
    assert delivery.image("prod", "consoleImage") == console
    assert console.partition("@")[2] != built.partition("@")[2]
    assert {call.split()[0] for call in delivery.calls.read_text().splitlines()} == {"gcloud"}


def test_the_digest_reaches_the_job_of_prod(delivery: Delivery) -> None:
    delivery.through("image", "push", "template", "passed", _STACK="staging")
    delivery.through("template", _STACK="prod", _PROMOTED_FROM="staging")
    pinned = delivery.image("prod")
    graph = graph_of("prod", {"image": pinned, "consoleImage": delivery.image("prod", "consoleImage")})
    [container] = graph.one("Service", "audit-console").inputs["template"]["containers"]
    assert container["image"] == delivery.image("prod", "consoleImage")
    template = json.loads(graph.one("BucketObject", "template").inputs["source"].text)
    assert template["image"] == template["defaultEnvironment"]["sdkContainerImage"] == pinned


def test_a_commit_that_did_not_pass_in_staging_stops_before_prod(delivery: Delivery) -> None:
    delivery.through("image", "push", "template", _STACK="staging")
    stopped = delivery.run("template", _STACK="prod", _PROMOTED_FROM="staging")
    assert stopped.returncode == 1
    assert f"{IMAGE}:staging-{COMMIT} is not in the registry" in stopped.stderr
    assert "let it pass there first" in stopped.stderr


def test_the_preview_looks_at_the_image_that_runs_now(delivery: Delivery) -> None:
    delivery.through("image", "push", "template", "passed", _STACK="staging")
    assert delivery.tags[f"{IMAGE}:staging-current"] == delivery.image("staging").partition("@")[2]
    for stack, promoted_from in (("staging", ""), ("prod", "staging")):
        (delivery.folder / f"Pulumi.{stack}.yaml").write_text((ROOT / f"Pulumi.{stack}.yaml").read_text())
        looked = delivery.run("image", FILES[0], _STACK=stack, _PROMOTED_FROM=promoted_from)
        assert looked.returncode == 0, looked.stderr
    for setting in ("image", "consoleImage"):
        assert delivery.image("prod", setting) == delivery.image("staging", setting)


def test_a_stack_that_nobody_deployed_yet_can_be_previewed(delivery: Delivery) -> None:
    looked = delivery.run("image", FILES[0], _STACK="staging")
    assert looked.returncode == 0
    assert "staging keeps what its file says" in looked.stdout


def test_prod_writes_nothing_to_the_registry_of_staging(delivery: Delivery) -> None:
    delivery.through("image", "push", "template", "passed", _STACK="staging")
    tags = delivery.tags
    delivery.through("image", "push", "template", "passed", _STACK="prod", _PROMOTED_FROM="staging")
    assert delivery.tags == tags


def test_a_registry_that_refuses_is_not_a_tag_that_is_missing(delivery: Delivery) -> None:
    (delivery.programs / "gcloud").write_text("#!/bin/sh\necho 'PERMISSION_DENIED: no' >&2; exit 1\n")
    refused = delivery.run("template", _STACK="staging")
    assert refused.returncode == 1
    assert "failed: PERMISSION_DENIED" in refused.stderr


def test_what_nobody_pinned_does_not_pass(delivery: Delivery) -> None:
    refused = delivery.run("passed", _STACK="staging")
    assert refused.returncode == 1
    assert "must run" in refused.stderr
    assert delivery.tags == {}


def test_other_settings_of_the_stack_stay_as_they_are(delivery: Delivery) -> None:
    earlier = yaml.safe_load((delivery.folder / "Pulumi.prod.yaml").read_text())["config"]
    delivery.through("image", "push", "template", _STACK="prod")
    later = yaml.safe_load((delivery.folder / "Pulumi.prod.yaml").read_text())["config"]
    pinned = {"payment-audit:image", "payment-audit:consoleImage"}
    assert {key: value for key, value in later.items() if key not in pinned} == earlier


# ---------------------------------------------------------------------- the triggers


CONFIG = {
    "deliveryRepository": "projects/audit-images/locations/us-central1/connections/github/repositories/payment-audit",
    "deliveryImage": IMAGE,
    "deliveryBuilder": f"us-central1-docker.pkg.dev/audit-images/audit/builder@sha256:{'0' * 64}",
    "deliveryAccount": "deployer-sa@payment-audit-prod.iam.gserviceaccount.com",
    "deliveryPreviewAccount": "preview-sa@payment-audit-prod.iam.gserviceaccount.com",
    "deliveryState": "gs://payment-audit-prod-pulumi-state",
    "deliverySecrets": "gcpkms://projects/payment-audit-prod/locations/us-central1/keyRings/pulumi/cryptoKeys/state",
    "deliveryNetwork": "projects/p/global/networks/n",
}
PROD = {**CONFIG, "deliveryApproval": True, "deliveryPromotedFrom": "staging"}


@pytest.fixture(scope="module")
def triggers() -> Graph:
    return graph_of("prod", PROD)


@pytest.mark.parametrize(("name", "file"), [("preview", FILES[0]), ("merge", FILES[1])])
def test_a_trigger_gives_its_file_every_substitution_and_no_other(triggers: Graph, name: str, file: str) -> None:
    trigger = triggers.one("Trigger", name).inputs
    assert trigger["filename"] == file
    assert set(trigger["substitutions"]) == set(read(file)["substitutions"])
    assert trigger["substitutions"]["_STACK"] == "prod"


def test_prod_waits_for_a_person_and_takes_what_passed_in_staging(triggers: Graph) -> None:
    merge = triggers.one("Trigger", "merge").inputs
    assert merge["approvalConfig"] == {"approvalRequired": True}
    assert merge["substitutions"]["_PROMOTED_FROM"] == "staging"


def test_a_proposed_change_runs_as_another_account_than_a_merged_one(triggers: Graph) -> None:
    accounts = {node.name: node.inputs["serviceAccount"] for node in triggers.of("Trigger")}
    assert accounts["preview"].endswith("/serviceAccounts/preview-sa@payment-audit-prod.iam.gserviceaccount.com")
    assert accounts["merge"].endswith("/serviceAccounts/deployer-sa@payment-audit-prod.iam.gserviceaccount.com")


def test_a_stranger_s_change_waits_for_a_maintainer(triggers: Graph) -> None:
    asked = triggers.one("Trigger", "preview").inputs["repositoryEventConfig"]["pullRequest"]["commentControl"]
    assert asked == "COMMENTS_ENABLED_FOR_EXTERNAL_CONTRIBUTORS_ONLY"


def test_only_one_stack_s_preview_runs_the_tests() -> None:
    checks = {
        stack: graph_of(stack, config).one("Trigger", "preview").inputs["substitutions"]["_CHECKS"]
        for stack, config in (("dev", CONFIG), ("staging", CONFIG), ("prod", PROD))
    }
    assert checks == {"dev": "yes", "staging": "no", "prod": "no"}


@pytest.mark.parametrize("policy", ["", "123"])
def test_the_builds_have_no_public_address_inside_a_perimeter_or_without_one(policy: str) -> None:
    pool = graph_of("dev", {**CONFIG, "accessPolicy": policy}).one("WorkerPool").inputs
    assert pool["workerConfig"]["noExternalIp"] is True
    assert pool["networkConfig"] == {"peeredNetwork": "projects/p/global/networks/n"}


def test_triggers_and_machines_keep_every_rule(triggers: Graph) -> None:
    assert [broken for rule in RULES for broken in rule(triggers)] == []


def test_the_merge_knows_the_cluster_of_argo_cd() -> None:
    cluster = "projects/clusters/locations/global/memberships/tools"
    merge = graph_of("dev", {**CONFIG, "argoCdCluster": cluster}).one("Trigger", "merge").inputs
    assert merge["substitutions"]["_ARGO_CD"] == cluster


def test_without_a_repository_there_is_no_trigger_and_no_machine() -> None:
    assert graph_of("prod").of("Trigger", "WorkerPool") == []


def test_a_merge_of_words_alone_deploys_nothing(triggers: Graph) -> None:
    assert triggers.one("Trigger", "merge").inputs["ignoredFiles"] == ["docs/**", "*.md"]
    assert "ignoredFiles" not in triggers.one("Trigger", "preview").inputs


@pytest.mark.parametrize(
    ("stack", "changed", "refused"),
    [
        ("dev", {"deliveryRepository": "github.com/org/repo"}, "deliveryRepository must be empty or projects/P/"),
        ("dev", {"deliveryBuilder": "builder:latest"}, "deliveryBuilder must be empty or an image by its digest"),
        ("dev", {"deliveryImage": f"{IMAGE}:latest"}, "deliveryImage must be empty or an image without a tag"),
        ("dev", {"deliveryAccount": "ops@example.com"}, "deliveryAccount must be empty or a service account's e-mail"),
        ("dev", {"deliveryState": "s3://bucket"}, "deliveryState must be empty or a gs://"),
        ("dev", {"deliverySecrets": "passphrase"}, "deliverySecrets must be empty or a gcpkms://"),
        ("dev", {"deliveryNetwork": "default"}, "deliveryNetwork must be empty or projects/P/global/networks/N"),
        ("dev", {"argoCdCluster": "gke_p_r_tools"}, "argoCdCluster must be empty or the cluster's fleet membership"),
        ("dev", {"deliveryBranch": ""}, "deliveryBranch must be a regular expression"),
        ("dev", {"deliveryImage": ""}, "deliveryImage must be set together with deliveryRepository"),
        ("dev", {"deliverySecrets": ""}, "deliverySecrets must be set together with deliveryRepository"),
        ("dev", {"deliveryNetwork": ""}, "deliveryNetwork must be set together with deliveryRepository"),
        ("dev", {"deliveryPromotedFrom": "dev"}, "deliveryPromotedFrom must be another stack than this one"),
        (
            "dev",
            {"deliveryPreviewAccount": CONFIG["deliveryAccount"]},
            "deliveryPreviewAccount must be another account than deliveryAccount",
        ),
        ("prod", {"deliveryApproval": False}, "deliveryApproval must be true in prod"),
        ("prod", {"deliveryPromotedFrom": ""}, "deliveryPromotedFrom must be the stack before it, such as staging"),
    ],
)
def test_a_wrong_setting_is_refused(stack: str, changed: dict[str, Any], refused: str) -> None:
    values = {**stack_config(stack), "image": STREAM_IMAGE, **(PROD if stack == "prod" else CONFIG), **changed}
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
    with pytest.raises(SettingsError) as told:
        Settings.parse(stack, texts.get)
    [problem] = str(told.value).splitlines()[1:]
    assert problem.startswith(refused)
