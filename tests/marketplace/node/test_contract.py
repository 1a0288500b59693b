"""The node keeps to its own OpenAPI document: generated requests meet documented answers, and no bug."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.marketplace.node.serving import Served

STREAMS = ("/v1/events", "/v1/export")


def test_generated_requests_meet_documented_answers(served: Served) -> None:
    """For every operation, requests made from its schema, valid or not, get an answer that the document names."""
    schema = schemathesis.openapi.from_dict(served.get("/openapi.json"))
    operations = [found.ok() for found in schema.get_all_operations() if found.ok().path not in STREAMS]
    assert len(operations) > 25

    @settings(max_examples=8, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(data=st.data(), mode=st.sampled_from(list(schemathesis.GenerationMode)))
    def run(operation: Any, data: Any, mode: Any) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        request = case.as_transport_kwargs(base_url="http://node")
        answer = served.call(request["method"], request["url"], **_options(request))
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        assert str(answer.status_code) in operation.definition.raw["responses"], (request, answer.status_code, answer.text)
        problem = answer.headers.get("content-type") == "application/problem+json"
        assert problem == (answer.status_code != 200)

    for operation in operations:
        run(operation)


def _options(request: dict[str, Any]) -> dict[str, Any]:
    names = {"params": "params", "json": "json", "data": "content", "headers": "headers"}
    return {ours: request[theirs] for theirs, ours in names.items() if request.get(theirs) is not None}


@pytest.mark.parametrize("path", ["/v1/status", "/v1/leases", "/v1/blocks", "/version"])
def test_answers_have_what_the_document_requires(served: Served, path: str) -> None:
    """A real answer has every property that its schema requires."""
    document = served.get("/openapi.json")
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    assert set(schema.get("required", ())) <= set(served.get(path))


def test_a_key_with_a_line_break_meets_a_documented_answer(served: Served) -> None:
    """No route takes such a path, and the document says that this may be."""
    answer = served.call("GET", "/v1/proofs/account/%0A1")
    assert answer.status_code == 404
    assert "404" in served.get("/openapi.json")["paths"]["/v1/proofs/{table}/{key}"]["get"]["responses"]
