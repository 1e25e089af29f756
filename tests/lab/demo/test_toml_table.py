"""A demo's own pace is written into the project file it made."""

import tomllib

from lab.demo.run import with_values

_TEXT = 'name = "pair"\n\n[publish] # often\nevery_seconds = 5 # a comment\nkeep = 9\n\n[[tasks]]\nname = "like"\n'


def test_values_are_set_and_all_else_stays() -> None:
    table = tomllib.loads(with_values(_TEXT, "publish", {"every_seconds": 2.0}))
    assert table == {"name": "pair", "publish": {"every_seconds": 2.0, "keep": 9}, "tasks": [{"name": "like"}]}


def test_a_table_that_is_not_there_is_added() -> None:
    table = tomllib.loads(with_values(_TEXT, "stream", {"idle_seconds": 2}))
    assert table == {**tomllib.loads(_TEXT), "stream": {"idle_seconds": 2}}


def test_a_comment_outside_the_table_stays() -> None:
    text = "# first\n[publish]\nkeep = 3\n[teacher]\n# last\nversion = 'a'\n"
    assert "# first" in with_values(text, "publish", {})
    assert "# last" in with_values(text, "publish", {})
