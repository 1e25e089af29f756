import numpy as np
from pydantic import TypeAdapter

from teacher_cache.config import TeacherInput
from teacher_cache.domain.domain_map import MappedRows, explained


def test_every_input_tells_its_value_source_and_transform(domain_map, config):
    columns = {
        "users:age": [20],
        "users:job": ["nurse"],
        "items:vector": [[1.0, 2.0]],
        "items:year": [None],
        "item_id": [7],
    }
    found = explained(domain_map, config.inputs, columns)
    assert [one.line() for one in found] == [
        "age_code = 18: users:age is 20, its bucket between 18, 25",
        "taste = [0.0, 0.0, 0.0]: items:vector is [1.0, 2.0], as it is, which does not fit, so the default",
        "year = 8.0: items:year is missing, so the default",
        "source_user = 2: the default of every row",
    ]
    assert [(one.kind, one.fell_back) for one in found] == [
        ("bucket", False),
        ("feature", True),
        ("linear", True),
        ("default", False),
    ]


class _Mapped:
    """A domain map that has mapped one row."""

    def __init__(self, value, fell_back):
        self._rows = MappedRows({"x": np.array([value])}, {"x": np.array([fell_back])})

    def map_rows(self, _columns):
        return self._rows


def test_each_kind_says_what_it_does():
    def line(value, fell_back, columns, **given):
        mapped = TypeAdapter(TeacherInput).validate_python({"default": 0, **given})
        (one,) = explained(_Mapped(value, fell_back), {"x": mapped}, columns)
        return one.line()

    age, both = {"age": [20]}, {"job": ["nurse"], "age": [20]}
    assert line(7.5, False, age, kind="linear", feature="age", multiply=0.5, maximum=7.5) == (
        "x = 7.5: age is 20, times 0.5 plus 0, at most 7.5"
    )
    assert line(0.0, True, {"age": [-3]}, kind="log", feature="age") == (
        "x = 0.0: age is -3, plus 1, the natural logarithm, which does not fit, so the default"
    )
    assert line(4, False, {"job": ["nurse"]}, kind="vocabulary", feature="job", file="v.txt", first=1) == (
        "x = 4: job is 'nurse', its line in v.txt, the first is 1"
    )
    joined = {"features": ["job", "age"], "separator": "/"}
    assert line("nurse/20", False, both, kind="concat", default="", **joined) == (
        "x = 'nurse/20': job, age is ['nurse', 20], joined by '/'"
    )
    assert line(17, False, both, kind="hash", buckets=1000, **joined) == (
        "x = 17: job, age is ['nurse', 20], joined by '/', hashed into 1,000 buckets"
    )
