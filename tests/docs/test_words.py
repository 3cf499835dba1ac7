"""The words of docs/glossary.md, and no others: over the documents, and in code over docstrings, comments and all that
people read (help texts, log lines, messages of errors, titles of alerts).

A pattern has its remedy; what may stay has its reason. Code in backticks and fenced blocks is not looked at.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from typing import Final

import pytest

from tests.documents import DOCUMENTS, FENCE, ROOT, TRACKED

# What is counted one by one: "a row a payment" is "one row per payment".
_COUNTED: Final = (
    "alert|batch|bundle|change|column|commit|entry|file|job|key|ledger|line|modification|partition|payment|process"
    "|project|record|region|rotation|round|row|section|shard|source|stack|store|stream|table|thread|worker"
)

_ONE: Final = r"(?:an?|one) (?!(?:that|is|of|which|to|or)\b)\w+"
_SOME: Final = r"\d+ (?:bytes|[KM]i?B|rows|records|lines|calls)"
# "is no more than" and its kind are English.
_COMPARED: Final = "longer|more|other|better|sooner|younger|older|later|less|larger"

# A word not to use → what to write instead.
WORDS: Final[dict[str, str]] = {
    r"(?<![Dd]ead )(?<![Dd]ead-)letters?": "dead letter",
    r"tells?|told|telling": "say, show, report; of people: notify, recipients",
    r"promis(?:e|es|ed|ing)": "SLO, guarantee",
    rf"(?:{_ONE}|{_SOME}) an? (?:{_COUNTED})(?! or\b)": "one … per …",
    r"(?:stands?|stood|standing)(?!-)(?! (?:in )?for\b)": "is; of a watermark or position: is stalled, does not move",
    r"mend(?:s|ed|ing)?": "fix",
    r"ways? out": "remedy",
    r"look(?:s|ed|ing)? (?:whether|if)|looks that": "check whether, check that",
    r"(?:goes|go|went|going|gone) on": "continue, resume, keep …ing",
    r"sets? aside|setting aside": "park",
    r"least severe": "minimum log level",
    r"tired": "exhausted",
    r"whatever": "any, regardless of",
    r"kn(?:ow|ows|ew) of": "know about, have",
    r"of (?:its|their|our|one's|the \w+'s) own": "its own …, a separate …",
    r"of ours": "our, one of our",
    r"(?:is|are|was|were) asked for": "is requested",
    r"wants?|wanted": "need, require, request",
    r"so (?:many|often)": "this many, at this interval",
    r"that there (?:is|are|was|were)": "that exists",
    r"again and again": "repeatedly",
    r"for good": "permanently",
    r"for ever|ever more": "forever, more and more",
    r"anew": "again, from scratch",
    r"at hand": "current",
    r"without a word": "silently, without a warning",
    r"all the same": "still",
    rf"(?<![Tt]here )(?:is|are|was|were|be) (?:no|none)(?! (?:{_COMPARED})\b)": "is not a …",
    r"(?:is|are) well": "is healthy",
    r"rid of": "remove, close",
    r"to be had": "available",
    r"and (?:its|the|their) like": "and similar",
    r"at the data": "from the data itself",
    r"hears? of": "is notified of",
    r"hand(?:s|ed)? on": "pass on",
    r"shall": "must, should",
    r"just so": "narrowly",
}

# Where a word may stay: the file's beginning, the word's pattern as a search in the text, and why.
EXCEPTIONS: Final[tuple[tuple[str, str, str], ...]] = (
    ("pipeline/transforms/", r"letters?", "letters of the alphabet"),
    ("runbooks/how-to/drain-cancel-update.md", r"you want", "a person wants something"),
    ("guardrails/stores.py", r"the job's own", "the files are the job's, not Beam's"),
)

PACKAGES: Final = (
    *("alerts", "bench", "bootstrap", "components", "contract", "delivery", "graph", "guardrails", "local", "pipeline"),
    *("probe", "support"),
)
SOURCES: Final = tuple(
    name for name in TRACKED if name.endswith(".py") and ("/" not in name or name.partition("/")[0] in PACKAGES)
)
# Liquibase knows a changeset by its text: what was shipped stays.
OTHERS: Final = tuple(
    name
    for name in TRACKED
    if re.search(r"\.(?:ya?ml|toml|sh|sql)$|(?:^|/)(?:Makefile|Dockerfile)$", name)
    and not name.startswith(("contract/sql/spanner/", "contract/sql/metadata/", "tests/"))
)
_PATTERNS: Final = {word: re.compile(rf"\b(?:{word})\b") for word in WORDS}


def _prose(markdown: str) -> Iterator[tuple[int, str]]:
    """Paragraphs without code, links' targets and comments, each with its line."""
    text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), markdown)
    line = 1
    for paragraph in re.split(r"\n(?=\s*(?:[-*|#\d]|$))", text):
        yield line, re.sub(r"\]\([^)]*\)|<!--.*?-->", "]", paragraph)
        line += paragraph.count("\n") + 1


