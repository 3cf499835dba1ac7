"""Spanner's wire messages of a change stream's result, described only as deep as every record is read.

The same bytes as google.spanner.v1.PartialResultSet with its google.protobuf.Value, under descriptors of fewer things:
a result's values and its metadata stay bytes until they are whole, and so does what a record's fields nest (its column
types, which are half of it and the same each time, its modifications, children). What stays bytes costs a copy, and is
its own key; what is parsed costs an object at each level. A field that is not described here is passed over.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_PACKAGE: Final = "payment_audit.wire"
_Type = descriptor_pb2.FieldDescriptorProto
# google.protobuf.Value's and ListValue's own numbers.
_STRING, _BOOL, _LIST = ("string_value", 3), ("bool_value", 4), ("list_value", 6)


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=f"{_PACKAGE}.proto", package=_PACKAGE, syntax="proto3")
    response = file.message_type.add(name="Response")
    _field(response, "metadata", 1, _Type.TYPE_BYTES)
    _field(response, "values", 2, _Type.TYPE_BYTES, repeated=True)
    _field(response, "chunked_value", 3, _Type.TYPE_BOOL)
    # A value of a record's field: what it nests is bytes.
    field = _value(file, "Field", nested="")
    _field(field, *_STRING, _Type.TYPE_STRING, in_kind=True)
    _field(field, *_BOOL, _Type.TYPE_BOOL, in_kind=True)
    nested = "Field"
    # STRUCT of fields, ARRAY of these, STRUCT ChangeRecord of such arrays, ARRAY of these: a row's only column.
    for name in ("Struct", "Structs", "Record", "Records"):
        rows = file.message_type.add(name=f"{nested}List")
        _field(rows, "values", 1, _Type.TYPE_MESSAGE, of=nested, repeated=True)
        _value(file, name, nested=f"{nested}List")
        nested = name
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
        for name in ("Response", "Records", "Structs", "StructList", "Field", "FieldList")
    }


def _value(file: Any, name: str, *, nested: str) -> Any:
    message = file.message_type.add(name=name)
    message.oneof_decl.add(name="kind")
    _field(message, *_LIST, _Type.TYPE_MESSAGE if nested else _Type.TYPE_BYTES, of=nested, in_kind=True)
    return message


def _field(
    message: Any, name: str, number: int, kind: Any, *, of: str = "", repeated: bool = False, in_kind: bool = False
) -> None:
    field = message.field.add(name=name, number=number, type=kind)
    field.label = _Type.LABEL_REPEATED if repeated else _Type.LABEL_OPTIONAL
    if of:
        field.type_name = f".{_PACKAGE}.{of}"
    if in_kind:
        field.oneof_index = 0


_MESSAGES: Final = _messages()
# One response of a streamed result: `metadata`, `values` and `chunked_value`, the first two as bytes.
Response: Final[Any] = _MESSAGES["Response"]
# A row of a change stream's result: its records down to their fields.
Records: Final[Any] = _MESSAGES["Records"]
# Structs that a field nests: the modifications of a record.
Structs: Final[Any] = _MESSAGES["StructList"]
# In the place of what a service leaves out.
EMPTY_FIELD: Final[Any] = _MESSAGES["Field"]()
EMPTY_STRUCTS: Final[Any] = _MESSAGES["Structs"]()


def texts(nested: bytes) -> list[str]:
    """The texts of an ARRAY that a field nests."""
    return [field.string_value for field in _MESSAGES["FieldList"].FromString(nested).values]
