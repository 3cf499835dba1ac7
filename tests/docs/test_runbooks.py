"""A page for 3 a.m.: its sections in their order, two screens, every command taken by its own tool's parser.

What the commands answer is looked at on a running stack, in `tests/stack/`; that there is a page for every alert of the
catalog, in `tests/monitoring/`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from alerts import runbooks
from components import naming
from contract.operations import PIPELINE
from tests import documents
from tests.documents import ROOT

FOLDER = ROOT / "runbooks"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.name != "README.md")
HOW_TOS = sorted(path.stem for path in (FOLDER / "how-to").glob("*.md"))
ALL = ["runbooks/README.md", *(f"runbooks/{page}.md" for page in PAGES), *(f"runbooks/how-to/{h}.md" for h in HOW_TOS)]

SECTIONS = ["What it means", "Impact", "First five minutes", "Decide", "Mitigate", "Verify", "Escalate", "After"]
HOW_TO_SECTIONS = ["When", "How", "What it may lose or double", "Verify"]
# Two screens of 48 lines.
MOST_LINES = 96
MOST_COLUMNS = 124
NAMES_THE_STACK = ". runbooks/stack.sh prod"
COMMANDS = sorted({c for page in ALL for c in documents.commands(page, "sh", "console", "cloud")})
INLINE = sorted({c for page in ALL for c in re.findall(r"`(\./audit [^`]+)`", (ROOT / page).read_text())})
# What only looks.
READ_ONLY = re.compile(
    r"\./audit (search|timeline|dead-letters (list|show)|local (status|logs|check)|validate(?! --repair))\b"
    r"|\./audit (backup|erase) list\b|\./audit health\b"
    r"|gcloud ([a-z-]+ )+(list|describe|read)\b|gcloud spanner databases execute-sql .*--sql='SELECT |bq show\b"
    r"|bq query --use_legacy_sql=false 'SELECT |" + re.escape(NAMES_THE_STACK)
)


def text(page: str) -> str:
    return (FOLDER / f"{page}.md").read_text()


def sections(page: str) -> dict[str, str]:
    parts = re.split(r"^## (.+)\n", text(page), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@pytest.mark.parametrize("page", PAGES)
def test_a_runbook_has_all_its_sections_in_their_order(page: str) -> None:
    assert text(page).startswith(f"# {page}\n\n**")
    assert list(sections(page)) == SECTIONS
    for name, content in sections(page).items():
        assert len(content.split()) >= 4, f"{name} says nothing"


@pytest.mark.parametrize("page", HOW_TOS)
def test_a_how_to_says_when_how_what_it_may_lose_and_how_to_see_that_it_worked(page: str) -> None:
    assert list(sections(f"how-to/{page}")) == HOW_TO_SECTIONS


@pytest.mark.parametrize("page", [*PAGES, *(f"how-to/{name}" for name in HOW_TOS)])
def test_a_page_is_two_screens_at_most(page: str) -> None:
    lines = [line for line in text(page).splitlines() if not line.startswith("<!-- ")]
    assert len(lines) <= MOST_LINES
    assert [line for line in lines if len(line) > MOST_COLUMNS and not line.startswith("|")] == []


def test_what_the_pages_share_is_what_its_source_says() -> None:
    changed = [str(path.relative_to(ROOT)) for path, should in runbooks.written().items() if path.read_text() != should]
    assert changed == [], "edit runbooks/blocks/ or the catalog, then run: make docs"


def test_a_block_is_written_into_every_page_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "blocks").mkdir()
    (tmp_path / "blocks" / "inner.md").write_text("see [it](../A.md)\n")
    (tmp_path / "blocks" / "outer.md").write_text("first\n<!-- block: inner -->\nold\n<!-- end: inner -->\n")
    (tmp_path / "A.md").write_text("# A\n<!-- block: outer -->\nchanged by hand\n<!-- end: outer -->\nits own\n")
    written = runbooks.written(tmp_path)
    filled = "first\nsee [it](A.md)\n"
    assert written[tmp_path / "A.md"] == f"# A\n<!-- block: outer -->\n{filled}<!-- end: outer -->\nits own\n"
    assert "see [it](../A.md)\n" in written[tmp_path / "blocks" / "outer.md"]


def test_a_block_that_is_not_there_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "A.md").write_text("<!-- block: inner -->\n<!-- end: inner -->\n")
    with pytest.raises(runbooks.UnknownBlock, match=r"write runbooks/blocks/inner\.md"):
        runbooks.written(tmp_path)


def test_every_block_is_shared() -> None:
    """What one page alone says is in that page."""
    texts = [(ROOT / page).read_text() for page in ALL]
    for block in (FOLDER / "blocks").glob("*.md"):
        uses = sum(f"<!-- block: {block.stem} -->" in page for page in texts)
        inner = sum(f"<!-- block: {block.stem} -->" in other.read_text() for other in (FOLDER / "blocks").glob("*.md"))
        assert uses + inner > 1, block.stem


@pytest.mark.parametrize("page", PAGES)
def test_the_first_five_minutes_only_look_and_say_what_to_expect(page: str) -> None:
    first = sections(page)["First five minutes"]
    found = documents.commands_in(first, "sh", "console", "cloud")
    assert len(found) >= 2
    for command in found:
        assert READ_ONLY.match(command), f"is this read-only? {command}"
    assert re.search(r"expect|ordinary day|healthy|is well|less than 30 s", first, re.I)


@pytest.mark.parametrize("page", PAGES)
def test_impact_says_what_is_not_affected_and_how_long_there_is(page: str) -> None:
    impact = " ".join(sections(page)["Impact"].split())
    assert "Not affected" in impact
    assert re.search(r"[Cc]lock", impact)


@pytest.mark.parametrize("page", PAGES)
def test_every_row_of_decide_leads_somewhere(page: str) -> None:
    rows = [row for row in sections(page)["Decide"].splitlines() if row.startswith("|")][2:]
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", sections(page)["Mitigate"], re.M)]
    assert len(rows) >= 2
    assert steps == list(range(1, len(steps) + 1))
    assert steps
    for row in rows:
        assert row.count("|") == 4, row
        for numbers in re.findall(r"Mitigate ([\d, then]+)", row):
            assert {int(number) for number in re.findall(r"\d+", numbers)} <= set(steps), row


@pytest.mark.parametrize("page", [page for page in ALL if documents.commands(page, "cloud")])
def test_the_first_command_in_the_cloud_says_which_stack(page: str) -> None:
    assert documents.commands(page, "cloud")[0] == NAMES_THE_STACK


@pytest.mark.parametrize("page", ALL)
def test_every_block_says_where_it_runs(page: str) -> None:
    languages = {match[2] for match in documents.FENCE.finditer((ROOT / page).read_text())}
    assert languages <= {"sh", "console", "cloud"}
    assert not [c for c in documents.commands(page, "sh", "console") if c.startswith(("gcloud", "bq", "pulumi"))]
    assert not [c for c in documents.commands(page, "cloud") if c.startswith("./audit local")]


@pytest.mark.parametrize("command", [*COMMANDS, *INLINE])
def test_every_command_of_the_runbooks_is_there(command: str) -> None:
    documents.look(command)


def test_an_answer_that_is_not_as_printed_is_found_out() -> None:
    printed = documents.Transcript("./audit local status", ("local stack: ready …", "…", "pipeline: …, … s behind now"))
    well = "local stack:   ready   here\nrestarts: 0\npipeline: at noon, 1.2 s behind now\nmore"
    assert printed.missing(well) == []
    assert printed.missing(well.replace("ready", "down")) == ["local stack: ready …", "pipeline: …, … s behind now"]
    assert printed.missing(well.replace("behind", "before")) == ["pipeline: …, … s behind now"]
    assert printed.missing("\n".join(reversed(well.splitlines()))) == ["pipeline: …, … s behind now"]


def test_what_writes_is_not_taken_for_read_only() -> None:
    for command in (
        "./audit dead-letters retry --all",
        "./audit local down",
        "gcloud dataflow jobs drain $JOB --region=$REGION",
        "gcloud spanner databases execute-sql audit-db --instance=i --sql='UPDATE jobs SET a = 1'",
        "bq query --use_legacy_sql=false 'UPDATE t SET a = 1 WHERE TRUE'",
        "pulumi up --stack prod",
    ):
        assert not READ_ONLY.match(command), command


def test_the_commands_name_the_resources_by_what_the_stack_script_sets() -> None:
    """A stack with a prefix, or with resources of others, has other names."""
    names = {
        r"--instance=(\S+)": {"$INSTANCE", "$METADATA_INSTANCE"},
        r"--(?:source|destination)-instance=(\S+)": {"$INSTANCE"},
        r"(?:execute-sql|ddl describe|ddl update) (\S+)": {"$DATABASE", "$METADATA_DATABASE"},
        r"--resource-names=(\S+)": {"$JOB_LOG"},
        r"--keyring=(\S+)": {"$KEY_RING"},
        r"--filter=name=(\S+)": {"$JOB_NAME"},
        r"(?:job|service)_name=(\S+)": {
            "'$JOB_NAME'",
            *(f"'$PREFIX'{name}" for name in (naming.PROBE, naming.CONSOLE, naming.STARTER, PIPELINE.job)),
        },
        r"secrets versions \w+ (\S+)": {"$MASKING_KEYS"},
    }
    for pattern, known in names.items():
        found = {name for command in COMMANDS for name in re.findall(pattern, command)}
        assert found, pattern
        assert found <= known, pattern
    run = {name for c in COMMANDS for name in re.findall(r"gcloud (?:run|scheduler) .*?(\S*audit-\S+)", c)}
    assert run and all("${PREFIX}audit-" in name for name in run)
    read = {name for c in COMMANDS if c.startswith("bq") for name in re.findall(r"(?:FROM|UPDATE|INTO) (\S+)", c)}
    of_google = {"`region-us`.INFORMATION_SCHEMA.JOBS_BY_PROJECT"}
    assert all(re.match(r"'\$(VIEWS|TABLES)'\.|'\$CHANGELOG'", name) for name in read - of_google)


def test_the_index_names_every_page() -> None:
    index = (FOLDER / "README.md").read_text()
    linked = set(re.findall(r"\]\(([\w/-]+)\.md\)", index))
    assert linked == {*PAGES, *(f"how-to/{name}" for name in HOW_TOS)}


def test_the_pages_say_the_retention_that_the_change_streams_have() -> None:
    sql = (ROOT / "contract" / "sql" / "spanner" / "003-change-streams.sql").read_text()
    [days] = set(re.findall(r"retention_period = '(\d+)d'", sql))
    said = {d for page in PAGES for d in re.findall(r"keeps\s+change\s+records\s+for\s+(\d+)\s+days", text(page))}
    assert said == {days}


@pytest.mark.parametrize(("stack", "prefix"), [("dev", ""), ("staging", "eu-1"), ("prod", "")])
def test_the_stack_script_sets_what_the_commands_name(stack: str, prefix: str, tmp_path: Path) -> None:
    """From the stack's own config and connection, also where it has a prefix and others own its database and keys."""
    config = yaml.safe_load((ROOT / f"Pulumi.{stack}.yaml").read_text())["config"]
    project = config["payment-audit:project"]
    names = naming.Names(project=project, prefix=prefix)
    wrote = {
        "spannerInstance": "the-instance",
        "spannerDatabase": "core",
        "spannerProject": "payments-prod",
        "metadataInstance": "its-own",
        "metadataDatabase": "audit-metadata",
        "maskingKeys": "projects/p/secrets/keys",
        "jobName": "eu-1-audit-stream-job",
        "viewsDataset": "eu_1_payment_views",
        "changelog": "eu_1_payment_audit.trail",
        "jobLog": "projects/logs/locations/eu/buckets/b/views/job",
        "keyRing": "projects/keys/locations/{location}/keyRings/ring",
    }
    program = tmp_path / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        f'"storage cat gs://{names.bucket("templates")}/{naming.CONNECTION}")\n'
        f"  echo '{json.dumps(wrote)}' ;;\n"
        "*--filter=name=eu-1-audit-stream-job*) echo 2026-11-24_job ;;\n*) exit 1 ;;\nesac\n"
    )
    program.chmod(0o755)
    here = tmp_path / "here"
    here.mkdir()
    for name in (".venv", "Pulumi.yaml"):
        (here / name).symlink_to(ROOT / name)
    own = (ROOT / f"Pulumi.{stack}.yaml").read_text()
    line = f"  payment-audit:prefix: {prefix}\n" if prefix else ""
    (here / f"Pulumi.{stack}.yaml").write_text(own.replace("config:\n", f"config:\n{line}", 1))
    shown = subprocess.run(
        ["bash", "-eu", "-c", f'. {FOLDER}/stack.sh {stack} && env && cat "$AUDIT_CONNECTION"'],
        cwd=here,
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    default = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())["config"]["region"]["default"]
    region = config.get("payment-audit:region", default)
    assert f"{project} in {region}, job 2026-11-24_job\n" in shown
    assert {
        f"PROJECT={project}",
        f"CLOUDSDK_CORE_PROJECT={project}",
        f"REGION={region}",
        f"PREFIX={prefix}{'-' if prefix else ''}",
        "INSTANCE=the-instance",
        "DATABASE=core",
        "SOURCE_PROJECT=payments-prod",
        "METADATA_INSTANCE=its-own",
        "METADATA_DATABASE=audit-metadata",
        "VIEWS=eu_1_payment_views",
        "CHANGELOG=eu_1_payment_audit.trail",
        "TABLES=eu_1_payment_audit",
        "JOB_LOG=projects/logs/locations/eu/buckets/b/views/job",
        "MASKING_KEYS=projects/p/secrets/keys",
        "KEY_RING=ring",
        "KEY_PROJECT=keys",
        "JOB_NAME=eu-1-audit-stream-job",
        "JOB=2026-11-24_job",
        f"AUDIT_CONNECTION={here}/.audit/{stack}.json",
    } <= set(shown.splitlines())
    assert '"spannerInstance": "the-instance"' in shown
