"""Errors of a conversation: chat-state.md, and the second seed's sections 1 to 3 and 5."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from voicethere.chat import ChatErrorKind, ChatErrorRecord, ChatErrorStage, ChatStore, actions, selectors
from voicethere.errors import SessionErrorCode
from voicethere.testing.clock import ManualClock

NOW_MS = 1_781_870_400_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> ChatStore:
    ids = iter(f"e{number}" for number in range(1_000))
    return ChatStore(clock=clock, new_id=lambda: next(ids))


def push(store: ChatStore, message: str | None = None, **fields: object) -> ChatErrorRecord:
    given: dict[str, object] = {"kind": "http_error", "stage": "send", **fields}
    store.dispatch(actions.push_error("conv-1", message=message, **given))  # type: ignore[arg-type]
    record = selectors.select_current_error(store.state, "conv-1")
    assert record is not None
    return record


@pytest.mark.states(
    "chat-state/actions/push-error/fields",
    "chat-state/actions/push-error/history",
    "chat-state/selectors/current-error",
    "chat-state/selectors/error-history",
    "seed-2/actions/push-error",
    "seed-2/record/id",
    "seed-2/record/kind",
    "seed-2/record/stage",
    "seed-2/record/message",
    "seed-2/record/source",
    "seed-2/record/code",
    "seed-2/record/status",
    "seed-2/record/recoverable",
    "seed-2/record/at",
    "seed-2/record/details",
    "seed-2/selectors/current-error",
    "seed-2/selectors/error-history",
)
def test_push_error_makes_an_error_current_and_appends_it_to_the_history(store: ChatStore) -> None:
    record = push(
        store, "no", status=500, source="http", code="X", details={"url": "/chat"}, at=7.9, id="mine"
    )
    assert record == ChatErrorRecord(
        id="mine",
        kind=ChatErrorKind.HTTP_ERROR,
        stage=ChatErrorStage.SEND,
        message="no",
        recoverable=True,
        at=7,
        source="http",
        code="X",
        status=500,
        details={"url": "/chat"},
    )
    assert selectors.select_error_history(store.state, "conv-1") == (record,)


@pytest.mark.states("chat-state/actions/set-error/not-recorded", "seed-2/actions/set-error")
def test_set_error_makes_an_error_current_without_recording_it(store: ChatStore) -> None:
    store.dispatch(actions.set_error("conv-1", kind="ws_error", stage="stream", message="gone"))
    assert selectors.select_last_error(store.state, "conv-1") == "gone"
    assert selectors.select_error_history(store.state, "conv-1") == ()


@pytest.mark.states("chat-state/actions/set-error/fields")
def test_set_error_takes_the_fields_that_push_error_takes(store: ChatStore) -> None:
    fields: dict[str, Any] = {
        "kind": "http_error",
        "stage": "hydrate",
        "message": "no",
        "source": "http",
        "code": "X",
        "status": 404,
        "recoverable": True,
        "at": 7,
        "details": {"url": "/chat"},
        "id": "mine",
    }
    assert set(fields) == set(ChatErrorRecord.__struct_fields__)
    store.dispatch(actions.set_error("conv-1", **fields))
    assert selectors.select_current_error(store.state, "conv-1") == ChatErrorRecord(
        **{**fields, "kind": ChatErrorKind.HTTP_ERROR, "stage": ChatErrorStage.HYDRATE}
    )


@pytest.mark.states("seed-2/state/last-error", "seed-2/state/current-error", "seed-2/state/error-history")
def test_a_session_has_the_seeds_three_fields(store: ChatStore) -> None:
    first = push(store, "one")
    second = push(store, "two")
    session = store.state.chat_session["conv-1"]
    assert (session.last_error, session.current_error) == ("two", second)
    assert session.error_history == (first, second)
    store.dispatch(actions.clear_error("conv-1"))
    session = store.state.chat_session["conv-1"]
    assert (session.last_error, session.current_error) == (None, None)
    assert session.error_history == (first, second)


@pytest.mark.states("seed-2/decisions/shim", "seed-2/plan/string-selector")
def test_an_interface_that_writes_and_reads_strings_goes_on_working(store: ChatStore) -> None:
    """What it did before there were records: set a string, show it, clear it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        store.dispatch(actions.set_stream_error("conv-1", "The connection is lost."))
        assert selectors.select_last_error(store.state, "conv-1") == "The connection is lost."
        store.dispatch(actions.set_stream_error("conv-1", None))
    assert selectors.select_last_error(store.state, "conv-1") is None


