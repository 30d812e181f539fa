"""Validation of input files: good ones become lines, and each fault is reported by its line."""

import json

import pytest

from storage.batches.batch_states import BatchStatus, LineStatus
from storage.batches.tables import Batch
from storage.database.table_definitions import table_of
from storage.files.tables import FileChunk
from tests.workers.batches.workshop import MAX_BODY_BYTES, Workshop, body, line
from workers.batches import batch_validation


def _validate(workshop: Workshop, content: bytes) -> Batch:
    batch_id = workshop.create(content)
    workshop.run(until=lambda: workshop.batch(batch_id).status is not BatchStatus.VALIDATING)
    return workshop.batch(batch_id)


@pytest.mark.parametrize(
    ("content", "numbers"),
    [
        (b"\xef\xbb\xbf" + line("a") + b"\r\n\r\n" + line("b") + b"\n\n \n" + line("c"), [1, 3, 6]),
        (line("a") + b"\n" + line("b") + b"\n", [1, 2]),
        (line("a", body(messages=[{"role": "user", "content": "\u2028\u2029\x85\r"}])), [1]),
    ],
)
def test_lines_are_split_at_line_feeds_only(workshop: Workshop, content: bytes, numbers: list[int]) -> None:
    batch = _validate(workshop, content)

    assert (batch.status, batch.num_lines) == (BatchStatus.IN_PROGRESS, len(numbers))
    lines = workshop.lines(batch.id)
    assert [one.line for one in lines] == numbers
    assert all(json.loads(content[one.offset : one.offset + one.length])["custom_id"] == one.custom_id for one in lines)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (b"{", "invalid_json_line"),
        (b"[1]", "invalid_json_line"),
        (b"\xff", "invalid_json_line"),
        (b"\x00" * 200, "invalid_json_line"),
        (b'{"body":' + b"[" * 5000 + b"]" * 5000 + b"}", "invalid_json_line"),
        (line("b", [1]), "invalid_json_line"),
        (b'{"custom_id": "b"}', "missing_required_parameter"),
        (line(""), "invalid_custom_id"),
        (line("x" * 513), "invalid_custom_id"),
        (line("b\x00"), "invalid_custom_id"),
        (line("b", method="GET"), "invalid_method"),
        (line("b", url="/v1/files"), "invalid_url"),
        (line("b", url="/v1/responses"), "mismatched_endpoint"),
        (line("b", more=1), "unknown_parameter"),
        (line("a"), "duplicate_custom_id"),
        (line("b", body(model="nobody")), "model_not_found"),
    ],
)
def test_a_fault_fails_the_batch_and_names_its_line(workshop: Workshop, bad: bytes, code: str) -> None:
    batch = _validate(workshop, line("a") + b"\n\n" + bad + b"\n" + line("z"))
    workshop.run()

    assert batch.status is BatchStatus.FAILED
    assert workshop.codes(batch.id) == [(code, 3)]
    assert workshop.lines(batch.id) == []
    assert workshop.tickets.sent == []


def test_an_empty_file_fails(workshop: Workshop) -> None:
    assert workshop.codes(_validate(workshop, b"\n \n").id) == [("empty_file", None)]


def test_a_line_longer_than_a_body_is_never_held(workshop: Workshop) -> None:
    batch_id = workshop.create([line("a") + b"\n", *[b"x" * 1_000_000] * 8])

    workshop.run()

    assert workshop.codes(batch_id) == [("invalid_json_line", 2)]
    assert MAX_BODY_BYTES < 1_000_000


def test_many_equal_ids_are_reported_up_to_a_bound(workshop: Workshop) -> None:
    batch_id = workshop.create((line("same") + b"\n") * 5000)

    workshop.run()

    codes = workshop.codes(batch_id)
    assert len(codes) == batch_validation.MAX_FAULTS
    assert codes[0] == ("duplicate_custom_id", 2)


def test_an_id_of_a_group_before_is_a_duplicate(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_validation, "GROUP_LINES", 2)
    batch = _validate(workshop, b"\n".join(line(name) for name in ("a", "b", "c", "d", "a", "f")))

    assert workshop.codes(batch.id) == [("duplicate_custom_id", 5)]


def test_another_process_goes_on_at_the_cursor(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_validation, "GROUP_LINES", 3)
    batch_id = workshop.create(b"\n".join(line(f"id-{number}") for number in range(10)))

    while workshop.batch(batch_id).status is BatchStatus.VALIDATING:
        runner = workshop.new_runner()
        runner.run_once()
        runner.close()

    assert [one.custom_id for one in workshop.lines(batch_id)] == [f"id-{number}" for number in range(10)]


def test_a_step_that_two_processes_take_is_taken_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_validation, "GROUP_LINES", 3)
    batch_id = workshop.create(b"\n".join(line(f"id-{number}") for number in range(5)))
    validation = workshop.runner._validation
    workshop.runner._models.refresh()
    before = workshop.batch(batch_id)

    assert validation.step(before)
    assert not validation.step(before)

    assert workshop.batch(batch_id).num_lines == 3


def test_too_many_lines_are_refused(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_validation, "MAX_LINES", 3)

    batch = _validate(workshop, b"\n".join(line(f"id-{number}") for number in range(9)))

    assert workshop.codes(batch.id) == [("too_many_tasks", 4)]


def test_lines_that_share_a_beginning_run_one_after_another(workshop: Workshop) -> None:
    texts = ["Translate: a", "Count: b", "Translate: c", "Count: d"]
    prompts = [body(messages=[{"role": "user", "content": text}]) for text in texts]

    batch = _validate(workshop, b"\n".join(line(text, one) for text, one in zip(texts, prompts, strict=True)))

    order = sorted(workshop.lines(batch.id), key=lambda one: one.position)
    assert [one.custom_id for one in order] == ["Count: b", "Count: d", "Translate: a", "Translate: c"]
    assert {one.status for one in order} <= {LineStatus.QUEUED, LineStatus.IN_PROGRESS}


def test_a_batch_whose_input_is_lost_fails(workshop: Workshop) -> None:
    batch_id = workshop.create(line("a"))
    with workshop.database.begin() as c:
        c.execute(table_of(FileChunk).delete())

    workshop.run()

    assert workshop.batch(batch_id).status is BatchStatus.FAILED
    assert workshop.codes(batch_id) == [("server_error", None)]
