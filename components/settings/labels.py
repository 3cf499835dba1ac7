"""The labels of everything that the stack makes: those by which it is found, and the organisation's own beside them."""

from collections.abc import Mapping
from typing import Final

from components import naming
from components.settings.reader import Reader

# cloud.google.com/resource-manager/docs/labels-overview: form, and 64 at most for a resource. An alert has two
# more, severity and team, which stay.
_LABEL: Final = r"[a-z][a-z0-9_-]{0,62}=[a-z0-9_-]{0,63}"
_RULE: Final = "labels as key=value in lower case, digits, _ and -, such as cost-center=42"
_MOST: Final = 50


def labels(read: Reader) -> Mapping[str, str]:
    """Every label of the stack. The provider's own begin with goog-, so none of theirs may."""
    ours = naming.labels(read.stack, read.text("prefix", ".*", "text"))
    theirs = [label.partition("=")[::2] for label in read.texts("labels", _LABEL, _RULE)]
    keys = [key for key, _ in theirs]
    for key in keys:
        if key in ours or key.startswith("goog") or keys.count(key) > 1:
            rule = f"other labels than {', '.join(ours)} and goog…, each once"
            read.refuse("labels", rule, key)
    if len(keys) > _MOST:
        read.refuse("labels", f"at most {_MOST}", str(len(keys)))
    return {**dict(theirs), **ours}