@pytest.mark.states("chat-state/actions/set-error/record", "chat-state/actions/push-error/record")
def test_a_record_can_be_set_and_pushed_as_it_is(store: ChatStore) -> None:
    record = push(store, "first", details={"a": 1})
    for action in (actions.set_error("conv-2", record), actions.push_error("conv-2", record)):
        store.dispatch(action)
        assert selectors.select_current_error(store.state, "conv-2") == record
    assert selectors.select_error_history(store.state, "conv-2") == (record,)


@pytest.mark.states(
    "chat-state/actions/set-error/record",
    "chat-state/actions/clear-error",
    "seed-2/actions/set-error-null",
    "seed-2/actions/clear-error",
    "seed-2/plan/stale-clear",
)
def test_set_error_none_and_clear_error_clear_the_current_one_and_leave_the_history(store: ChatStore) -> None:
    for clear in (actions.clear_error("conv-1"), actions.set_error("conv-1", None)):
        push(store, "no")
        before = selectors.select_error_history(store.state, "conv-1")
        store.dispatch(clear)
        assert selectors.select_current_error(store.state, "conv-1") is None
        assert selectors.select_last_error(store.state, "conv-1") is None
        assert selectors.select_error_history(store.state, "conv-1") is before


def test_clearing_what_is_not_there_makes_no_conversation(store: ChatStore) -> None:
    before = store.state
    store.dispatch(actions.clear_error("conv-1"))
    assert store.state is before


@pytest.mark.states(
    "chat-state/actions/push-error/newest-20",
    "chat-state/selectors/error-history",
    "seed-2/state/error-history",
)
def test_the_newest_20_are_kept_oldest_first(store: ChatStore) -> None:
    for number in range(25):
        push(store, f"error {number}")
    history = selectors.select_error_history(store.state, "conv-1")
    assert [record.message for record in history] == [f"error {number}" for number in range(5, 25)]


@pytest.mark.states("chat-state/last-error", "chat-state/selectors/last-error", "seed-2/selectors/last-error")
def test_last_error_always_equals_the_current_errors_message(store: ChatStore) -> None:
    assert selectors.select_last_error(store.state, "conv-1") is None
    push(store, "one")
    assert selectors.select_last_error(store.state, "conv-1") == "one"
    assert store.state.chat_session["conv-1"].last_error == "one"


@pytest.mark.states(
    "chat-state/normalize/settings",
    "chat-state/normalize/id",
    "chat-state/normalize/at",
    "chat-state/normalize/trimmed",
    "chat-state/normalize/default-message",
    "seed-2/decisions/normalize/at",
    "seed-2/decisions/normalize/message",
)
def test_the_store_fills_in_id_time_and_words_and_trims_the_message(store: ChatStore) -> None:
    record = push(store, "  \n ")
    assert (record.id, record.at, record.message) == ("e0", NOW_MS, "http error (send)")
    assert push(store, "  too bad \n").message == "too bad"


@pytest.mark.states(
    "chat-state/normalize/at-dispatch", "seed-2/decisions/normalize/at", "seed-2/decisions/normalize/message"
)
def test_an_action_is_completed_each_time_that_it_is_dispatched(store: ChatStore, clock: ManualClock) -> None:
    action = actions.push_error("conv-1", kind="http_error", stage="send")
    assert (action.id, action.at, action.message, action.recoverable) == (None,) * 4
    store.dispatch(action)
    clock.advance(60)
    store.dispatch(action)
    first, second = selectors.select_error_history(store.state, "conv-1")
    assert (first.id, first.at, second.id, second.at) == ("e0", NOW_MS, "e1", NOW_MS + 60_000)
    assert first.message == second.message == "http error (send)"


