"""The watched tables: the file that describes them, checked against the changelog that it names."""

from components.config import ROOT
from components.settings.reader import Reader
from contract.dialects import GOOGLE_SQL, POSTGRESQL
from contract.schema import SchemaError
from contract.watched import WatchedError, WatchedTables


def watched_tables(read: Reader) -> WatchedTables:
    """The description that `tables` names; what it breaks is a problem of the stack's config."""
    file = read.text("tables", r"[A-Za-z0-9_./-]+\.toml", "the path of a .toml file, from the root of the repository")
    # One of neither is refused where it is read.
    dialect = POSTGRESQL if read.text("spannerDialect", ".*", "text") == POSTGRESQL else GOOGLE_SQL
    try:
        return WatchedTables.load(ROOT / file, dialect)
    except (WatchedError, SchemaError) as error:
        read.problems += str(error).splitlines()
    return WatchedTables.load()
