"""Where `make setup` puts what does not come with the Python environment, and how to find it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Final

from contract.errors import AuditError

ROOT: Final = Path(__file__).parents[2]
_LOCAL: Final = ROOT / "local"
_LOCK: Final = _LOCAL / "emulators" / "bigquery.lock"
_GO_MODULE: Final = _LOCAL / "prism" / "go.mod"
_ALERTMANAGER: Final = _LOCAL / "alertmanager" / "go.mod"
_PULUMI: Final = _LOCAL / "pulumi" / "cli" / "go.mod"


class NotInstalled(AuditError):
    """A program that the local stack needs is not there; the message says how to get it."""


def cache() -> Path:
    """The folder outside the repository that all clones share."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "payment-audit"


def spanner_emulator() -> Path:
    """The Spanner emulator's own binary: on PATH, or in the Google Cloud CLI that is on PATH."""
    name = "emulator_main"
    if found := shutil.which(name):
        return Path(found)
    if gcloud := shutil.which("gcloud"):
        sdk = Path(gcloud).resolve().parent.parent
        binary = sdk / "bin" / "cloud_spanner_emulator" / name
        if binary.exists():
            return binary
    raise NotInstalled(
        "The Spanner emulator is not installed: no emulator_main on PATH nor in the Google Cloud CLI. "
        "Run `gcloud components install cloud-spanner-emulator`, or install the package "
        "google-cloud-cli-spanner-emulator, then `make setup`."
    )


def bigquery_python() -> Path:
    """The Python of the BigQuery emulator's environment."""
    [version] = re.findall(r"^local-bigquery==(\S+)", _LOCK.read_text(), re.M)
    return _installed(cache() / f"bigquery-emulator-{version}" / "bin" / "python", "The BigQuery emulator")


def prism() -> Path:
    """The Prism runner's binary."""
    [version] = re.findall(r"github.com/apache/beam/sdks/v2 v(\S+)", _GO_MODULE.read_text())
    return _installed(cache() / f"prism-{version}" / "prism", "Prism, the local Beam runner,")


def pulumi() -> Path:
    """The folder of the Pulumi CLI: `bin` for PATH, and `language` with its Python host where it was built here."""
    [version] = re.findall(r"github.com/pulumi/pulumi/pkg/v3 v(\S+)", _PULUMI.read_text())
    home = cache() / f"pulumi-{version}"
    if (home / "bin" / "pulumi").exists():
        return home
    raise NotInstalled(f"The Pulumi CLI is not installed at {home}. Run `make pulumi`.")


def promtool() -> Path:
    """Prometheus's own checker of rules."""
    return _installed(cache() / "prometheus" / "promtool", "Prometheus (promtool)", "local/setup.sh monitoring")


def prometheus() -> Path:
    return _installed(cache() / "prometheus" / "prometheus", "Prometheus", "local/setup.sh monitoring")


def alertmanager() -> Path:
    return _of_alertmanager("alertmanager")


def amtool() -> Path:
    """Alertmanager's own checker of routes."""
    return _of_alertmanager("amtool")


def airflow_python(version: str) -> Path:
    """The Python of an Airflow's environment: of version "2" or "3"."""
    lock = ROOT / "tests" / "dags" / f"airflow-{version}.lock"
    [pinned] = re.findall(r"^apache-airflow==(\S+)", lock.read_text(), re.M)
    return _installed(cache() / f"airflow-{pinned}" / "bin" / "python", f"Airflow {pinned}", "local/setup.sh dags")


def kustomize() -> Path:
    """The folder of kustomize, with the schemas of Argo CD's resources and of Kubernetes' beside it."""
    module = (_LOCAL / "kustomize" / "go.mod").read_text()
    [version] = re.findall(r"sigs.k8s.io/kustomize/kustomize/v5 v(\S+)", module)
    home = cache() / f"kustomize-{version}"
    return _installed(home / "kustomize", "kustomize", "local/setup.sh dags").parent


def chromium() -> Path:
    """The browser in which the console is tested."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return Path(found)
    raise NotInstalled("Chromium is not on PATH. Run `local/setup.sh browser`, or install it.")


def _of_alertmanager(name: str) -> Path:
    [version] = re.findall(r"github.com/prometheus/alertmanager v(\S+)", _ALERTMANAGER.read_text())
    return _installed(cache() / f"alertmanager-{version}" / name, f"Alertmanager ({name})", "local/setup.sh monitoring")


def _installed(path: Path, what: str, how: str = "make setup") -> Path:
    if path.exists():
        return path
    raise NotInstalled(f"{what} is not installed at {path}. Run `{how}`.")
