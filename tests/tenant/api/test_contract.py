"""The gateway keeps to its own OpenAPI document: generated requests meet documented answers, and no bug."""

from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.tenant.api.gateway_story import Desk, sdl


def test_generated_requests_meet_documented_answers(desk: Desk) -> None:
    """For every operation, requests made from its schema, valid or not, get an answer that the document names."""
    desk.made(sdl())
    schema = schemathesis.openapi.from_dict(desk.get("/openapi.json"))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) == 13

    @settings(max_examples=12, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(data=st.data(), mode=st.sampled_from(list(schemathesis.GenerationMode)))
    def run(operation: Any, data: Any, mode: Any) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode))
        request = case.as_transport_kwargs(base_url="http://gateway")
        headers = {name: value for name, value in (request.get("headers") or {}).items() if name.lower() != "authorization"}
        names = {"params": "params", "json": "json", "data": "content"}
        options = {ours: request[theirs] for theirs, ours in names.items() if request.get(theirs) is not None}
        answer = desk.call(request["method"], request["url"], headers=headers, **options)
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        assert str(answer.status_code) in operation.definition.raw["responses"], (request, answer.status_code, answer.text)
        assert (answer.headers["content-type"] == "application/problem+json") == (answer.status_code >= 400)

    for operation in operations:
        run(operation)


def test_answers_have_what_the_document_requires(desk: Desk) -> None:
    """Real answers have every property that their schema requires."""
    made = desk.made(sdl())
    lease = made["leases"][0]
    document = desk.get("/openapi.json")
    schemas = document["components"]["schemas"]
    bill = desk.call("DELETE", f"/v1/deployments/{made['dseq']}").json()
    problem = desk.call("GET", "/v1/deployments/1").json()
    for name, real in (("Deployment", made), ("Lease", lease), ("Bill", bill), ("Problem", problem)):
        assert set(schemas[name]["required"]) <= set(real), name
    assert all("security" in operation for path, ops in document["paths"].items() if "/v1" in path for operation in ops.values())
