"""Dataclasses to protobuf messages and back, by field name.

A domain's settings, plans and reports are frozen dataclasses whose fields are called like the fields of a message.
This is how each maps:

    dataclass                         message
    ``X | None``                      optional, or a message field: unset is None
    ``tuple[X, ...]``                 repeated
    ``dict[str, X]``                  map
    lower-case ``str``                enum: "lead_vocal" is ROLE_LEAD_VOCAL; UNSPECIFIED is the dataclass's default
    another dataclass                 message
    ``A | B`` named like the oneof    oneof: each dataclass belongs to the member whose message has its name
    ``datetime``                      google.protobuf.Timestamp

A field that is unset in the message takes the dataclass's default. A field that is set and that the dataclass lacks is
refused: to leave out what somebody asked for is no answer. Only a report's ``run``, which the servicer adds, is
skipped.
``unmatched_fields`` names all differences for a conformance test.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, Union

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from outboard.errors import InvalidInput

M = TypeVar("M", bound=Message)
D = TypeVar("D")
# Descriptors come in two implementations (Python and upb) without a common base, so they are not typed further.
_Field: TypeAlias = Any
_Descriptor: TypeAlias = Any
_Enum: TypeAlias = Any

_TIMESTAMP = "google.protobuf.Timestamp"
_UNSET = object()
# What a servicer adds to a domain's report.
_ADDED = frozenset({"run"})


# --- dataclass to message -------------------------------------------------------------------------------------------


def to_message(value: Any, message_type: type[M]) -> M:
    """Fill a message from a dataclass instance.

    Raises:
        InvalidInput: an enum string that the contract does not have, or a number that does not fit; it names the field.
    """
    message = message_type()
    _fill(message, value, "")
    return message


def _fill(message: Message, value: Any, path: str) -> None:
    descriptor = message.DESCRIPTOR
    for field in dataclasses.fields(value):
        content = getattr(value, field.name)
        if content is None:
            continue
        where = f"{path}{field.name}"
        if field.name in descriptor.fields_by_name:
            _set(message, descriptor.fields_by_name[field.name], content, where)
        elif field.name in descriptor.oneofs_by_name:
            member = _oneof_member(descriptor, field.name, type(content))
            _set(message, member, content, f"{path}{member.name}")
        else:
            raise TypeError(f"{type(value).__name__}.{field.name} has no counterpart in {descriptor.full_name}")


def _set(message: Message, field: _Field, content: Any, where: str) -> None:
    if _is_map(field):
        _set_map(getattr(message, field.name), field, content, where)
    elif field.is_repeated:
        target = getattr(message, field.name)
        for index, item in enumerate(content):
            if field.message_type is not None:
                _fill_message(target.add(), item, f"{where}[{index}].")
            else:
                target.append(_scalar(field, item, f"{where}[{index}]"))
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
        _fill_message(getattr(message, field.name), content, f"{where}.")
    else:
        try:
            setattr(message, field.name, _scalar(field, content, where))
        except (ValueError, TypeError) as error:
            raise InvalidInput(f"{where} cannot be {content!r}", field=where) from error


def _set_map(target: Any, field: _Field, content: Mapping[Any, Any], where: str) -> None:
    value_field = _map_value(field)
    for key in sorted(content):
        if value_field.message_type is not None:
            _fill_message(target[key], content[key], f"{where}[{key}].")
        else:
            target[key] = _scalar(value_field, content[key], f"{where}[{key}]")


def _fill_message(message: Message, content: Any, path: str) -> None:
    if isinstance(message, Message) and message.DESCRIPTOR.full_name == _TIMESTAMP:
        message.FromDatetime(content)  # type: ignore[attr-defined]
    else:
        _fill(message, content, path)


def _scalar(field: _Field, content: Any, where: str) -> Any:
    if field.enum_type is not None:
        return enum_number(field.enum_type, content or "unspecified", where)
    # NumPy scalars are refused by protobuf's setters for some types.
    return content.item() if hasattr(content, "item") else content


# --- message to dataclass -------------------------------------------------------------------------------------------


def from_message(message: Message, kind: type[D], path: str = "") -> D:
    """Make a dataclass instance from a message.

    Args:
        message: what arrived.
        kind: a dataclass.
        path: of this message in the request, with a dot at its end; used in violations.

    Raises:
        InvalidInput: an enum number that this version does not know, a number that is not finite, a field that must be
            set and is not, one that is set and has no counterpart, or numbers that the dataclass refuses.
    """
    hints = _hints(typing.cast(Any, kind))
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        content = _read(message, field.name, hints[field.name], f"{path}{field.name}")
        if content is not _UNSET:
            arguments[field.name] = content
        elif _has_default(field):
            continue
        elif _allows_none(hints[field.name]):
            arguments[field.name] = None
        elif hints[field.name] is str and _is_plain_string(message.DESCRIPTOR.fields_by_name[field.name]):
            arguments[field.name] = ""
        else:
            raise InvalidInput(f"{path}{field.name} must be set", field=f"{path}{field.name}")
    _refuse_others(message, set(hints), path)
    try:
        return kind(**arguments)
    except ValueError as error:
        # A dataclass that checks its own numbers says which one is wrong and what it may be.
        where = path.removesuffix(".")
        raise InvalidInput(f"{where}: {error}", field=where) from error


def _refuse_others(message: Message, names: set[str], path: str) -> None:
    for field, _ in message.ListFields():
        oneof = field.containing_oneof
        if field.name not in names and field.name not in _ADDED and (oneof is None or oneof.name not in names):
            raise InvalidInput(f"{path}{field.name} is not supported here", field=f"{path}{field.name}")


def _read(message: Message, name: str, hint: Any, where: str) -> Any:
    descriptor = message.DESCRIPTOR
    if name in descriptor.oneofs_by_name and name not in descriptor.fields_by_name:
        chosen = message.WhichOneof(name)
        if chosen is None:
            return _UNSET
        member = descriptor.fields_by_name[chosen]
        return from_message(getattr(message, chosen), _oneof_type(member, hint), f"{where.removesuffix(name)}{chosen}.")
    field = descriptor.fields_by_name[name]
    value = getattr(message, name)
    if _is_map(field):
        item_hint = typing.get_args(_bare(hint))[1]
        value_field = _map_value(field)
        return {key: _item(value_field, value[key], item_hint, f"{where}[{key}]") for key in sorted(value)}
    if field.is_repeated:
        item_hint = typing.get_args(_bare(hint))[0]
        return tuple(_item(field, item, item_hint, f"{where}[{index}]") for index, item in enumerate(value))
    if field.has_presence and not message.HasField(name):
        return _UNSET
    if (field.enum_type is not None and value == 0) or (_is_plain_string(field) and value == ""):
        return _UNSET
    return _item(field, value, _bare(hint), where)


def _item(field: _Field, value: Any, hint: Any, where: str) -> Any:
    if field.message_type is not None:
        if field.message_type.full_name == _TIMESTAMP:
            return value.ToDatetime(tzinfo=datetime.UTC)
        return from_message(value, _bare(hint), f"{where}.")
    if field.enum_type is not None:
        return enum_name(field.enum_type, value, where)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput(f"{where} is {value}, must be a finite number", field=where)
    return value


# --- enums ----------------------------------------------------------------------------------------------------------


def enum_name(descriptor: _Enum, number: int, where: str) -> str:
    """The lower-case name of an enum value: ROLE_LEAD_VOCAL is "lead_vocal", ROLE_UNSPECIFIED is "unspecified".

    Raises:
        InvalidInput: this version of the contract has no such number.
    """
    value = descriptor.values_by_number.get(number)
    if value is None:
        raise InvalidInput(f"{where} has the unknown value {number}; known are {_known(descriptor)}", field=where)
    return str(value.name.removeprefix(_prefix(descriptor)).lower())


def enum_number(descriptor: _Enum, name: str, where: str) -> int:
    """The number of a lower-case enum name.

    Raises:
        InvalidInput: the contract has no such name.
    """
    value = descriptor.values_by_name.get(f"{_prefix(descriptor)}{name.upper()}")
    if value is None:
        raise InvalidInput(f"{where} has the unknown value {name!r}; known are {_known(descriptor)}", field=where)
    return int(value.number)


def enum_names(descriptor: _Enum) -> tuple[str, ...]:
    """All lower-case names but "unspecified", in order."""
    names = (value.name.removeprefix(_prefix(descriptor)).lower() for value in descriptor.values)
    return tuple(name for name in names if name != "unspecified")


def _known(descriptor: _Enum) -> str:
    return ", ".join(enum_names(descriptor))


@functools.cache
def _prefix(descriptor: _Enum) -> str:
    """ERROR_REASON_ for ErrorReason: what all values have in common, which buf's lint makes the enum's own name."""
    zero: str = descriptor.values_by_number[0].name
    return zero.removesuffix("UNSPECIFIED")


# --- conformance ----------------------------------------------------------------------------------------------------


def unmatched_fields(kind: type, descriptor: _Descriptor, *, ignore: Iterable[str] = _ADDED) -> list[str]:
    """Every field, here or in messages below, that only one of the two sides has. Empty where they map one to one."""
    return sorted(set(_differences(kind, descriptor, frozenset(ignore), set())))


def _differences(kind: type, descriptor: _Descriptor, ignore: frozenset[str], seen: set[type]) -> list[str]:
    if kind in seen:
        return []
    seen.add(kind)
    hints = _hints(typing.cast(Any, kind))
    names = {field.name for field in dataclasses.fields(kind)}
    oneofs = {name for name in names if name in descriptor.oneofs_by_name and name not in descriptor.fields_by_name}
    covered = {member.name for name in oneofs for member in descriptor.oneofs_by_name[name].fields}
    there = set(descriptor.fields_by_name) - covered - ignore
    found = [f"{kind.__name__}.{name} is not in {descriptor.full_name}" for name in names - oneofs - there - ignore]
    found += [f"{descriptor.full_name}.{name} is not in {kind.__name__}" for name in there - names]
    for name in sorted(names & there):
        field = descriptor.fields_by_name[name]
        nested = _nested(hints[name])
        target = _map_value(field) if _is_map(field) else field
        if (nested is not None) != (target.message_type is not None and target.message_type.full_name != _TIMESTAMP):
            found.append(f"{kind.__name__}.{name} and {descriptor.full_name}.{name} are of different kinds")
        elif nested is not None:
            found += _differences(nested, target.message_type, ignore, seen)
    for name in sorted(oneofs):
        for member in typing.get_args(hints[name]):
            if member is not type(None):
                below = _oneof_member(descriptor, name, member).message_type
                found += _differences(member, below, ignore, seen)
    return found


def _nested(hint: Any) -> type | None:
    """The dataclass inside a hint, through ``| None``, tuple and dict; None where there is none."""
    bare = _bare(hint)
    if isinstance(bare, type) and dataclasses.is_dataclass(bare):
        return bare
    for argument in typing.get_args(bare):
        if isinstance(argument, type) and dataclasses.is_dataclass(argument):
            return argument
    return None


# --- small things ---------------------------------------------------------------------------------------------------


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _allows_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)


def _bare(hint: Any) -> Any:
    """A hint without ``| None``; a union of several stays."""
    if typing.get_origin(hint) in (Union, types.UnionType):
        rest = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        return rest[0] if len(rest) == 1 else hint
    return hint


def _is_plain_string(field: _Field) -> bool:
    """A string without presence: empty, it says nothing, and the dataclass's default may say more."""
    return bool(field.type == FieldDescriptor.TYPE_STRING and not field.has_presence)


def _is_map(field: _Field) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _map_value(field: _Field) -> _Field:
    entry = field.message_type
    assert entry is not None
    return entry.fields_by_name["value"]


def _oneof_member(descriptor: _Descriptor, name: str, kind: type) -> _Field:
    for member in descriptor.oneofs_by_name[name].fields:
        if member.message_type is not None and member.message_type.name == kind.__name__:
            return member
    raise TypeError(f"{kind.__name__} is no member of {descriptor.full_name}.{name}")


def _oneof_type(member: _Field, hint: Any) -> type:
    for kind in typing.get_args(hint) or (hint,):
        if isinstance(kind, type) and member.message_type is not None and kind.__name__ == member.message_type.name:
            return kind
    raise InvalidInput(f"{member.name} is not supported here", field=member.name)
