"""What the installed SDK says of a resource's inputs: names, types, which are required.

Pulumi generates the SDK's types from the schema of Google's provider, so a name that they do not have is one that the
provider does not take. The provider itself is not to be had from the registries. What the types do not say (enums,
ranges, what excludes what) is in `provider_rules.py`.
"""

from __future__ import annotations

import importlib
import inspect
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pulumi import _types

from contract.errors import AuditError

# Pulumi's word for a value that is not known before the resource is made.
UNKNOWN: Final = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
# The key by which Pulumi marks what is no plain object, and its value for a secret.
_SIGNATURE: Final = "4dabf18193072939515e22adb298388d"
_SECRET: Final = "1b47061264138c4ac30d75fd1eb44270"
_PLAIN: Final = {str: "text", bool: "a boolean", int: "a whole number", float: "a number"}


class NotInSdkError(AuditError):
    """The installed SDK has no resource of that kind."""


@dataclass(frozen=True, kw_only=True)
class Object:
    """An object's properties by their name at the provider, and those that it must have."""

    properties: Mapping[str, Any]
    required: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A property that the provider would refuse, as a path such as `lifecycleRules[0].action`, and why."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


def broken(kind: str, inputs: Mapping[str, Any]) -> list[Broken]:
    """What of a resource's inputs is unknown, missing or of another type. Raises NotInSdkError."""
    return list(_object(resource(kind), inputs, ""))


@cache
def resource(kind: str) -> Object:
    """The inputs of `gcp:storage/bucket:Bucket`. Raises NotInSdkError."""
    package, module, name = kind.split(":")
    if package == "gcp":
        there = importlib.import_module(f"pulumi_gcp.{module.partition('/')[0]}")
        # Where a type inside another resource has the name, the arguments are the InitArgs.
        for arguments in (f"{name}InitArgs", f"{name}Args"):
            if found := getattr(there, arguments, None):
                return described(found)
    raise NotInSdkError(f"{kind} must be a resource of the installed pulumi_gcp, and is none. Is its name misspelt?")


@cache
def described(arguments: type) -> Object:
    """What a class of the SDK's says of its object."""
    names = _types.input_type_py_to_pulumi_names(arguments)
    signature = inspect.signature(arguments).parameters.values()
    needed = {names[each.name] for each in signature if each.default is each.empty and each.name in names}
    return Object(properties=_types.input_type_types(arguments), required=frozenset(needed))


def properties_of(kind: str) -> Iterator[tuple[str, str]]:
    """Every property of a kind, nested ones too, as a path without indexes, and what it is."""
    yield from _below(resource(kind), "")


def _below(shape: Object, above: str) -> Iterator[tuple[str, str]]:
    for name, type_of in shape.properties.items():
        of, path = _bare(type_of), f"{above}{name}"
        while (origin := typing.get_origin(of)) and issubclass(origin, Sequence):
            of, path = _bare(typing.get_args(of)[0]), f"{path}[]"
        yield path, _PLAIN.get(of, "an object")
        if _types.is_input_type(of):
            yield from _below(described(of), f"{path}.")


def _object(shape: Object, value: Mapping[str, Any], path: str) -> Iterator[Broken]:
    given = {key: each for key, each in value.items() if each is not None and not key.startswith("__")}
    for name in sorted(given.keys() - shape.properties.keys()):
        yield Broken(path=f"{path}{name}", why="no property of this name")
    for name in sorted(shape.required - given.keys()):
        yield Broken(path=f"{path}{name}", why="required, and missing")
    for name in shape.properties.keys() & given.keys():
        yield from _value(shape.properties[name], given[name], f"{path}{name}")


def _value(of: Any, value: Any, path: str) -> Iterator[Broken]:
    of, value = _bare(of), _open(value)
    if value in (UNKNOWN, None) or of is Any:
        return
    origin, inside = typing.get_origin(of), typing.get_args(of)
    if not _is(of, value):
        yield Broken(path=path, why=f"must be {_word(of)}, got {type(value).__name__}")
    elif _types.is_input_type(of):
        yield from _object(described(of), value, f"{path}.")
    elif origin and issubclass(origin, Mapping):
        for key, each in value.items():
            yield from _value(inside[1], each, f"{path}.{key}")
    elif origin and issubclass(origin, Sequence):
        for index, each in enumerate(value):
            yield from _value(inside[0], each, f"{path}[{index}]")


def _is(of: Any, value: Any) -> bool:
    """Whether a value is of a type, not looking inside it. A whole number comes over Pulumi's protocol as 5.0."""
    origin = typing.get_origin(of)
    if of in (int, float):
        number = not isinstance(value, bool) and isinstance(value, int | float)
        return number and (of is float or float(value).is_integer())
    if _types.is_input_type(of) or (origin and issubclass(origin, Mapping)):
        return isinstance(value, Mapping)
    if origin and issubclass(origin, Sequence):
        return isinstance(value, list | tuple)
    # What Pulumi marks, such as an asset, is an object on its way and has been told apart by the SDK.
    return (isinstance(value, Mapping) and _SIGNATURE in value) or not isinstance(of, type) or isinstance(value, of)


def _word(of: Any) -> str:
    if of in _PLAIN:
        return _PLAIN[of]
    return "a list" if typing.get_origin(of) and issubclass(typing.get_origin(of), Sequence) else "an object"


def _open(value: Any) -> Any:
    """A secret's own value."""
    secret = isinstance(value, Mapping) and value.get(_SIGNATURE) == _SECRET
    return value.get("value") if secret else value


def _bare(of: Any) -> Any:
    """The type without what Pulumi adds: that it may be absent, or not known yet."""
    while typing.get_origin(of) in (typing.Union, types.UnionType):
        of = next(each for each in typing.get_args(of) if each is not type(None))
    return of
