"""Every field of every message type survives its codec, whatever its value; built from the types."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import inspect as mi

import voicethere.wire
from voicethere.errors import records
from voicethere.wire import ipc, queue, relay

MODULES: list[ModuleType] = [
    records,
    *(
        importlib.import_module(f"voicethere.wire.{module.name}")
        for module in pkgutil.iter_modules(voicethere.wire.__path__)
    ),
]
STRUCTS = sorted(
    {
        value
        for module in MODULES
        for name, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, msgspec.Struct)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and module.__name__ != "voicethere.wire.schema"
    },
    key=lambda struct: (struct.__module__, struct.__qualname__),
)

# Lone surrogates cannot be encoded: `errors.bounds.sanitise` takes them out before.
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of one type as msgspec describes it."""
    match kind:
        case mi.StrType():
            if kind.pattern is not None:
                return st.from_regex(kind.pattern, fullmatch=True)
            return st.text(
                st.characters(exclude_categories=["Cs"]),
                min_size=kind.min_length or 0,
                max_size=min(kind.max_length or 30, 60),
            )
        case mi.BoolType():
            return st.booleans()
        case mi.IntType():
            return st.integers(
                -(2**63) if kind.ge is None else kind.ge, 2**63 - 1 if kind.le is None else kind.le
            )
        case mi.FloatType():
            return st.floats(allow_nan=False, allow_infinity=False)
        case mi.BytesType():
            return st.binary(max_size=40)
        case mi.NoneType():
            return st.none()
        case mi.AnyType():
            return _JSON
        case mi.LiteralType():
            return st.sampled_from(kind.values)
        case mi.EnumType():
            return st.sampled_from(list(kind.cls))
        case mi.ListType():
            return st.lists(values(kind.item_type), max_size=3)
        case mi.DictType():
            return st.dictionaries(values(kind.key_type), values(kind.value_type), max_size=3)
        case mi.UnionType():
            return st.one_of(*(values(member) for member in kind.types))
        case mi.StructType():
            return instances(kind)
        case mi.CustomType() if kind.cls is msgspec.UnsetType:
            return st.just(msgspec.UNSET)
    raise AssertionError(f"no values are known for {kind}")


def instances(kind: mi.StructType) -> st.SearchStrategy[Any]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for field in kind.fields:
        fields[field.name] = values(field.type)
        if field.default is msgspec.UNSET:
            fields[field.name] = st.just(msgspec.UNSET) | fields[field.name]
    return st.builds(kind.cls, **fields)


def test_the_types_are_found() -> None:
    names = {struct.__qualname__ for struct in STRUCTS}
    assert {
        "SessionErrorEnvelope",
        "ErrorRecord",
        "SessionHello",
        "Join",
        "AssignSession",
        "LoadAgent",
    } <= names
    assert {"SessionErrorRow", "ErrorItem", "HttpErrorBody", "SessionSettings", "StartSession"} <= names
    assert len(STRUCTS) > 60


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__qualname__)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_field_survives_the_codec(struct: type[msgspec.Struct], data: st.DataObject) -> None:
    kind = mi.type_info(struct)
    assert isinstance(kind, mi.StructType)
    message = data.draw(instances(kind))
    if struct.__module__ == ipc.__name__:
        decode = ipc.decode_to_child if struct in ipc.ToChild.__args__ else ipc.decode_from_child
        assert decode(ipc.encode(message)) == message
        return
    if struct.__module__ == relay.__name__:
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=struct) == message
        if struct in relay.ToRunner.__args__:
            assert relay.decode_to_runner(relay.encode(message)) == message
        elif struct in relay.ToService.__args__:
            assert relay.decode_to_service(relay.encode(message)) == message
        elif struct in relay.ServiceNotice.__args__:
            assert relay.decode_notice(relay.encode(message)) == message
        return
    if isinstance(message, queue.QueueItem):
        assert queue.decode(queue.encode(message)) == message
    assert msgspec.json.decode(msgspec.json.encode(message), type=struct) == message


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__qualname__)
def test_every_message_is_frozen(struct: type[msgspec.Struct]) -> None:
    assert struct.__struct_config__.frozen
    assert not struct.__struct_config__.omit_defaults
    assert not struct.__struct_config__.forbid_unknown_fields
