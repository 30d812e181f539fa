"""The examples of the ready screen, for a model that generates text or for an encoder."""

import json
from collections.abc import Mapping

import msgspec

Capabilities = Mapping[str, bool]


class ReadyExample(msgspec.Struct, frozen=True, kw_only=True):
    """A first request.

    path:  behind the base URL
    body:  of the request
    lines: the same in Python, after the client was made
    """

    path: str
    body: Mapping[str, object]
    lines: tuple[str, ...]

    def curl(self, url: str, *, is_key_needed: bool) -> str:
        """A command for a shell."""
        bearer = ' -H "authorization: Bearer $TOKENPOST_API_KEY"' if is_key_needed else ""
        return f"curl {url}{self.path} -H 'content-type: application/json'{bearer} -d '{json.dumps(self.body)}'"

    def python(self, url: str, *, is_key_needed: bool) -> str:
        """A program for Python."""
        key = 'os.environ["TOKENPOST_API_KEY"]' if is_key_needed else '"none"'
        lines = [
            "import os" if is_key_needed else "",
            "from openai import OpenAI",
            f'client = OpenAI(base_url="{url}", api_key={key})',
            *self.lines,
        ]
        return "\n".join(line for line in lines if line)


def example_for(capabilities_by_model: Mapping[str, Capabilities]) -> ReadyExample:
    """An example for the first model that generates text, else for the first of all."""
    models = list(capabilities_by_model)
    generating = [model for model in models if capabilities_by_model[model].get("completion", True)]
    model = (generating or models)[0]
    capabilities = capabilities_by_model[model]
    if capabilities.get("completion", True):
        return _response(model)
    return _embedding(model) if capabilities.get("embedding") else _rerank(model)


def _response(model: str) -> ReadyExample:
    # Small models write nonsense at the API's own default temperature, 1.
    return ReadyExample(
        path="/responses",
        body={"model": model, "input": "Hello! Who are you?", "temperature": 0.2},
        lines=(
            f'response = client.responses.create(model="{model}", input="Hello! Who are you?", temperature=0.2)',
            "print(response.output_text)",
        ),
    )


def _embedding(model: str) -> ReadyExample:
    return ReadyExample(
        path="/embeddings",
        body={"model": model, "input": "A cat sleeps on the sofa."},
        lines=(
            f'answer = client.embeddings.create(model="{model}", input="A cat sleeps on the sofa.")',
            "print(answer.data[0].embedding)",
        ),
    )


def _rerank(model: str) -> ReadyExample:
    body = {"model": model, "query": "Who sleeps?", "documents": ["Dogs bark.", "A cat sleeps."]}
    return ReadyExample(
        path="/rerank",
        body=body,
        lines=(f'print(client.post("/rerank", body={json.dumps(body)}, cast_to=object))',),
    )
