"""Preparing a chat completion job."""

from api.protocol.chat.chat_history import messages_of_chat
from api.protocol.chat.request import ChatRequest
from api.protocol.jobs.prepared import Prepared, Terms, not_empty, prepared, spec_of
from api.protocol.prompt.token_budget import output_budget
from api.protocol.prompt.tokenizing import PromptTools
from storage.contract import JobKind


def prepare_chat(request: ChatRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/chat/completions`; its context is empty.

    raises: ContextLengthExceeded, InvalidRequest, MissingToolOutput, UnknownCallId
    """
    prompt = not_empty(tools.encode_chat(messages_of_chat(request.messages)), "messages")
    limit = output_budget(len(prompt), request.output_limit, tools.context_length, field="messages")
    spec = spec_of(request, tools, terms, (prompt,), max_tokens=limit, num_choices=request.n or 1)
    return prepared(request, JobKind.CHAT, terms, spec, context={}, store_default=False)
