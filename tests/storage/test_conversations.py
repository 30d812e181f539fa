"""Conversations and their items, in the order of one counter, on both databases."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, func, select

from storage.conversations import conversation_items, conversation_rows
from storage.conversations.conversation_items import ItemPage, NewItem, new_items
from storage.conversations.tables import ConversationItem
from storage.database.connections import Database
from storage.database.table_definitions import table_of
from storage.errors import ConversationItemNotFound, ConversationNotFound, ConversationTooLarge, InvalidRequest
from tests.storage.examples import NOW

MAX_BYTES = 100_000


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def _items(*item_ids: str, text: str = "a \x00 b") -> list[NewItem]:
    return new_items({"id": item_id, "type": "message", "role": "user", "content": text} for item_id in item_ids)


def _create(c: Connection, conversation_id: str = "conv_1", *item_ids: str) -> None:
    conversation_rows.create(c, conversation_id, "alice", {"a": "b"}, NOW)
    _add(c, *item_ids, conversation_id=conversation_id)


def _add(c: Connection, *item_ids: str, conversation_id: str = "conv_1", text: str = "x") -> None:
    row = conversation_rows.lock(c, conversation_id, "alice")
    conversation_items.add(c, row, _items(*item_ids, text=text), max_bytes=MAX_BYTES)


def _page(c: Connection, after: str | None = None, *, limit: int = 7, is_newest_first: bool = False) -> ItemPage:
    return conversation_items.list_page(c, "conv_1", after=after, limit=limit, is_newest_first=is_newest_first)


def _ids(page: ItemPage) -> list[str]:
    return [str(item["id"]) for item in page.items]


@pytest.mark.parametrize("is_newest_first", [False, True])
def test_pages_hold_every_item_once_while_new_ones_come(c: Connection, is_newest_first: bool) -> None:
    names = [f"msg_{number}" for number in range(45)]
    _create(c, "conv_1", *names)

    seen, page, num_pages = [], _page(c, is_newest_first=is_newest_first), 0
    while True:
        seen += _ids(page)
        num_pages += 1
        if not page.has_more:
            break
        _add(c, f"later_{num_pages}")
        page = _page(c, seen[-1], is_newest_first=is_newest_first)

    later = [f"later_{number}" for number in range(1, num_pages)]
    assert seen == (names[::-1] if is_newest_first else names + later)


def test_a_cursor_that_no_item_has_is_refused(c: Connection) -> None:
    _create(c)
    assert _page(c) == ItemPage(items=[], has_more=False)

    for cursor in ("msg_9", "a\x00b", ""):
        with pytest.raises(InvalidRequest) as refused:
            _page(c, cursor)
        assert refused.value.param == "after"


def test_a_page_ends_before_it_holds_too_many_bytes(c: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation_items, "MAX_PAGE_BYTES", 150)
    _create(c, "conv_1", "a", "b", "c")

    first = _page(c)
    rest = _page(c, _ids(first)[-1])

    assert (_ids(first), first.has_more) == (["a", "b"], True)
    assert (_ids(rest), rest.has_more) == (["c"], False)


def test_ids_are_new_in_their_conversation(c: Connection) -> None:
    _create(c, "conv_1", "a", "b")
    _create(c, "conv_2", "a")

    for item_ids, wrong in ((("c", "a"), 1), (("c", "c"), 1), (("c", "d", "x/y"), 2), (("x" * 129,), 0), (("",), 0)):
        with pytest.raises(InvalidRequest) as refused:
            _add(c, *item_ids)
        assert refused.value.param == f"items[{wrong}].id"
    assert _ids(_page(c)) == ["a", "b"]


def test_a_conversation_holds_a_bounded_number_of_items_and_bytes(
    c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_items, "MAX_ITEMS", 3)
    _create(c, "conv_1", "a", "b")

    for names, text in ((("c", "d"), "x"), (("c",), "x" * MAX_BYTES)):
        with pytest.raises(ConversationTooLarge):
            _add(c, *names, text=text)
    conversation_items.delete_item(c, conversation_rows.lock(c, "conv_1", "alice"), "a")
    _add(c, "c", "d")

    row = conversation_rows.get(c, "conv_1", "alice")
    assert (row.num_items, row.num_bytes) == (3, sum(item.num_bytes for item in _items("b", "c", "d", text="x")))


def test_an_item_is_read_and_deleted_by_its_id(c: Connection) -> None:
    _create(c, "conv_1", "a", "b", "c")

    conversation_items.delete_item(c, conversation_rows.lock(c, "conv_1", "alice"), "b")

    assert conversation_items.get_item(c, "conv_1", "a")["content"] == "x"
    assert _ids(_page(c)) == ["a", "c"]
    for missing in ("b", "a\x00"):
        with pytest.raises(ConversationItemNotFound):
            conversation_items.get_item(c, "conv_1", missing)
        with pytest.raises(ConversationItemNotFound):
            conversation_items.delete_item(c, conversation_rows.lock(c, "conv_1", "alice"), missing)


def test_another_owners_conversation_is_an_unknown_one(c: Connection) -> None:
    _create(c)

    for conversation_id, owner in (("conv_1", "bob"), ("conv_9", "alice"), ("a\x00", "alice")):
        with pytest.raises(ConversationNotFound):
            conversation_rows.get(c, conversation_id, owner)
        with pytest.raises(ConversationNotFound):
            conversation_rows.update_metadata(c, conversation_id, owner, {})
        with pytest.raises(ConversationNotFound):
            conversation_rows.delete_whole(c, conversation_id, owner, NOW)
    assert conversation_rows.get(c, "conv_1", "alice").metadata_ == {"a": "b"}


def test_a_deleted_conversation_is_gone_with_its_items(c: Connection) -> None:
    _create(c, "conv_1", "a", "b")
    _create(c, "conv_2", "a")

    conversation_rows.delete_whole(c, "conv_1", "alice", NOW)

    with pytest.raises(ConversationNotFound):
        conversation_rows.get(c, "conv_1", "alice")
    assert not conversation_rows.is_there(c, "conv_1")
    assert _erase_all(c) == ["conv_1", "conv_1"]
    left = select(func.count()).select_from(table_of(ConversationItem))
    assert c.execute(left).scalar() == 1


def test_items_of_a_deleted_conversation_are_erased_a_few_at_a_time(
    c: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation_rows, "_BYTES_ERASED_AT_ONCE", 1)
    _create(c, "conv_1", "a", "b", "c")
    conversation_rows.delete_whole(c, "conv_1", "alice", NOW)

    # An item each time, and the row when there are no more.
    assert _erase_all(c) == ["conv_1"] * 4
    assert c.execute(select(func.count()).select_from(table_of(ConversationItem))).scalar() == 0


def _erase_all(c: Connection) -> list[str]:
    """The conversations of which some was erased, one each time."""
    erased = []
    while (conversation_id := conversation_rows.find_deleted(c)) is not None:
        conversation_rows.erase_some(c, conversation_id)
        erased.append(conversation_id)
    return erased


def test_items_that_are_added_at_once_get_positions_of_their_own(database: Database) -> None:
    with database.begin() as connection:
        _create(connection)

    def add(number: int) -> None:
        with database.begin() as connection:
            _add(connection, f"a_{number}", f"b_{number}")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(24)))

    with database.connect() as connection:
        found = _ids(_page(connection, limit=100))
        row = conversation_rows.get(connection, "conv_1", "alice")
    assert sorted(found) == sorted(f"{name}_{number}" for name in "ab" for number in range(24))
    assert [one.replace("b", "a") for one in found[1::2]] == found[::2]
    assert (row.next_position, row.num_items) == (48, 48)
