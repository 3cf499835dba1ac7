"""Spanner's DDL, as far as a changelog uses it: what statements leave behind of tables, columns, indexes, change
streams, database roles and their privileges.

Statements of both dialects leave the same behind: types are named as Spanner's API names them. What is not understood
is refused: a statement that is read wrongly loses columns silently. A test compares what is read here with Spanner's
own INFORMATION_SCHEMA.
Grammar: https://cloud.google.com/spanner/docs/reference/standard-sql/data-definition-language
and https://cloud.google.com/spanner/docs/reference/postgresql/data-definition-language
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple, Never

from contract import dialects
from contract.dialects import Dialect
from contract.errors import AuditError


class SchemaError(AuditError, ValueError):
    """A changelog breaks a rule; the message names the file, the changeset and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a source table. `type` is Spanner's own text, such as `STRING(36)` or `ARRAY<INT64>`."""

    name: str
    type: str
    not_null: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A source table: the columns a change stream can carry (generated ones are left out) and its key."""

    name: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...] = field(default=())


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A change stream. `tables` is None for every table, also one that is made later. `options` by lower-case name."""

    name: str
    tables: tuple[str, ...] | None
    options: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Index:
    """A secondary index: the columns of its key, in order, and those that it stores."""

    name: str
    table: str
    key: tuple[str, ...]
    storing: frozenset[str] = frozenset()
    unique: bool = False
    null_filtered: bool = False


class Privilege(NamedTuple):
    """What a database role may do: with one `column` of a table, or with all of an object where it is empty.

    `kind` is TABLE, VIEW, CHANGE STREAM, TABLE FUNCTION, SCHEMA or ROLE, whose `action` is MEMBER.
    """

    role: str
    action: str
    kind: str
    name: str
    column: str = ""


class Token(NamedTuple):
    """A piece of a statement. `kind`: comment, string, quoted (a name in backticks), word, number or mark."""

    kind: str
    text: str
    start: int


