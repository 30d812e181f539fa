"""API keys: shown once, kept as digests."""

from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from storage.accounts import keys
from storage.database.connections import Database
from tests.storage.examples import NOW, after

PEPPER = b"pepper"


@pytest.fixture
def c(database: Database) -> Iterator[Connection]:
    with database.begin() as connection:
        yield connection


def test_a_key_is_found_by_its_digest_and_kept_nowhere(c: Connection) -> None:
    made = keys.create(c, "alice", pepper=PEPPER, now=NOW)
    assert made.plaintext.startswith("tp-")
    assert len(made.plaintext) >= 45

    key = keys.find_by_digest(c, keys.digest_of(made.plaintext, PEPPER))
    assert key is not None
    assert (key.id, key.owner, key.created_at) == (made.key_id, "alice", NOW)
    assert keys.is_valid(key, after(10**9))
    assert keys.find_by_digest(c, keys.digest_of(made.plaintext, b"other")) is None
    assert keys.find_by_digest(c, keys.digest_of("tp-\udcff\x00", PEPPER)) is None
    row = str(c.execute(text('SELECT * FROM "key"')).one())
    assert made.plaintext not in row
    assert made.plaintext[8:-8] not in row


def test_a_key_ends_when_it_expires(c: Connection) -> None:
    made = keys.create(c, "alice", pepper=PEPPER, now=NOW, expires_at=after(10))
    key = keys.find_by_digest(c, keys.digest_of(made.plaintext, PEPPER))
    assert key is not None
    assert keys.is_valid(key, after(9))
    assert not keys.is_valid(key, after(10))


def test_a_revoked_key_is_invalid_for_good(c: Connection) -> None:
    made = keys.create(c, "alice", pepper=PEPPER, now=NOW)
    assert keys.revoke(c, made.key_id, after(1))
    assert not keys.revoke(c, made.key_id, after(2))
    assert not keys.revoke(c, "key_unknown", after(2))

    key = keys.find_by_digest(c, keys.digest_of(made.plaintext, PEPPER))
    assert key is not None
    assert key.revoked_at == after(1)
    assert not keys.is_valid(key, after(2))


def test_a_revoked_last_key_still_counts_so_that_access_stays_closed(c: Connection) -> None:
    assert not keys.any_exists(c)
    made = keys.create(c, "alice", pepper=PEPPER, now=NOW)
    assert keys.any_exists(c)
    keys.revoke(c, made.key_id, NOW)
    assert keys.any_exists(c)


def test_a_given_secret_can_be_the_key(c: Connection) -> None:
    made = keys.create(c, "local", pepper=PEPPER, now=NOW, plaintext="short")
    assert made.plaintext == "short"
    key = keys.find_by_digest(c, keys.digest_of("short", PEPPER))
    assert key is not None
    assert "short" not in key.hint
    with pytest.raises(IntegrityError), c.begin_nested():
        keys.create(c, "other", pepper=PEPPER, now=NOW, plaintext="short")


def test_keys_are_listed_by_age_and_owner_and_remember_their_use(c: Connection) -> None:
    made = [keys.create(c, owner, pepper=PEPPER, now=after(number)) for number, owner in enumerate("aba")]
    keys.touch(c, made[1].key_id, after(60))

    assert [key.id for key in keys.list_keys(c)] == [key.key_id for key in made]
    assert [key.id for key in keys.list_keys(c, owner="a")] == [made[0].key_id, made[2].key_id]
    assert [key.last_used_at for key in keys.list_keys(c)] == [None, after(60), None]
