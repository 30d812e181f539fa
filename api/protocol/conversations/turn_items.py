"""The items that a turn adds to its conversation: the same ids and contents as in its stream and its object."""

from api.protocol.answer.outcome import outcome_of
from api.protocol.families.stored_parser import parser_of
from api.protocol.responses.item_history import Item
from api.protocol.responses.object import item_object, item_status, output_items
from api.protocol.responses.stored_items import StoredTurn, input_items_of
from storage.contract import End, JobHeader, Result


def turn_items(header: JobHeader, result: Result, end: End) -> list[Item]:
    """Input and output of a turn that ended completed or incomplete, in order."""
    outcome = outcome_of(result, end, 1, parser_of(header))
    output = [item_object(header, item, item_status(item, end.status)) for item in output_items(outcome)]
    return [*own_items(header.job_id, header.context), *output]


def own_items(job_id: str, context: dict[str, object]) -> list[Item]:
    """The input items of a turn, without those of its conversation, each with its id."""
    return input_items_of([StoredTurn(job_id=job_id, context=context)])
