from teacher_cache.explain import explained


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
