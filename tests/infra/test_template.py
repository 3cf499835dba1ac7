"""The flex template's spec, read by Google's own type, and its image's Dockerfile, as far as that can be read.

No container engine runs here: that the image builds is seen by Cloud Build alone.
"""

from __future__ import annotations

import ast
import fnmatch
import json
import re
import sys
import sysconfig
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from google.cloud.dataflow_v1beta3 import ContainerSpec, SDKInfo

from contract.options import OPTIONS, Option
from graph.resources import IMAGE
from pipeline.image import template
from tests.infra.images import ROOT, ImageFile

OF = ImageFile(ROOT / "pipeline" / "image", ROOT / ".dockerignore")
DOCKERFILE, LOCK, PINNED = OF.text, OF.lock, OF.pinned


def test_google_s_own_type_reads_the_spec() -> None:
    spec = ContainerSpec.from_json(template.text(IMAGE), ignore_unknown_fields=False)
    assert spec.image == spec.default_environment.sdk_container_image == IMAGE
    assert spec.sdk_info.language is SDKInfo.Language.PYTHON
    assert spec.metadata.streaming
    assert [parameter.name for parameter in spec.metadata.parameters] == [option.name for option in OPTIONS]


def test_a_field_that_google_does_not_know_is_found_out() -> None:
    from google.protobuf.json_format import ParseError

    with pytest.raises(ParseError, match="diskSize"):
        ContainerSpec.from_json(json.dumps({**template.spec(IMAGE), "diskSize": 1}), ignore_unknown_fields=False)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_parameter_says_what_the_option_says(option: Option) -> None:
    [parameter] = [p for p in template.spec(IMAGE)["metadata"]["parameters"] if p["name"] == option.name]
    assert parameter["isOptional"] is not option.required
    assert parameter["helpText"] == option.help
    assert parameter["label"][0].isupper()
    for regex in parameter.get("regexes", []):
        # What POSIX's extended syntax has not.
        assert not re.search(r"\\[dswb]|\(\?|\(\||\|\)", regex)
        assert re.search(regex, option.default or "") or option.required


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("rpcPriority", "HIGH", True),
        ("rpcPriority", "HIGHEST", False),
        ("startTimestamp", "", True),
        ("startTimestamp", "2026-11-24T09:00:00.123456789Z", True),
        ("startTimestamp", "yesterday", False),
        ("dlqRetryMinutes", "0.5", True),
        ("dlqRetryMinutes", "ten", False),
        ("maskingKeys", "projects/p/secrets/s", True),
        ("maskingKeys", "projects/p/secrets/s/versions/1", False),
    ],
)
def test_a_parameter_s_rule_judges_as_the_job_does(name: str, value: str, right: bool) -> None:
    [parameter] = [p for p in template.spec(IMAGE)["metadata"]["parameters"] if p["name"] == name]
    [option] = [option for option in OPTIONS if option.name == name]
    assert option.regex
    assert bool(re.search(parameter["regexes"][0], value)) is bool(re.fullmatch(option.regex, value)) is right


def test_an_image_without_a_digest_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert template.main(["--image", "us-central1-docker.pkg.dev/p/r/stream:latest"]) == 2
    assert "must be named by its digest" in capsys.readouterr().err
    assert template.main(["--image", IMAGE]) == 0
    assert json.loads(capsys.readouterr().out) == template.spec(IMAGE)


def test_what_the_dockerfile_copies_is_there_and_sent_to_the_build() -> None:
    assert OF.copied == ["pipeline/image/requirements.lock", "contract", "pipeline", "alerts", "support", "probe"]
    for source in OF.copied:
        assert (ROOT / source).exists(), source
        assert any(fnmatch.fnmatch(source.partition("/")[0], pattern) for pattern in OF.sent), source


def test_the_script_that_the_launcher_runs_is_copied() -> None:
    [script] = re.findall(r"FLEX_TEMPLATE_PYTHON_PY_FILE=/template/(\S+)", DOCKERFILE)
    assert (ROOT / script).is_file()
    assert script.partition("/")[0] in OF.copied


def test_the_image_has_the_beam_of_the_lock() -> None:
    """A worker refuses a launcher of another version."""
    assert re.findall(r"^ARG BEAM_VERSION=(\S+)$", DOCKERFILE, re.M) == [PINNED["apache-beam"]]
    assert "python:3.11" in DOCKERFILE and "python311" in DOCKERFILE and "python3.11_sdk" in DOCKERFILE


def test_no_image_that_it_is_made_of_moves_to_another_version() -> None:
    """Two builds of one commit are to be alike. Of Python's own only the patches move."""
    named = [re.sub(r"\$\{(\w+)\}", lambda name: _argument(name[1]), image) for image in _FROM.findall(DOCKERFILE)]
    launcher, beam, python = (image.partition(":")[2] for image in named)
    assert re.fullmatch(r"\d{8}-rc\d+|.*@sha256:[0-9a-f]{64}", launcher)
    assert beam == PINNED["apache-beam"]
    assert python == "3.11-slim"


_FROM = re.compile(r"^FROM (\S+)", re.M)


def _argument(name: str) -> str:
    [value] = re.findall(rf"^ARG {name}=(\S+)$", DOCKERFILE, re.M)
    return str(value)


def test_the_image_s_lock_is_a_part_of_the_whole_lock() -> None:
    whole = set(re.findall(r"^([a-z0-9._-]+)==([^\s;\\]+)", (ROOT / "requirements.lock").read_text(), re.M))
    assert set(PINNED.items()) <= whole
    assert LOCK.count("--hash=sha256:") >= len(PINNED)
    assert not {"pulumi", "pulumi-gcp", "pytest"} & set(PINNED)


def test_the_lock_has_everything_that_the_job_and_the_probe_import() -> None:
    known = packages_distributions()
    missing = set()
    folders = OF.copied[1:]
    for folder in folders:
        for file in (file for file in OF.files(folder) if file.suffix == ".py"):
            for module in _imported(ast.parse(file.read_text())):
                top = module.partition(".")[0]
                if top in sys.stdlib_module_names or top in folders:
                    continue
                names = {name.lower().replace("_", "-") for name in known.get(top, [])}
                # What shows the probe's series to a Prometheus; in the cloud they are written.
                if not names & {*PINNED, "prometheus-client"}:
                    missing.add(f"{file.name}: {module}")
    assert missing == set()


def test_what_the_build_of_the_image_tries_works_with_what_it_copies(tmp_path: Path) -> None:
    """Without the repository on the path, as in the image: a folder that was forgotten is missed."""
    OF.lay_out(tmp_path)
    done = OF.try_as_built(tmp_path, Path(sysconfig.get_path("purelib")))
    assert done.returncode == 0, done.stderr
    assert "Compare what Spanner committed" in done.stdout and "Runs a replay to its end" in done.stdout


def _imported(tree: ast.AST) -> list[str]:
    found = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return found + [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module and not n.level]