@pytest.mark.states("chat-state/normalize/id", "seed-2/record/id")
def test_ids_of_the_stores_own_making_differ_between_stores() -> None:
    stores = ChatStore(duplicate_window_ms=0), ChatStore(duplicate_window_ms=0)
    assert len({push(store, "x").id for store in stores for _ in range(50)}) == 100


@pytest.mark.states(
    "chat-state/normalize/http-status",
    "chat-state/normalize/other-kinds",
    "chat-state/selectors/has-recoverable-error",
    "seed-2/decisions/normalize/recoverable",
    "seed-2/selectors/has-recoverable-error",
    "seed-2/questions/recoverability-default",
)
@pytest.mark.parametrize("kind", list(ChatErrorKind))
@pytest.mark.parametrize("status", [None, 400, 404, 428, 429, 430, 499, 500, 503])
def test_recoverability_by_kind_and_status(store: ChatStore, kind: ChatErrorKind, status: int | None) -> None:
    """`http_error` with a status: when that is 429 or >= 500; every other kind is, but `unknown_error`."""
    record = push(store, kind=kind, status=status)
    if kind is ChatErrorKind.HTTP_ERROR and status is not None:
        assert record.recoverable is (status in (429, 500, 503))
    else:
        assert record.recoverable is (kind is not ChatErrorKind.UNKNOWN_ERROR)
    assert selectors.select_has_recoverable_error(store.state, "conv-1") is record.recoverable


@pytest.mark.states("chat-state/normalize/explicit", "seed-2/questions/recoverability-explicit")
@pytest.mark.parametrize("explicit", [True, False])
def test_an_explicit_recoverability_wins(store: ChatStore, explicit: bool) -> None:
    assert push(store, status=404, recoverable=explicit).recoverable is explicit
    assert push(store, status=503, recoverable=explicit).recoverable is explicit


@pytest.mark.states(
    "chat-state/normalize/unknown-kind", "chat-state/normalize/unknown-stage", "seed-2/decisions/strict-enums"
)
def test_an_unknown_kind_or_stage_is_refused_where_the_action_is_made() -> None:
    """... with an error that lists the valid ones."""
    with pytest.raises(ValueError, match="'http_eror'") as refused:
        actions.push_error("conv-1", kind="http_eror", stage="send")
    assert all(kind.value in str(refused.value) for kind in ChatErrorKind)
    with pytest.raises(ValueError, match="'sending'") as refused:
        actions.set_error("conv-1", kind="http_error", stage="sending")
    assert all(stage.value in str(refused.value) for stage in ChatErrorStage)


@pytest.mark.states("seed-2/record/kinds", "seed-2/record/stages")
def test_the_kinds_and_stages_are_the_seeds() -> None:
    assert [kind.value for kind in ChatErrorKind] == [
        "ws_error",
        "ws_close",
        "hydrate_error",
        "http_error",
        "sem_decode_error",
        "runtime_error",
        "unknown_error",
    ]
    assert [stage.value for stage in ChatErrorStage] == [
        "connect",
        "hydrate",
        "stream",
        "send",
        "disconnect",
        "unknown",
    ]


@pytest.mark.states(
    "chat-state/actions/set-stream-error/warns",
    "chat-state/actions/set-stream-error/sets",
    "seed-2/actions/set-stream-error",
    "seed-2/plan/deprecate",
)
def test_set_stream_error_warns_and_is_set_error_with_a_source_that_names_it(store: ChatStore) -> None:
    with pytest.warns(DeprecationWarning, match="set_error") as caught:
        action = actions.set_stream_error("conv-1", " broken ")
    assert caught[0].filename == __file__
    store.dispatch(action)
    record = selectors.select_current_error(store.state, "conv-1")
    assert record is not None
    assert (record.kind, record.stage, record.message, record.source) == (
        "runtime_error",
        "unknown",
        "broken",
        "set_stream_error",
    )
    assert selectors.select_error_history(store.state, "conv-1") == ()


