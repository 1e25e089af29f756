"""A teacher that sees the hour of an impression: finish is 100 times the item plus the hour, rating is the hour."""

from pathlib import Path
from typing import Any

from onnx import TensorProto, helper

from features.online.reader import context_value
from features.spec import Feature
from stream.events import TeacherRequest
from teacher_cache.config import TeacherConfig
from teacher_cache.domain.context_key import ContextKey
from teacher_cache.domain.domain_map import DomainMap
from teacher_cache.domain.request_scorer import RequestScorer
from teacher_cache.kinds.load import load_teacher
from tests.specs import spec_of
from tests.teacher_cache.conftest import TASKS, save_teacher

MISSING_HOUR = -1.0
HOUR = Feature(name="context:hour", source="context", role="dense", dtype="float", default=12.0)
DEVICE = Feature(name="context:device", source="context", role="categorical", dtype="str", default="")
ITEM = Feature(name="item_id", source="item_id", role="categorical", dtype="int", default=None)
SPEC = spec_of(DEVICE, ITEM, HOUR)
"""The teacher does not see the device."""

CONFIG = TeacherConfig.model_validate(
    {
        "version": "t1",
        "onnx": "teacher.onnx",
        "tasks": TASKS,
        "inputs": {
            "item": {"kind": "feature", "feature": "item_id", "default": 0},
            "hour": {"kind": "feature", "feature": "context:hour", "default": MISSING_HOUR},
        },
    }
)
CONTEXT = ContextKey.seen_by(CONFIG, SPEC)


def hourly_scorer(folder: Path) -> RequestScorer:
    """The teacher behind its map."""
    nodes = [
        helper.make_node("Cast", ["item"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Constant", [], ["hundred"], value_float=100.0),
        helper.make_node("Mul", ["number", "hundred"], ["hundreds"]),
        helper.make_node("Add", ["hundreds", "hour"], ["finish_logit"]),
        helper.make_node("Identity", ["hour"], ["rating_value"]),
    ]
    outputs = {name: (TensorProto.FLOAT, ["B"]) for name in ("finish_logit", "rating_value")}
    save_teacher(folder, {"item": (TensorProto.INT64, ["B"]), "hour": (TensorProto.FLOAT, ["B"])}, outputs, nodes)
    teacher = load_teacher(CONFIG, folder)
    return RequestScorer(teacher, DomainMap(CONFIG, folder, teacher, SPEC), SPEC)


def hourly_request(n: int, item_id: int, hour: Any, *, user_id: int = 1, device: str = "phone") -> TeacherRequest:
    """The request number `n`, as the stream makes it of an event with this hour; None: without one."""
    return TeacherRequest(
        impression_id=f"imp-{n}",
        user_id=user_id,
        item_id=item_id,
        event_time_ms=1000 + n,
        context={"device": device} if hour is None else {"device": device, "hour": hour},
        spec_id=SPEC.spec_id,
        features=[device, item_id, context_value(HOUR, hour)],
    )


def said_of(request: TeacherRequest) -> list[float]:
    """The teacher's logits of a request."""
    hour = request.features[2]
    hour = MISSING_HOUR if hour is None else hour
    assert isinstance(hour, int | float)
    return [100.0 * int(request.item_id) + hour, float(hour)]
