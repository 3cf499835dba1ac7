"""A restored backup is older than some erasures: who was erased since is redacted in it before anybody reads it."""

from __future__ import annotations

from datetime import datetime

from contract import tables
from support.connection import Connection
from support.erasure.redaction import AT_ONCE, Redaction
from support.erasure.store import Erasures, batched
from support.warehouse import Warehouse


def redact(connection: Connection, warehouse: Warehouse, restored_from: str, place: str, at: datetime) -> int:
    """Redacts `dataset.table`, restored from a changelog as it was at a moment. Says of how many ids.

    The masking key is read only where somebody was erased since. Raises WarehouseError, MaskingKeyError.
    """
    from pipeline.clients import bigquery_client
    from pipeline.transforms.erase import Erased
    from pipeline.transforms.keys import MaskingKeys

    source = next((table for table in connection.watched.tables if table.id == restored_from), None)
    tokens = Erasures(connection).tokens_since(at)
    if not tokens or source is None:
        return 0
    erased = Erased(tokens, MaskingKeys.load(connection.masking_keys))
    client = bigquery_client(connection.big_query_endpoint, connection.project)
    columns = client.get_table(f"{connection.project}.{place}").schema
    redaction = Redaction(name=f"`{connection.project}.{place}`", table=source, columns=columns)
    payment, found = tables.named(source, "payment"), 0
    for column, is_erased in ((tables.CUSTOMER_ID, erased.has_customer), (payment, erased.has_payment)):
        if column is None:
            continue
        rows = warehouse.rows(f"SELECT DISTINCT `{column}` AS value FROM {redaction.name}")
        values = [row["value"] for row in rows if row["value"] is not None and is_erased(str(row["value"]))]
        for some in batched(values, AT_ONCE):
            warehouse.answer(redaction.statement(f"`{column}` IN UNNEST(@sought)"), {"sought": some})
        found += len(values)
    return found
