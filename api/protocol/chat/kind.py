"""The job kind of Chat Completions."""

from api.protocol.answer.completion_parts import async_object
from api.protocol.chat.fold import ChatFold
from api.protocol.chat.object import chat_object, num_chat_choices
from api.protocol.chat.prepare import prepare_chat
from api.protocol.chat.request import ChatRequest
from api.protocol.families.stored_parser import parser_of
from api.protocol.jobs.kind_spec import KindSpec
from storage.contract import JobKind

CHAT = KindSpec(
    kind=JobKind.CHAT,
    path="/v1/chat/completions/",
    deleted_object="chat.completion.deleted",
    request=ChatRequest,
    prepare=prepare_chat,
    fold=ChatFold,
    num_choices=num_chat_choices,
    parser=parser_of,
    make_object=chat_object,
    make_receipt=lambda header, outcome: async_object(header, outcome.end),
)