def _said(source: str) -> Iterator[tuple[int, str]]:
    """Strings of more than one word, titles, and comments, of which lines that follow each other are one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
        elif isinstance(node, ast.keyword) and node.arg in ("title", "help") and isinstance(node.value, ast.Constant):
            yield node.value.lineno, str(node.value.value)
    comment: list[str] = []
    begin, last = 0, -1
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if token.start[0] != last + 1:
                yield begin, " ".join(comment)
                comment, begin = [], token.start[0]
            comment.append(token.string.lstrip("# "))
            last = token.start[0]
    yield begin, " ".join(comment)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The comments, descriptions and help texts of other files, line by line."""
    for line, content in enumerate(text.splitlines(), 1):
        if said := re.search(r"(?:#+|--|description:|say \"|fail \") ?(.*\w \w.*)", content):
            yield line, said[1]


def _found(name: str, texts: Iterator[tuple[int, str]]) -> list[str]:
    allowed = [pattern for begin, pattern, _ in EXCEPTIONS if name.startswith(begin)]
    found = []
    for line, text in texts:
        plain = " ".join(re.sub(r"`[^`]*`", "`…`", text).split())
        for pattern in allowed:
            plain = re.sub(rf"\b(?:{pattern})\b", "…", plain)
        for word, compiled in _PATTERNS.items():
            if hit := compiled.search(plain) or compiled.search(plain[:1].lower() + plain[1:]):
                around = plain[max(0, hit.start() - 40) : hit.end() + 40]
                found.append(f"{name}:{line}: …{around}… → {WORDS[word]}")
    return found


@pytest.mark.parametrize("document", DOCUMENTS)
def test_a_document_has_the_words_of_the_field(document: str) -> None:
    assert _found(document, _prose((ROOT / document).read_text())) == []


@pytest.mark.parametrize("source", SOURCES)
def test_what_code_says_has_the_words_of_the_field(source: str) -> None:
    assert _found(source, _said((ROOT / source).read_text())) == []


@pytest.mark.parametrize("file", OTHERS)
def test_what_other_files_say_has_the_words_of_the_field(file: str) -> None:
    assert _found(file, _lines((ROOT / file).read_text())) == []


@pytest.mark.parametrize(
    "text",
    [
        "A letter is parked.",
        "Letters are parked.",
        "The watermark stands.",
        "The message has the way out.",
        "It looks whether\n  the job runs.",
        "Goes on at the position.",
        "One row a payment.",
        "About 300 bytes a change.",
        "Its Status is no text.",
        "A stack of its own.",
    ],
)
def test_a_word_not_to_use_is_found_over_the_end_of_a_line_and_at_the_start(text: str) -> None:
    assert _found("x.md", _prose(text))
    assert _found("x.py", _said(f'"""{text}"""\n'))


@pytest.mark.parametrize(
    "text",
    ["A dead letter is parked.", "Dead letters: 3.", "There is no row.", "Run `mend` now.", "500 changes a second."],
)
def test_a_word_of_the_field_is_left_alone(text: str) -> None:
    assert _found("x.md", _prose(text)) == []


def test_every_exception_is_used() -> None:
    for begin, pattern, reason in EXCEPTIONS:
        names = [name for name in (*DOCUMENTS, *SOURCES, *OTHERS) if name.startswith(begin)]
        assert reason
        assert any(re.search(rf"\b(?:{pattern})\b", (ROOT / name).read_text()) for name in names), begin
