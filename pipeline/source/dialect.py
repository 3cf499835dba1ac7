"""Which dialect a database has: it is asked, once for each client of it."""

from __future__ import annotations

from typing import Any, Final

from contract import dialects
from contract.dialects import Dialect

# Where it is kept: the client library's databases are not hashable.
_KEPT: Final = "_audit_dialect"


def dialect_of(database: Any) -> Dialect:
    """The dialect of a client library's database. Raises what its query raises, and UnknownDialect."""
    found: Dialect | None = vars(database).get(_KEPT)
    if found is None:
        with database.snapshot() as snapshot:
            found = dialects.answered(snapshot.execute_sql(dialects.WHICH))
        setattr(database, _KEPT, found)
    return found
