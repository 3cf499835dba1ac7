"""Argo CD's side: manifests against the real schemas, and the sync's own command with the real gcloud.

The bucket is a stand-in (tests/strict/storage.py); the ConfigMaps are mounted as Kubernetes mounts them, as links.
"""

from __future__ import annotations

import copy
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dags.conftest import DAGS
from tests.dags.manifests import ARGO_CD, Manifest, one, problems, rendered
from tests.strict.storage import StrictStorage, storage

STACKS = ("dev", "staging", "prod")
FOLDERS = ("applications", *(f"overlays/{stack}" for stack in STACKS))
PREFIX = "dags/payment_audit/"
WRITTEN_BY_PULUMI = f"{PREFIX}payment_audit.json"


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_manifest_is_one_that_its_schema_takes(folder: str) -> None:
    found = rendered(folder)
    assert found and [problem for each in found for problem in problems(each)] == []


def _unknown(manifest: Manifest) -> None:
    manifest["spec"]["syncPolicy"]["automated"]["selfheal"] = True


def _other_type(manifest: Manifest) -> None:
    manifest["spec"]["syncPolicy"]["retry"]["limit"] = "3"


def _missing(manifest: Manifest) -> None:
    del manifest["spec"]["destination"]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (_unknown, "Application payment-audit-prod.spec.syncPolicy.automated.selfheal is not known"),
        (_other_type, "Application payment-audit-prod.spec.syncPolicy.retry.limit must be of type integer"),
        (_missing, "Application payment-audit-prod.spec.destination is required"),
    ],
)
def test_what_a_schema_does_not_take_is_found(broken: Callable[[Manifest], None], problem: str) -> None:
    application = copy.deepcopy(one(rendered("applications"), "Application", "payment-audit-prod"))
    broken(application)
    assert problems(application) == [problem]
    job = one(rendered("overlays/prod"), "Job")
    job["spec"]["template"]["spec"]["containers"][0]["volumeMount"] = []
    assert problems(job) == ["Job dag-sync.spec.template.spec.containers[0].volumeMount is not known"]


def test_an_application_heals_itself_at_the_commit_that_a_delivery_names_and_at_no_other() -> None:
    for stack in STACKS:
        application = one(rendered("applications"), "Application", f"payment-audit-{stack}")["spec"]
        assert application["source"]["path"] == f"delivery/argocd/overlays/{stack}"
        assert (ARGO_CD.parents[1] / application["source"]["path"]).is_dir()
        # A branch would put what is merged into prod before anybody approved it.
        assert application["source"]["targetRevision"] == "0" * 40
        assert application["syncPolicy"]["automated"] == {"prune": True, "selfHeal": True, "allowEmpty": False}
        assert "ServerSideApply=true" in application["syncPolicy"]["syncOptions"]
        namespace = application["destination"]["namespace"]
        assert {each["metadata"]["namespace"] for each in rendered(f"overlays/{stack}")} == {namespace}


def test_the_project_lets_in_what_the_overlays_have_and_nothing_else() -> None:
    project = one(rendered("applications"), "AppProject")["spec"]
    allowed = {(each["group"], each["kind"]) for each in project["namespaceResourceWhitelist"]}
    made = {
        (each["apiVersion"].rpartition("/")[0], each["kind"])
        for stack in STACKS
        for each in rendered(f"overlays/{stack}")
    }
    assert allowed == made
    assert {each["namespace"] for each in project["destinations"]} == {f"payment-audit-{stack}" for stack in STACKS}


def test_a_delivery_may_name_the_commit_of_its_own_stack_alone() -> None:
    found = rendered("applications")
    for stack in STACKS:
        name = f"payment-audit-{stack}-delivery"
        [rule] = one(found, "Role", name)["rules"]
        assert rule["resourceNames"] == [f"payment-audit-{stack}"] and rule["verbs"] == ["get", "patch"]
        binding = one(found, "RoleBinding", name)
        assert binding["roleRef"]["name"] == name
        [subject] = binding["subjects"]
        assert subject["name"] == f"deployer-sa@payment-audit-{stack}.iam.gserviceaccount.com"


