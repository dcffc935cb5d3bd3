"""Messages of the contract as JSON that a person wrote: read field by field, so that a slip of the pen is told by its
place and with the nearest name; and written for a person, in the contract's order and with every number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from outboard.errors import InvalidInput, Violation
from outboard.presets import nearest

_LARGEST_BYTES = 16 * 1024 * 1024
_SHOWN_CHARACTERS = 40
_TOO_DEEP = "it is nested too deeply"
# Descriptors come in two implementations (Python and upb) without a common base, so they are not typed further.
_Field: TypeAlias = Any
_INTEGERS = (
    FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
)  # fmt: skip


def read_json(data: bytes, message: Message, *, name: str, field: str, allowed: Collection[str] = ()) -> None:
    """Fills a message.

    Args:
        data: of the file.
        message: what is filled.
        name: of the file, for messages.
        field: what the file is to the command that reads it, for violations that have no place inside.
        allowed: fields that may stand at the top; none: all.

    Raises:
        InvalidInput: it is no JSON, or holds something that the contract has not; one violation per place, unknown
            names with the nearest known one.
    """
    if len(data) > _LARGEST_BYTES:
        raise _wrong(name, [Violation(field, f"it is larger than {_LARGEST_BYTES // 2**20} MiB")], field)
    try:
        content = json.loads(data.decode(), object_pairs_hook=_without_repetition, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise _wrong(name, [Violation(field, "it is no text in UTF-8")], field) from None
    except json.JSONDecodeError as error:
        text = f"it is no JSON: {error.msg} in line {error.lineno}, column {error.colno}"
        raise _wrong(name, [Violation(field, text)], field) from None
    except RecursionError:
        raise _wrong(name, [Violation(field, _TOO_DEEP)], field) from None
    except ValueError as error:
        raise _wrong(name, [Violation(field, str(error))], field) from None
    if not isinstance(content, dict):
        raise _wrong(name, [Violation(field, f"an object in braces stands here, not {_shown(content)}")], field)
    try:
        wrong = list(_violations(content, message.DESCRIPTOR, "", allowed))
        if not wrong:
            json_format.ParseDict(content, message)
    except RecursionError:
        wrong = [Violation(field, _TOO_DEEP)]
    except json_format.ParseError as error:
        wrong = [Violation(field, _TOO_DEEP if "too deep" in str(error) else str(error))]
    if wrong:
        raise _wrong(name, wrong, field)


def fields_in_order(message: Message) -> dict[str, Any]:
    """A message as JSON-ready fields in the contract's order, with those that are zero."""
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _ordered(fields, message.DESCRIPTOR)


def _wrong(name: str, violations: list[Violation], field: str) -> InvalidInput:
    first = violations[0]
    place = f"{first.field}: " if first.field != field else ""
    return InvalidInput(f"{name!r}: {place}{first.description}", violations=violations)


def _ordered(fields: Mapping[str, Any], descriptor: Any) -> dict[str, Any]:
    ordered = {}
    for field in descriptor.fields:
        if field.name not in fields:
            continue
        value = fields[field.name]
        if _is_map(field):
            value = dict(sorted(value.items()))
        elif field.message_type is not None and isinstance(value, dict):
            value = _ordered(value, field.message_type)
        elif field.message_type is not None:
            value = [_ordered(item, field.message_type) for item in value]
        ordered[field.name] = value
    return ordered


def _without_repetition(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:_SHOWN_CHARACTERS]!r} stands twice in one object")
        found[key] = value
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number that a plan may have")


def _violations(
    content: Mapping[str, Any], descriptor: Any, path: str, allowed: Collection[str] = ()
) -> Iterator[Violation]:
    """What in an object is not as the contract has it."""
    known = {field.name: field for field in descriptor.fields if not allowed or field.name in allowed}
    names = known | {field.json_name: field for field in known.values()}
    for key, value in content.items():
        place = f"{path}{key[:_SHOWN_CHARACTERS]}"
        if key not in names:
            hint = nearest(key[:_SHOWN_CHARACTERS], known) or f": there are {', '.join(known)}"
            yield Violation(place, f"there is no field {key[:_SHOWN_CHARACTERS]!r}{hint}")
            continue
        field = names[key]
        if value is None:  # stands for a field that is left out
            continue
        if _is_map(field):
            yield from _map_violations(value, field.message_type.fields_by_name["value"], place)
        elif not field.is_repeated:
            yield from _value_violations(value, field, place)
        elif not isinstance(value, list):
            yield Violation(place, f"a list in brackets stands here, not {_shown(value)}")
        else:
            for index, item in enumerate(value):
                yield from _value_violations(item, field, f"{place}[{index}]")


def _map_violations(value: Any, field: _Field, place: str) -> Iterator[Violation]:
    if not isinstance(value, dict):
        yield Violation(place, f"an object in braces stands here, not {_shown(value)}")
        return
    for key, item in value.items():
        yield from _value_violations(item, field, f"{place}[{key[:_SHOWN_CHARACTERS]}]")


def _is_map(field: _Field) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _value_violations(value: Any, field: _Field, place: str) -> Iterator[Violation]:
    if field.message_type is not None and field.message_type.full_name.startswith("google."):
        return  # these have a form of their own, which the parser knows
    if field.message_type is not None:
        if isinstance(value, dict):
            yield from _violations(value, field.message_type, f"{place}.")
        else:
            yield Violation(place, f"an object in braces stands here, not {_shown(value)}")
    elif field.enum_type is not None:
        names = field.enum_type.values_by_name
        if value not in names and value not in field.enum_type.values_by_number:
            hint = nearest(str(value), names) or f": there are {', '.join(names)}"
            yield Violation(place, f"there is no {_shown(value)}{hint}")
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        if not isinstance(value, str):
            yield Violation(place, f"a text in quotes stands here, not {_shown(value)}")
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if not isinstance(value, bool):
            yield Violation(place, f"true or false stands here, not {_shown(value)}")
    elif not _is_number(value, whole=field.cpp_type in _INTEGERS):
        kind = "a whole number" if field.cpp_type in _INTEGERS else "a number"
        yield Violation(place, f"{kind} stands here, not {_shown(value)}")


def _is_number(value: Any, *, whole: bool) -> bool:
    """Whole numbers may stand in quotes: JSON has them so where they may be large."""
    if isinstance(value, str) and whole:
        return value.removeprefix("-").isdecimal()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and (not whole or value == int(value))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