@pytest.mark.states("chat-state/actions/set-stream-error/blank")
@pytest.mark.parametrize("blank", [None, "", " \t\n"])
def test_blank_text_of_set_stream_error_clears(store: ChatStore, blank: str | None) -> None:
    push(store, "no")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        store.dispatch(actions.set_stream_error("conv-1", blank))
    assert selectors.select_current_error(store.state, "conv-1") is None


@pytest.mark.states("chat-state/repeats", "chat-state/normalize/settings", "seed-2/questions/duplicates")
def test_a_repeat_within_5_s_of_the_newest_record_raises_its_count(
    store: ChatStore, clock: ManualClock
) -> None:
    """The same kind, code and message; the record keeps its id and its time, and is current."""
    first = push(store, "no", code="C", details={"url": "/chat"})
    clock.advance(5.0)
    push(store, "no", code="C")
    again = push(store, "no", code="C")
    assert (again.id, again.at) == (first.id, first.at)
    assert again.details == {"url": "/chat", "repeats": 2}
    assert selectors.select_error_history(store.state, "conv-1") == (again,)
    assert first.details == {"url": "/chat"}


@pytest.mark.states("chat-state/repeats/others", "seed-2/questions/duplicates")
def test_a_repeat_after_5_s_is_recorded(store: ChatStore, clock: ManualClock) -> None:
    push(store, "no")
    clock.advance(5.001)
    push(store, "no")
    assert len(selectors.select_error_history(store.state, "conv-1")) == 2


@pytest.mark.states("chat-state/repeats/others")
@pytest.mark.parametrize(
    "other", [{"kind": "runtime_error"}, {"code": "D"}, {"message": "else"}], ids=["kind", "code", "message"]
)
def test_another_kind_code_or_message_is_recorded(store: ChatStore, other: dict[str, str]) -> None:
    push(store, "no", code="C")
    push(store, **{"message": "no", "code": "C", **other})
    assert len(selectors.select_error_history(store.state, "conv-1")) == 2


@pytest.mark.states("chat-state/repeats", "seed-2/problem/order/repeats")
def test_only_the_newest_record_counts_repeats(store: ChatStore) -> None:
    for message in ("a", "b", "a"):
        push(store, message)
    assert [r.message for r in selectors.select_error_history(store.state, "conv-1")] == ["a", "b", "a"]


@pytest.mark.states("chat-state/repeats/off")
def test_a_window_of_0_records_every_repeat(clock: ManualClock) -> None:
    store = ChatStore(clock=clock, duplicate_window_ms=0)
    push(store, "no")
    push(store, "no")
    history = selectors.select_error_history(store.state, "conv-1")
    assert len(history) == 2
    assert history[1].details is None


def test_what_a_producer_put_under_repeats_does_not_break_the_count(store: ChatStore) -> None:
    push(store, "no", details={"repeats": "many"})
    assert push(store, "no").details == {"repeats": 1}


def test_a_session_error_code_is_kept_as_plain_text(store: ChatStore) -> None:
    record = push(store, code=SessionErrorCode.AGENT_HANDLER_FAILED)
    assert record.code == "AGENT_HANDLER_FAILED"
    assert type(record.code) is str


@pytest.mark.states("seed-2/summary/conversation-scoped", "seed-2/alternatives/no-global-slice")
def test_an_error_of_one_conversation_is_none_of_another(store: ChatStore) -> None:
    push(store, "no")
    assert selectors.select_current_error(store.state, "conv-2") is None


def test_details_are_a_copy_and_bounded(store: ChatStore) -> None:
    details: dict[str, object] = {"frame": "x" * 1_000_000, "list": [1]}
    record = push(store, "m" * 10_000, details=details)
    details["list"] = "changed"
    assert record.details is not None
    assert record.details["list"] == [1]
    assert len(record.details["frame"]) < 16_384
    assert len(record.message) == 2_048
    assert record.message.endswith("…")
