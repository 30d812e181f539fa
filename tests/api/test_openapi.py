"""The OpenAPI schema and the page that shows it."""

import json
import re
from collections.abc import Iterator

import httpx2
import jsonschema
import pytest
from openapi_spec_validator import validate
from pydantic import SecretStr

from api.app import create_app
from api.interface.operation_table import OPERATIONS
from api.interface.schema_examples import ANSWERS, REQUESTS
from api.settings import ApiSettings
from storage.contract import Failure
from tests.api.examples import CHAT, COMPLETION, RESPONSE
from tests.api.fake_worker import FakeWorker
from tests.api.server import serving

Schema = dict  # type: ignore[type-arg]  # a JSON object


@pytest.fixture(scope="module")
def schema() -> Schema:
    """The schema, as it comes out of JSON."""
    app = create_app(ApiSettings(database_url="sqlite:////nowhere.db", redis_url="unix:///nowhere.sock"))
    return json.loads(json.dumps(app.openapi()))  # type: ignore[no-any-return]


def _operations(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            yield method, path, operation


def _check(schema: Schema, model: str, value: object) -> None:
    jsonschema.Draft202012Validator({"$ref": f"#/components/schemas/{model}", **schema}).validate(value)


def test_the_schema_is_valid_openapi(schema: Schema) -> None:
    validate(schema)
    assert schema["openapi"].startswith("3.1")


def test_the_table_of_operations_is_that_of_the_routes(schema: Schema) -> None:
    assert {(method, path) for method, path, _ in _operations(schema)} == OPERATIONS.keys()
    assert len(OPERATIONS) > 40


def test_every_operation_has_schemas_examples_and_error_codes(schema: Schema) -> None:
    for method, path, operation in _operations(schema):
        where = (method, path)
        assert operation["summary"], where
        good = [status for status in operation["responses"] if status.startswith("2")]
        assert good, where
        for status in good:
            content = operation["responses"][status]["content"]
            answer = content.get("application/json") or content["application/octet-stream"]
            assert answer["schema"].get("$ref") or answer["schema"]["format"] == "binary", where
            assert answer["example"], where
        assert {"400", "500", "503"} <= operation["responses"].keys(), where
        assert ("401" in operation["responses"]) == (operation.get("security") != []), where
        for status, answer in operation["responses"].items():
            if status[0] in "45":
                examples = answer["content"]["application/json"]["examples"]
                assert all(f"`{code}`" in answer["description"] for code in examples), where
                for example in examples.values():
                    _check(schema, "Error", example["value"])
        if "requestBody" in operation:
            body = next(iter(operation["requestBody"]["content"].values()))
            _check(schema, body["schema"]["$ref"].rpartition("/")[2], body["example"])


@pytest.mark.parametrize("model", [*ANSWERS, *REQUESTS])
def test_every_example_fits_its_schema(schema: Schema, model: str) -> None:
    _check(schema, model, {**ANSWERS, **REQUESTS}[model])


def test_an_answer_that_lacks_a_field_does_not_fit(schema: Schema) -> None:
    for model in ANSWERS:
        example = dict(list(ANSWERS[model].items())[1:])
        with pytest.raises(jsonschema.ValidationError):
            _check(schema, model, example)


def test_real_answers_fit_the_schema(http: httpx2.Client, schema: Schema, worker: FakeWorker) -> None:
    templates = [(method, re.sub(r"\{\w+\}", "[^/]+", path), path) for method, path in OPERATIONS]

    def call(method: str, path: str, **options: object) -> Schema:
        answer = http.request(method, path, **options)  # type: ignore[arg-type]  # a test's own options
        plain = path.partition("?")[0]
        # The template with the longest literal part, as a router would choose.
        _, _, found = max(
            (one for one in templates if one[0] == method.lower() and re.fullmatch(one[1], plain)),
            key=lambda one: -one[2].count("{"),
        )
        described = schema["paths"][found][method.lower()]["responses"][str(answer.status_code)]
        reference = described["content"]["application/json"]["schema"]["$ref"]
        _check(schema, reference.rpartition("/")[2], answer.json())
        return answer.json()  # type: ignore[no-any-return]

    response = call("POST", RESPONSE.path, json=RESPONSE.body)
    call("GET", f"/v1/responses/{response['id']}")
    call("GET", "/v1/responses?limit=5&status=completed")
    call("GET", f"/v1/responses/{response['id']}/input_items")
    call("GET", f"/v1/responses/{response['id']}/deliveries")
    call("POST", f"/v1/responses/{response['id']}/cancel")
    call("POST", "/v1/responses/input_tokens", json=RESPONSE.body)
    logprobs = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    call("POST", RESPONSE.path, json={**RESPONSE.body, **logprobs, "background": True})
    call("DELETE", f"/v1/responses/{response['id']}")
    call("GET", f"/v1/responses/{response['id']}")

    chat = call("POST", CHAT.path, json={**CHAT.body, "store": True, "logprobs": True, "top_logprobs": 1})
    call("GET", CHAT.path)
    call("GET", f"{CHAT.path}/{chat['id']}")
    call("GET", f"{CHAT.path}/{chat['id']}/messages")
    call("POST", f"{CHAT.path}/{chat['id']}", json={"metadata": {"a": "b"}})
    call("POST", CHAT.path, json=CHAT.body, headers={"prefer": "respond-async"})
    call("POST", COMPLETION.path, json={**COMPLETION.body, "logprobs": 1, "n": 2})
    receipt = call("POST", "/v1/async/completions", json=COMPLETION.body)
    call("GET", f"/v1/async/completions/{receipt['id']}")
    call("DELETE", f"/v1/completions/{receipt['id']}")

    conversation = call("POST", "/v1/conversations", json={"items": [{"role": "user", "content": "Hi"}]})
    path = f"/v1/conversations/{conversation['id']}"
    call("POST", path, json={"metadata": {"a": "b"}})
    call("POST", f"{path}/items", json={"items": [{"role": "assistant", "content": "Hello"}]})
    item = call("GET", f"{path}/items")["data"][0]
    call("GET", f"{path}/items/{item['id']}")
    call("DELETE", f"{path}/items/{item['id']}")
    call("GET", path)
    call("DELETE", path)
    call("GET", path)
    file = call("POST", "/v1/files", files={"file": ("a.jsonl", b"{}")}, data={"purpose": "batch"})
    call("POST", "/v1/files", json={})
    call("GET", "/v1/files")
    call("GET", f"/v1/files/{file['id']}")
    call("DELETE", f"/v1/files/{file['id']}")
    call("GET", f"/v1/files/{file['id']}")

    model = call("GET", "/v1/models")["data"][0]
    call("GET", f"/v1/models/{model['id']}")
    call("GET", "/v1/models/nobody")
    call("GET", "/healthz")
    call("GET", "/readyz")
    call("GET", "/v1/webhook_event_types")
    call("GET", "/v1/webhook_secret")
    call("GET", "/v1/webhook_endpoints/we_x")
    call("GET", "/v1/webhook_endpoints")
    call("POST", RESPONSE.path, content=b"{", headers={"content-type": "application/json"})
    worker.failure = Failure(code="worker_lost", message="gone")
    call("POST", CHAT.path, json=CHAT.body)


@pytest.fixture
def keyed(settings: ApiSettings) -> Iterator[httpx2.Client]:
    """An API that asks for a key."""
    secret = settings.model_copy(update={"api_key": SecretStr("k" * 40)})
    with serving(secret) as server, httpx2.Client(base_url=server.url, trust_env=False) as http:
        yield http


def test_the_page_needs_no_key_and_nothing_from_elsewhere(keyed: httpx2.Client, schema: Schema) -> None:
    assert keyed.get("/v1/models").status_code == 401
    assert keyed.get("/openapi.json").json() == schema

    page = keyed.get("/docs")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(one.strip().split(" ", 1) for one in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "http://" not in page.text
    assert "https://" not in page.text
    files = re.findall(r'(?:src|href)="(/docs/[^"]+)"', page.text)
    assert len(files) == 5
    for file in files:
        answer = keyed.get(file)
        assert (answer.status_code, answer.headers["x-content-type-options"]) == (200, "nosniff")
        assert len(answer.content) > 20
    assert 'url: "/openapi.json"' in keyed.get("/docs/start.js").text


@pytest.mark.parametrize("name", ["LICENSE", "..%2fopenapi_schema.py", "../middleware.py", "%2e%2e/x", "x/y"])
def test_the_page_has_no_other_files(keyed: httpx2.Client, name: str) -> None:
    assert keyed.get(f"/docs/{name}").status_code in (401, 404)


def test_the_address_with_a_slash_leads_to_the_page(keyed: httpx2.Client) -> None:
    answer = keyed.get("/docs/")

    assert (answer.status_code, answer.headers["location"]) == (308, "/docs")