_TOKEN: Final = re.compile(
    r"""
      (?P<comment> --[^\n]* | \#[^\n]* | /\*.*?\*/ )
    | (?P<string> (?:[rR][bB]?|[bB][rR]?)? (?:
          '''(?:\\.|[^\\])*?''' | \"{3}(?:\\.|[^\\])*?\"{3}
        | '(?!'')(?:\\.|[^'\\\n])*' | "(?!"")(?:\\.|[^"\\\n])*" ) )
    | `(?P<quoted> [^`\\\n]+ )`
    | (?P<word> [A-Za-z_]\w* )
    | (?P<number> [0-9][\w.]* )
    | (?P<mark> => | [^\s\w'"`] )
    """,
    re.X | re.S | re.A,
)
# PostgreSQL's: a name is in double quotes, a backslash in a string is one.
_TOKEN_OF_POSTGRESQL: Final = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<string> '(?:''|[^'])*' )
    | "(?P<quoted> [^"\n]+ )"
    | (?P<word> [A-Za-z_]\w* )
    | (?P<number> [0-9][\w.]* )
    | (?P<mark> :: | [^\s\w'"] )
    """,
    re.X | re.S | re.A,
)
_BLANK: Final = re.compile(r"\s*")

_SCALARS: Final = "BOOL|INT64|FLOAT32|FLOAT64|NUMERIC|STRING|BYTES|DATE|TIMESTAMP|JSON|UUID|INTERVAL|TOKENLIST"
# Statements about other things than tables' columns and change streams, by their first words.
_PASSED: Final = re.compile(
    r"(CREATE|ALTER|DROP) ((SEARCH |VECTOR )INDEX|SEQUENCE|VIEW|MODEL|STATISTICS"
    r"|LOCALITY GROUP|PLACEMENT|PROPERTY GRAPH|FUNCTION|PROTO BUNDLE)\b|ALTER DATABASE\b|ALTER INDEX\b"
    r"|CREATE OR REPLACE (VIEW|MODEL|PROPERTY GRAPH|FUNCTION)\b|ANALYZE$"
)


def tokens(sql: str, dialect: Dialect | None = None) -> Iterator[Token]:
    """The tokens of a text, comments among them. Raises SchemaError for a string or comment without its end."""
    at, pattern = 0, _TOKEN_OF_POSTGRESQL if _is_postgresql(dialect) else _TOKEN
    while (at := _BLANK.match(sql, at).end()) < len(sql):  # type: ignore[union-attr]
        found = pattern.match(sql, at)
        if not found or (sql.startswith("/*", at) and found.lastgroup != "comment"):
            raise SchemaError(f"what begins with {head(sql[at:])!r} has no end, or is not Spanner SQL.")
        kind = str(found.lastgroup)
        yield Token(kind, found[kind], at)
        at = found.end()


def _is_postgresql(dialect: Dialect | None) -> bool:
    return dialect is not None and dialect.name == dialects.POSTGRESQL


@dataclass
class _Table:
    """A table while its statements are read. `generated` holds the names of the columns that Spanner computes."""

    name: str
    columns: dict[str, Column] = field(default_factory=dict)
    generated: set[str] = field(default_factory=set)
    key: tuple[str, ...] | None = None


class Catalog:
    """What the statements of one dialect that were run so far leave behind."""

    def __init__(self, dialect: Dialect | None = None) -> None:
        self._dialect = dialect
        self.schemas: set[str] = set()
        self.indexes: dict[str, Index] = {}
        self.roles: set[str] = set()
        self.privileges: set[Privilege] = set()
        self._tables: dict[str, _Table] = {}
        self._streams: dict[str, Stream] = {}

    def run(self, sql: str) -> None:
        """Reads one statement. Raises SchemaError, with its beginning, where it is not understood."""
        try:
            self._statement(_Words(sql, self._dialect))
        except SchemaError as error:
            raise SchemaError(f"{error} The statement: {head(sql)}") from None

    def know(self, table: Table) -> None:
        """Takes a table as made, by what is known of it."""
        columns = {column.name: column for column in table.columns}
        self._tables[table.name] = _Table(table.name, columns=columns, key=table.primary_key)

    def tables(self) -> dict[str, Table]:
        """The tables by name, in the order in which they were made."""
        return {
            table.name: Table(
                name=table.name,
                columns=tuple(c for c in table.columns.values() if c.name not in table.generated),
                primary_key=table.key or (),
            )
            for table in self._tables.values()
        }

    def streams(self) -> dict[str, Stream]:
        """The change streams by name."""
        return {stream.name: stream for stream in self._streams.values()}

    def _statement(self, words: _Words) -> None:
        if not (self._of_schema(words) or self._of_table(words) or self._of_stream(words) or self._of_access(words)):
            if _PASSED.match(words.rest()):
                return
            words.refuse("a statement that is known here")
        words.end()

    def _of_schema(self, words: _Words) -> bool:
        if words.take("CREATE", "SCHEMA"):
            words.take("IF", "NOT", "EXISTS")
            self.schemas.add(words.name())
        elif words.take("DROP", "SCHEMA"):
            words.take("IF", "EXISTS")
            self.schemas.discard(words.name())
        else:
            return False
        return True

    def _of_table(self, words: _Words) -> bool:
        if words.take("CREATE", "TABLE"):
            self._create_table(words)
        elif words.take("ALTER", "TABLE"):
            self._alter_table(words)
        elif words.take("DROP", "TABLE"):
            missing, table = words.take("IF", "EXISTS"), words.path()
            if not missing or _known(table, self._tables):
                del self._tables[self._unwatched(table).name]
        elif words.take("RENAME", "TABLE"):
            self._rename(words.path(), words.to())
            while words.take(","):
                self._rename(words.path(), words.to())
        elif words.take("DROP", "INDEX"):
            words.take("IF", "EXISTS")
            self.indexes.pop(words.path(), None)
        elif index := _index(words):
            self.indexes[index.name] = index
        else:
            return False
        return True

    def _of_stream(self, words: _Words) -> bool:
        if words.take("CREATE", "CHANGE", "STREAM"):
            self._stream(Stream(name=words.path(), tables=(), options={}), words)
        elif words.take("ALTER", "CHANGE", "STREAM"):
            self._alter_stream(words)
        elif words.take("DROP", "CHANGE", "STREAM"):
            del self._streams[self._stream_of(words.path()).name]
        else:
            return False
        return True

    def _of_access(self, words: _Words) -> bool:
        if words.take("CREATE", "ROLE"):
            self.roles.add(words.name())
        elif words.take("DROP", "ROLE"):
            self.roles.discard(words.name())
        elif words.take("GRANT"):
            self.privileges |= set(_privileges(words, "TO"))
        elif words.take("REVOKE"):
            self.privileges -= set(_privileges(words, "FROM"))
        else:
            return False
        return True

    # ------------------------------------------------------------------ tables

    def _create_table(self, words: _Words) -> None:
        there = words.take("IF", "NOT", "EXISTS")
        table = _Table(words.path())
        # The database's own DDL may leave its schemas out: one that is not known is as it is written here.
        _known(dialects.schema_of(table.name), self.schemas)
        words.need("(")
        while not words.take(")"):
            if not _constraint(words, table):
                _column(words, table)
            words.comma()
        if words.take("PRIMARY", "KEY"):
            table.key = _key(words, table)
        while words.take(","):
            _table_option(words)
        if words.postgresql:
            # INTERLEAVE IN, TTL INTERVAL: without a comma.
            words.skip()
            for name in table.key or ():
                table.columns[name] = replace(table.columns[name], not_null=True)
        words.end()
        if table.key is None:
            raise SchemaError(f"table {table.name} must have a PRIMARY KEY.")
        if not _known(table.name, self._tables):
            self._tables[table.name] = table
        elif not there:
            raise SchemaError(f"table {table.name} is there already.")

    def _alter_table(self, words: _Words) -> None:
        table = self._table(words.path())
        if words.take("RENAME"):
            self._rename(table.name, words.to())
        elif words.take("ADD"):
            if words.take("ROW", "DELETION", "POLICY"):
                words.group()
            elif not _constraint(words, table):
                words.take("COLUMN")
                _column(words, table, there=words.take("IF", "NOT", "EXISTS"))
        elif words.take("REPLACE", "ROW", "DELETION", "POLICY"):
            words.group()
        elif words.take("ALTER", "COLUMN"):
            _alter_column(words, table)
        elif words.take("SET", "OPTIONS"):
            words.group()
        elif words.take("SET"):
            if not _on_delete(words):
                words.refuse("ON DELETE or OPTIONS")
        elif words.take("DROP", "CONSTRAINT"):
            words.name()
        elif not words.take("DROP", "ROW", "DELETION", "POLICY"):
            words.need("DROP")
            words.take("COLUMN")
            missing, name = words.take("IF", "EXISTS"), words.name()
            if not missing or _known(name, table.columns):
                del table.columns[_of(table, name).name]
                table.generated.discard(name)

    def _rename(self, old: str, new: str) -> None:
        table = self._unwatched(old)
        if _known(new, self._tables):
            raise SchemaError(f"table {new} is there already.")
        del self._tables[table.name]
        self._tables[new] = replace(table, name=new)

    def _unwatched(self, name: str) -> _Table:
        """A table that is to go, or to be called otherwise: Spanner refuses both of one that a stream names."""
        table = self._table(name)
        if by := [s.name for s in self._streams.values() if table.name in (s.tables or ())]:
            raise SchemaError(f"table {name} must be watched by no change stream by its name, got {', '.join(by)}.")
        return table

    def _table(self, name: str) -> _Table:
        if not _known(name, self._tables):
            raise SchemaError(f"table {name} must be made by an earlier changeset.")
        return self._tables[name]

    # ------------------------------------------------------------------ change streams

    def _alter_stream(self, words: _Words) -> None:
        stream = self._stream_of(words.path())
        if words.take("DROP", "FOR", "ALL"):
            self._streams[stream.name] = replace(stream, tables=())
        else:
            if not words.peek("SET", "("):
                words.need("SET")
            del self._streams[stream.name]
            self._stream(stream, words)

    def _stream(self, stream: Stream, words: _Words) -> None:
        """Reads `FOR …` and `OPTIONS …`, and keeps the stream as they change it."""
        if _known(stream.name, self._streams):
            raise SchemaError(f"change stream {stream.name} is there already.")
        watched, options = stream.tables, dict(stream.options)
        if words.take("FOR"):
            watched = None if words.take("ALL") else self._watched(words)
        if words.take("OPTIONS") or (words.postgresql and (words.take("WITH") or words.take("SET"))):
            options |= _options(words)
        self._streams[stream.name] = Stream(name=stream.name, tables=watched, options=options)

    def _watched(self, words: _Words) -> tuple[str, ...]:
        """`table, table(column, …), …`: the tables."""
        found: list[str] = []
        while not found or words.take(","):
            table = self._table(words.path())
            found.append(table.name)
            if words.take("("):
                while not words.take(")"):
                    _of(table, words.name())
                    words.comma()
        return tuple(found)

    def _stream_of(self, name: str) -> Stream:
        if not _known(name, self._streams):
            raise SchemaError(f"change stream {name} must be made by an earlier changeset.")
        return self._streams[name]


# ---------------------------------------------------------------------- indexes and privileges


def _index(words: _Words) -> Index | None:
    """`CREATE [UNIQUE] [NULL_FILTERED] INDEX …`, if that is next."""
    kinds = {"UNIQUE": False, "NULL_FILTERED": False}
    if not re.match(r"CREATE (UNIQUE )?(NULL_FILTERED )?INDEX\b", words.rest()):
        return None
    words.need("CREATE")
    for kind in kinds:
        kinds[kind] = words.take(kind)
    words.need("INDEX")
    words.take("IF", "NOT", "EXISTS")
    name = words.path()
    words.need("ON")
    table, key = words.path(), words.names()
    if words.postgresql:
        # It is in its table's schema, which no statement of this dialect names.
        name = dialects.beside(table, name)
    storing = words.names() if words.take("STORING") or words.take("INCLUDE") else ()
    # A WHERE, an interleaving, options.
    words.skip()
    return Index(
        name=name,
        table=table,
        key=key,
        storing=frozenset(storing),
        unique=kinds["UNIQUE"],
        null_filtered=kinds["NULL_FILTERED"],
    )


# Longer ones first.
_KINDS: Final = (
    ("CHANGE", "STREAM"),
    ("TABLE", "FUNCTION"),
    ("FUNCTION",),
    ("TABLE",),
    ("VIEW",),
    ("SCHEMA",),
    ("SEQUENCE",),
)
# What PostgreSQL calls the read function of a change stream, which has one of both, by its partition mode.
_READ: Final = re.compile(r"^spanner\.read_(json|proto_bytes)_")


def _privileges(words: _Words, whose: str) -> Iterator[Privilege]:
    """What follows GRANT, or REVOKE with FROM. What is given on all tables of a schema is of the object `*` there."""
    if words.take("ROLE"):
        members = words.paths()
        actions: list[tuple[str, tuple[str, ...]]] = [("MEMBER", ())]
        kind = "ROLE"
    else:
        actions, members = [], []
        while not actions or words.take(","):
            action = words.name().upper()
            actions.append((action, words.names() if words.peek("(") else ()))
        words.need("ON")
        if words.take("ALL"):
            kind = words.rest().partition(" IN ")[0].removesuffix("S")
            words.skip_to("SCHEMA")
            words.need("SCHEMA")
            members = ["*" if name.lower() in dialects.DEFAULT_SCHEMAS else f"{name}.*" for name in words.paths()]
        else:
            taken = next((kind for kind in _KINDS if words.take(*kind)), None)
            if taken is None:
                words.refuse("TABLE, VIEW, CHANGE STREAM, TABLE FUNCTION, SCHEMA or SEQUENCE")
            kind, members = " ".join(taken), words.paths()
        if kind == "FUNCTION":
            kind = "TABLE FUNCTION"
            members = [_READ.sub("READ_", member) for member in members]
    words.need(whose)
    if not words.postgresql:
        words.need("ROLE")
    for role in words.paths():
        for action, columns in actions:
            for name in members:
                for column in columns or ("",):
                    yield Privilege(role, action, kind, name, column)


# ---------------------------------------------------------------------- parts of a table


def _column(words: _Words, table: _Table, *, there: bool = False) -> None:
    """Reads a column's definition into the table; with `there`, only where it has none of that name."""
    name = words.name()
    kind = _type(words)
    not_null, generated = _properties(words, table, name)
    if not _known(name, table.columns):
        table.columns[name] = Column(name=name, type=kind, not_null=not_null)
        table.generated |= {name} if generated else set()
    elif not there:
        raise SchemaError(f"column {name} is in {table.name} already.")


def _type(words: _Words) -> str:
    """`STRING(36)`, `ARRAY<INT64>`: in Spanner's own spelling, without what a vector says of its length.

    A PROTO or ENUM is named by its path, `shop.Order`: the DDL does not say which of both it is.
    """
    if words.postgresql:
        return _type_of_postgresql(words)
    if words.take("ARRAY"):
        words.need("<")
        kind = f"ARRAY<{_type(words)}>"
        words.need(">")
        if words.take("(", "VECTOR_LENGTH", "=>"):
            words.number()
            words.need(")")
        return kind
    path = words.path()
    if "." in path:
        return path
    kind = path.upper()
    if not re.fullmatch(_SCALARS, kind):
        raise SchemaError(
            f"a column's type must be {_SCALARS}, the path of a PROTO or ENUM, or an ARRAY<…> of one, got {kind}."
        )
    if kind in ("STRING", "BYTES"):
        words.need("(")
        kind += "(MAX)" if words.take("MAX") else f"({words.number()})"
        words.need(")")
    return kind


def _type_of_postgresql(words: _Words) -> str:
    """`character varying(36)`, `bigint[]`: as Spanner's API names it."""
    first = words.path().lower()
    more = next((more for more in (("VARYING",), ("PRECISION",), ("WITH", "TIME", "ZONE")) if words.take(*more)), ())
    kind = " ".join((first, *more)).lower()
    if kind not in dialects.TYPES:
        raise SchemaError(
            f"a column's type must be one of {', '.join(dialects.TYPES)}, or an array of one, got {kind}."
        )
    if words.take("("):
        kind += f"({words.number()})"
        words.need(")")
    if words.take("["):
        words.need("]")
        kind += "[]"
        if words.take("VECTOR", "LENGTH"):
            words.number()
    return dialects.named(dialects.POSTGRESQL).type(kind)


def _properties(words: _Words, table: _Table, name: str) -> tuple[bool, bool]:
    """Reads what follows a column's type: whether it is NOT NULL, and whether Spanner computes it."""
    not_null = generated = False
    while True:
        if words.take("NOT", "NULL"):
            not_null = True
        elif words.postgresql and words.take("DEFAULT"):
            words.expression()
        elif words.postgresql and words.take("GENERATED", "ALWAYS"):
            words.need("AS")
            words.group()
            if not words.take("STORED"):
                words.take("VIRTUAL")
            generated = True
        elif words.take("NULL"):
            continue
        elif words.take("DEFAULT") or words.take("ON", "UPDATE") or words.take("OPTIONS"):
            words.group()
        elif words.take("GENERATED", "BY", "DEFAULT", "AS", "IDENTITY"):
            if words.peek("("):
                words.group()
        elif words.take("AS"):
            words.group()
            words.take("STORED")
            generated = True
        elif words.take("PRIMARY", "KEY"):
            table.key = (*(table.key or ()), name)
        elif not words.take("HIDDEN"):
            return not_null, generated


def _alter_column(words: _Words, table: _Table) -> None:
    column = _of(table, words.name())
    name = column.name
    if words.postgresql and words.take("SET", "DEFAULT"):
        words.expression()
    elif words.take("SET", "OPTIONS") or words.take("SET", "DEFAULT") or words.take("SET", "ON", "UPDATE"):
        words.group()
    elif words.take("SET", "NOT", "NULL"):
        table.columns[name] = replace(column, not_null=True)
    elif words.take("DROP", "NOT", "NULL"):
        table.columns[name] = replace(column, not_null=False)
    elif words.take("ALTER", "IDENTITY"):
        words.skip()
    elif not (words.take("DROP", "DEFAULT") or words.take("DROP", "ON", "UPDATE")):
        if words.postgresql:
            words.need("TYPE")
        kind = _type(words)
        not_null, generated = _properties(words, table, name)
        if words.postgresql:
            # It says the type alone.
            not_null, generated = column.not_null, name in table.generated
        if generated != (name in table.generated):
            raise SchemaError(f"column {name} cannot become generated, nor cease to be.")
        table.columns[name] = replace(column, type=kind, not_null=not_null)


def _constraint(words: _Words, table: _Table) -> bool:
    """Reads a constraint, if one is next: it makes no column. A column may be called CHECK, or CONSTRAINT."""
    named = words.peek("CONSTRAINT") and (words.peek("CHECK", after=2) or words.peek("FOREIGN", after=2))
    if named:
        words.need("CONSTRAINT")
        words.name()
    if words.peek("CHECK", "("):
        words.need("CHECK")
        words.group()
        words.take("NOT")
        words.take("ENFORCED")
        return True
    if words.take("FOREIGN", "KEY"):
        words.group()
        words.need("REFERENCES")
        words.path()
        words.group()
        _on_delete(words)
        words.take("NOT")
        words.take("ENFORCED")
        return True
    if words.take("PRIMARY", "KEY"):
        table.key = _key(words, table)
        return True
    if named:
        words.refuse("CHECK (…) or FOREIGN KEY (…)")
    return False


def _key(words: _Words, table: _Table) -> tuple[str, ...]:
    names: list[str] = []
    words.need("(")
    while not words.take(")"):
        names.append(_of(table, words.name()).name)
        if not words.take("ASC"):
            words.take("DESC")
        words.comma()
    return tuple(names)


def _table_option(words: _Words) -> None:
    """What may follow a key: INTERLEAVE IN [PARENT] …, ROW DELETION POLICY (…), OPTIONS (…)."""
    if words.take("INTERLEAVE", "IN"):
        words.take("PARENT")
        words.path()
        _on_delete(words)
    else:
        if not words.take("ROW", "DELETION", "POLICY"):
            words.need("OPTIONS")
        words.group()


def _on_delete(words: _Words) -> bool:
    if not words.take("ON", "DELETE"):
        return False
    if not words.take("NO", "ACTION"):
        words.need("CASCADE")
    return True


def _options(words: _Words) -> dict[str, str]:
    """`(name = value, …)`: the values as text, a string without its quotes."""
    found: dict[str, str] = {}
    words.need("(")
    while not words.take(")"):
        name = words.name().lower()
        words.need("=")
        found[name] = words.value()
        words.comma()
    return found


def _of(table: _Table, name: str) -> Column:
    if not _known(name, table.columns):
        raise SchemaError(f"column {name} must be in {table.name}.")
    return table.columns[name]


def _known(name: str, names: Collection[str]) -> bool:
    """Whether it is one of the names. In another case Spanner takes some for the same name and some for another."""
    if other := [each for each in names if each != name and each.casefold() == name.casefold()]:
        raise SchemaError(f"{name} must be written {other[0]}, as where it was made.")
    return name in names


# ---------------------------------------------------------------------- words


class _Words:
    """A statement's tokens, read from left to right. A keyword is a word without quotes, in any case."""

    def __init__(self, sql: str, dialect: Dialect | None = None) -> None:
        self.postgresql = _is_postgresql(dialect)
        self._tokens = [token for token in tokens(sql, dialect) if token.kind != "comment"]
        self._at = 0

    def peek(self, *words: str, after: int = 0) -> bool:
        """Whether these keywords and marks are next, or after that many tokens."""
        start = self._at + after
        there = self._tokens[start : start + len(words)]
        return len(there) == len(words) and all(
            token.kind in ("word", "mark") and token.text.upper() == word
            for token, word in zip(there, words, strict=True)
        )

    def take(self, *words: str) -> bool:
        """Steps over them, if they are next."""
        if taken := self.peek(*words):
            self._at += len(words)
        return taken

    def need(self, *words: str) -> None:
        if not self.take(*words):
            self.refuse(" ".join(words))

    def comma(self) -> None:
        """Steps over a comma in a list, which the last one does not need."""
        if not self.take(",") and not self.peek(")"):
            self.refuse(")")

    def name(self) -> str:
        """A name. PostgreSQL takes one without quotes for the same in lower case."""
        text = self._next("a name", "word", "quoted")
        return text.lower() if self.postgresql and self._tokens[self._at - 1].kind == "word" else text

    def path(self) -> str:
        """A name, with its schema's before it where it has one. Backticks may be round both."""
        path = self.name()
        while self.take("."):
            path = f"{path}.{self.name()}"
        return path.removeprefix("public.") if self.postgresql else path

    def paths(self) -> list[str]:
        """`name, name, …`."""
        found = [self.path()]
        while self.take(","):
            found.append(self.path())
        return found

    def names(self) -> tuple[str, ...]:
        """`(name, name DESC, …)`: the names."""
        found: list[str] = []
        self.need("(")
        while not self.take(")"):
            found.append(self.name())
            if not self.take("ASC"):
                self.take("DESC")
            if self.take("NULLS") and not self.take("FIRST"):
                self.need("LAST")
            self.comma()
        return tuple(found)

    def to(self) -> str:
        """The new name after TO."""
        self.need("TO")
        return self.path()

    def number(self) -> int:
        text = self._next("a number", "number")
        if not re.fullmatch(r"[0-9]+|0[xX][0-9a-fA-F]+", text):
            raise SchemaError(f"{text} must be a whole number.")
        return int(text, 16 if "x" in text.lower() else 10)

    def value(self) -> str:
        """A string without its quotes, a number, or a word such as true."""
        text = self._next("a value", "string", "number", "word")
        return text[1:-1] if text[0] in "'\"" else text

    def group(self) -> None:
        """Steps over what is in parentheses, which is an expression of any kind."""
        self.need("(")
        depth = 1
        while depth:
            if self._at == len(self._tokens):
                self.refuse("a closing )")
            depth += self.peek("(") - self.peek(")")
            self._at += 1

    def expression(self) -> None:
        """Steps over one that nothing is round: to where another property begins, or the column ends."""
        ends = (("NOT", "NULL"), ("GENERATED",), ("PRIMARY", "KEY"), ("CONSTRAINT",), (",",), (")",))
        while self._at < len(self._tokens) and not any(self.peek(*end) for end in ends):
            if self.peek("("):
                self.group()
            else:
                self._at += 1

    def skip(self) -> None:
        self._at = len(self._tokens)

    def skip_to(self, word: str) -> None:
        while self._at < len(self._tokens) and not self.peek(word):
            self._at += 1

    def rest(self) -> str:
        """The words that are left, in capitals."""
        return " ".join(token.text.upper() for token in self._tokens[self._at :])

    def end(self) -> None:
        if self._at < len(self._tokens):
            self.refuse("the end")

    def refuse(self, wanted: str) -> Never:
        there = self._tokens[self._at].text if self._at < len(self._tokens) else "the end"
        raise SchemaError(f"{wanted} must be where {there!r} is, or it is not understood here.")

    def _next(self, wanted: str, *kinds: str) -> str:
        if self._at >= len(self._tokens) or self._tokens[self._at].kind not in kinds:
            self.refuse(wanted)
        self._at += 1
        return self._tokens[self._at - 1].text


def head(sql: str) -> str:
    """The beginning of a statement, on one line."""
    line = " ".join(sql.split())
    return line if len(line) <= 100 else f"{line[:100]}…"
