"""The documents say what is: their commands are there, their links lead somewhere, their folders exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from contract.changes import REASONS, Reason
from tests import documents
from tests.documents import DOCUMENTS, FENCE, ROOT, TRACKED

FOLDERS = sorted({str(folder) for name in TRACKED for folder in Path(name).parents if str(folder) != "."})
DECISIONS = sorted(name for name in DOCUMENTS if name.startswith("docs/decisions/"))
# A map is read in one sitting.
MOST_LINES = 150
COMMANDS = sorted(
    {
        command
        for document in DOCUMENTS
        if not document.startswith("runbooks/")  # tests/docs/test_runbooks.py
        for command in documents.commands(document, "sh", "console", "cloud")
    }
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_documents_is_there(command: str) -> None:
    documents.look(command)


def test_the_audit_command_runs_as_it_is_written() -> None:
    done = documents.run("./audit", "--help")
    assert done.returncode == 0
    assert "search" in done.stdout


@pytest.mark.parametrize(
    "command",
    [
        "./audit search --colour red",
        "./audit serch",
        "./audit dead-letters lst",
        "./audit local check --quick",
        "make runn",
        "make run DURATON=60",
        "pulumi config set --stack dev payment-audit:proyect x",
        "pulumi up --refesh --stack dev",
        "pulumi up --stack pord",
        "gcloud dataflow jobs drian $JOB --region=$REGION",
        "gcloud dataflow jobs drain $JOB --regoin=$REGION",
        "gcloud dataflow jobs drain $JOB --region",
        "gcloud dataflow jobs list --status=running",
        "gcloud dataflow jobs",
        "bq qurey --use_legacy_sql=false 'SELECT 1'",
        "bq query --use_legacy=false 'SELECT 1'",
        ". runbooks/stack.sh pord",
        ".venv/bin/python docs/recrod.py",
        ".venv/bin/python -m delivery.deplyo up -s dev",
        ".venv/bin/python -m delivery.deploy upp -s dev",
        "./audit search --limit 1 | gerp x",
        "docker build --file pipeline/Dockerfile --tag x .",
    ],
)
def test_a_command_that_is_not_there_is_found_out(command: str) -> None:
    with pytest.raises(AssertionError):
        documents.look(command)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_and_picture_is_there(document: str) -> None:
    text = FENCE.sub("", (ROOT / document).read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        link = next(filter(None, target))
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        assert file.exists(), f"{document}: {link}"
        assert not anchor or anchor in _anchors(file), f"{document}: {link}"


def _anchors(file: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_folder_that_is_named_is_there(document: str) -> None:
    for name in re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*|\w[\w-]*\.(?:py|sh|sql|yaml|toml|lock|md))`", _prose(document)):
        known = (ROOT / name).exists() or any(tracked.endswith(f"/{name}") for tracked in TRACKED)
        assert known or name in _NOT_OURS, f"{document}: {name}"


# Folders of a dead-letter directory and of Composer's bucket, and roles of Google Cloud.
_NOT_OURS = {"retry/", "severe/", "connection.json", "gcloud_completions.py", "dags/payment_audit/"}


def _prose(document: str) -> str:
    return re.sub(r"roles/[\w.]+", "", FENCE.sub("", (ROOT / document).read_text()))


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if not folder.startswith("tests/infra/")])
def test_the_map_of_the_architecture_has_every_folder(folder: str) -> None:
    assert f"`{folder}/`" in (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("page", DECISIONS)
def test_every_decision_says_its_context_its_reason_and_its_cost(page: str) -> None:
    decisions = (ROOT / page).read_text().split("\n## ")[1:]
    assert decisions
    for decision in decisions:
        parts = re.findall(r"^- \*\*(\w+)\.\*\*", decision, re.M)
        assert parts == ["Context", "Decision", "Why", "Cost"], decision.partition("\n")[0]


def test_the_architecture_links_every_decision_and_is_short() -> None:
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    linked = re.findall(r"\[([^\]]+)\]\((docs/decisions/[\w-]+\.md)#", architecture)
    headings = [(h, page) for page in DECISIONS for h in re.findall(r"^## (.+)$", (ROOT / page).read_text(), re.M)]
    assert sorted(linked) == sorted(headings)
    assert len(architecture.splitlines()) <= MOST_LINES


def test_every_reason_of_a_dead_letter_has_its_remedy_in_the_operators_table() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    reasons = [value for name, value in vars(Reason).items() if name.isupper()]
    assert list(REASONS) == reasons
    again = {"automatic": "by itself", "after_fix": "after the fix", "never": "never"}
    rows = [f"| `{r}` | {info.meaning} | {again[info.retry]} | {info.remedy} |" for r, info in REASONS.items()]
    assert re.findall(r"^\| `\w+` \|.*", text, re.M) == rows


@pytest.mark.parametrize("page", [name for name in DOCUMENTS if name.startswith(("docs/", "runbooks/"))])
def test_an_operator_s_page_has_no_note_of_what_is_missing(page: str) -> None:
    """docs/known-gaps.md has them all."""
    if not page.startswith(("docs/known-gaps", "docs/decisions/")):
        note = re.search(
            r"(?i)not there yet|still to come|later capability|there (?:is|are) no [^.]* yet|TODO", _prose(page)
        )
        assert not note, f"{page}: {note[0] if note else ''}"


@pytest.mark.parametrize(
    "pattern",
    [
        pytest.param(r"(?<![\w.$}~-])/(?:home|root|Users|work|tmp|opt|mnt)/\w", id="a path of a machine"),
        pytest.param(
            r"(?i)https?://[^\s\"'<>]*(?:pypi|pythonhosted|npmjs|goproxy|proxy\.golang|artifactory|nexus|registry|mirror)"
            r"|--(?:extra-)?index-url|\bGOPROXY=",
            id="a package registry",
        ),
    ],
)
def test_no_file_names(pattern: str) -> None:
    for name in TRACKED:
        file = ROOT / name
        # The paths in a Dockerfile are the image's own.
        if file.name == "Dockerfile" or not file.is_file() or b"\0" in (content := file.read_bytes()):
            continue
        found = re.search(pattern, content.decode())
        assert not found, f"{name}: {found[0] if found else ''}"
