"""Names in code that the glossary has replaced do not come back."""

from __future__ import annotations

import io
import re
import tokenize

import pytest

from tests.docs.test_words import SOURCES
from tests.documents import ROOT

# Old name → the name for it.
GONE = {
    r"_?tell_\w+|_tell|_?told|tells": "report, say, notify",
    r"[Tt]rouble(_of)?": "ErrorClass, error_fields",
    r"dress": "install_json_formatter",
    r"tidy": "no_dead_letters",
    r"set_aside": "park",
    r"(schema_)?mend": "fix",
    r"_?WAY_OUT": "_REMEDY",
    r"_?promise\w*": "slo",
    r"Here|_?here": "opts, a name for what it is",
    r"_?may_(on_dataset|query|read\w*|encrypt|pull|look|act_as\w*)": "grant_…",
    r"Day|DayOnPaper": "GameDay",
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_name_that_was_replaced_is_gone(source: str) -> None:
    tokens = tokenize.generate_tokens(io.StringIO((ROOT / source).read_text()).readline)
    names = {token.string: token.start[0] for token in tokens if token.type == tokenize.NAME}
    found = {n: (line, new) for n, line in names.items() for old, new in GONE.items() if re.fullmatch(old, n)}
    assert found == {}
