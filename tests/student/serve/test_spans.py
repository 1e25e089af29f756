from student.versions.registry import Registry
from tests.student.serve.test_admission import TRACE
from tests.student.serve.test_connections import scorer
from tests.student.serve.test_server import BODY, publish

SPAN = "00f067aa0ba902b7"


def test_a_request_for_scores_is_a_span_in_the_trace_of_its_caller(spans, redis_url, tmp_path):
    registry = Registry(tmp_path / "versions")
    publish(registry)
    with scorer(registry, redis_url) as client:
        caller = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        assert client.post("/score", json=BODY, headers=caller).status_code == 200
        assert client.post("/score", json={**BODY, "item_ids": []}).status_code == 422
        assert client.post("/v2/models/student/infer", json=BODY, headers=caller).status_code == 400
        assert client.get("/readyz").status_code == 200
    asked, wrong, inference = spans()
    assert (asked.name, asked.kind.name) == ("POST /score", "SERVER")
    assert (f"{asked.context.trace_id:032x}", f"{asked.parent.span_id:016x}") == (TRACE, SPAN)
    assert asked.attributes["http.response.status_code"] == 200
    assert (wrong.parent, wrong.attributes["http.response.status_code"]) == (None, 422)
    assert inference.name == "POST /v2/models/{model}/infer"