def test_the_job_of_a_sync_and_that_of_drift_run_the_same_and_may_do_nothing_in_kubernetes() -> None:
    for stack in STACKS:
        found = rendered(f"overlays/{stack}")
        job, drift = one(found, "Job"), one(found, "CronJob")
        assert job["metadata"]["name"] == "dag-sync"
        assert job["metadata"]["annotations"] == {
            "argocd.argoproj.io/hook": "PostSync",
            "argocd.argoproj.io/hook-delete-policy": "BeforeHookCreation",
        }
        pod = job["spec"]["template"]["spec"]
        assert pod == drift["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert "@sha256:" in pod["containers"][0]["image"]
        account = one(found, "ServiceAccount")["metadata"]["annotations"]["iam.gke.io/gcp-service-account"]
        assert account == f"dag-sync-sa@payment-audit-{stack}.iam.gserviceaccount.com"


def test_the_config_map_has_every_dag_and_fits() -> None:
    found = one(rendered("overlays/prod"), "ConfigMap", "dags")["data"]
    assert found == {file.name: file.read_text() for file in DAGS.glob("*.py")}
    assert len(yaml.safe_dump(found).encode()) < 1024 * 1024


# ---------------------------------------------------------------------- the sync's own command


def mounted(folder: Path, content: dict[str, str]) -> Path:
    """A ConfigMap as the kubelet mounts it: each file a link into ..data, which is a link to a folder with a time."""
    real = folder / "..2026_11_30_08_00_00.1234567890"
    real.mkdir(parents=True)
    for name, text in content.items():
        (real / name).write_text(text)
    (folder / "..data").symlink_to(real.name)
    for name in content:
        (folder / name).symlink_to(Path("..data") / name)
    return folder


class Pod:
    """The pod of a sync, with its mounts and its environment, and a bucket."""

    def __init__(self, folder: Path, bucket: StrictStorage) -> None:
        self._folder, self._bucket = folder, bucket
        self.manifests = rendered("overlays/prod")
        self.spec = one(self.manifests, "Job")["spec"]["template"]["spec"]
        self.name = one(self.manifests, "ConfigMap", "bucket")["data"]["BUCKET"]

    def run(self, dags: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        volumes: dict[str, Path] = {}
        for volume in self.spec["volumes"]:
            where = self._folder / f"{len(list(self._folder.iterdir()))}-{volume['name']}"
            if "configMap" in volume:
                data = one(self.manifests, "ConfigMap", volume["configMap"]["name"])["data"]
                mounted(where, dags if dags is not None and volume["name"] == "dags" else data)
            else:
                where.mkdir()
            volumes[volume["name"]] = where
        [container] = self.spec["containers"]
        places = {mount["mountPath"]: str(volumes[mount["name"]]) for mount in container["volumeMounts"]}

        def here(text: str) -> str:
            for path, where in places.items():
                if text == path or text.startswith(f"{path}/"):
                    return where + text.removeprefix(path)
            return text

        environment: dict[str, Any] = {each["name"]: here(each["value"]) for each in container["env"]}
        for source in container["envFrom"]:
            environment |= one(self.manifests, "ConfigMap", source["configMapRef"]["name"])["data"]
        return subprocess.run(
            [here(word) for word in container["command"]],
            env={
                "PATH": os.environ["PATH"],
                "TMPDIR": places["/tmp"],
                # Where the stand-in is, and no credentials.
                "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{self._bucket.url}/storage/v1/",
                "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
                "CLOUDSDK_CORE_PROJECT": "payment-audit-prod",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=200,
        )

    def put(self, name: str, text: str) -> None:
        self._bucket.insert(self.name, name, text.encode(), {})

    def content(self) -> dict[str, str]:
        return {name: self._bucket.content(self.name, name).decode() for name in self._bucket.names(self.name)}


def test_the_bucket_becomes_the_tree_and_what_is_of_others_stays(tmp_path: Path) -> None:
    bucket_name = one(rendered("overlays/prod"), "ConfigMap", "bucket")["data"]["BUCKET"]
    with storage(bucket_name) as bucket:
        pod = Pod(tmp_path, bucket)
        others = {WRITTEN_BY_PULUMI: '{"version": 1}', "dags/of_others.py": "1", "data/payment_audit/x.py": "2"}
        for name, text in others.items():
            pod.put(name, text)
        tree = {f"{PREFIX}{file.name}": file.read_text() for file in DAGS.glob("*.py")}
        pod.put(f"{PREFIX}stale.py", "3")
        # Of the same size: only what it holds says that it was edited.
        edited = f"{PREFIX}audit_backup.py"
        pod.put(edited, tree[edited].replace("backup", "BACKUP"))
        done = pod.run()
        assert done.returncode == 0, done.stderr
        assert f"has the {len(tree)} files of git" in done.stdout
        assert pod.content() == tree | others
        bucket.calls.clear()
        again = pod.run()
        assert again.returncode == 0, again.stderr
        assert [call for call in bucket.calls if call.split()[0] in ("insert", "delete")] == []
        # A mount that is empty, or has something else, removes nothing.
        for dags in ({}, {"README.md": "x"}, {"operations.py": "", "audit_x.py": "x"}):
            refused = pod.run(dags)
            assert (refused.returncode, "has no DAGs: the bucket is left as it is" in refused.stderr) == (1, True)
        assert pod.content() == tree | others
