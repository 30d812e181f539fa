"""Preparing a chat completion job."""

from api.protocol.chat.request import ChatMessage, ChatRequest
from api.protocol.jobs.prepared import Prepared, Terms, not_empty, prepared, spec_of
from api.protocol.prompt.token_budget import output_budget
from api.protocol.prompt.tokenizing import PromptTools
from storage.contract import JobKind


def prepare_chat(request: ChatRequest, tools: PromptTools, terms: Terms) -> Prepared:
    """The job of `POST /v1/chat/completions`; its context is empty.

    raises: ContextLengthExceeded, InvalidRequest
    """
    prompt = not_empty(tools.encode_chat([_message_of(message) for message in request.messages]), "messages")
    limit = output_budget(len(prompt), request.output_limit, tools.context_length, field="messages")
    spec = spec_of(request, tools, terms, (prompt,), max_tokens=limit, num_choices=request.n or 1)
    return prepared(request, JobKind.CHAT, terms, spec, context={}, store_default=False)


def _message_of(message: ChatMessage) -> dict[str, str]:
    rendered = {"role": message.role, "content": message.text}
    return rendered if message.name is None else {**rendered, "name": message.name}
