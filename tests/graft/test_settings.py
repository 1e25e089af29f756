from pathlib import Path

import pytest

from graft.settings import load_settings
from runtime.errors import ConfigurationError

_URL = "redis://:hunter2@cache:6379/3"


def test_without_variables_everything_is_local() -> None:
    settings = load_settings({"HOME": "/nowhere"})
    assert settings.kafka == "localhost:9092"
    assert settings.redis_url.get_secret_value() == "redis://localhost:6379/0"
    assert (settings.http_host, settings.http_port) == ("127.0.0.1", 8080)
    assert settings.metrics_port is None


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load_settings({"GRAFT_METRICS_PORT": ""}).metrics_port is None


def test_every_fault_is_named_at_once() -> None:
    environment = {
        "GRAFT_REDIS_ULR": "redis://localhost",
        "GRAFT_METRICS_PORT": "0",
        "GRAFT_HTTP_PORT": "eighty",
        "GRAFT_KAFKA": "localhost",
        "GRAFT_VERSIONS_FILE": "/no/such/file",
    }
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment)
    faults = caught.value.faults
    assert "GRAFT_REDIS_ULR: no such setting; did you mean GRAFT_REDIS_URL?" in faults
    assert "GRAFT_METRICS_PORT: must be >= 1, got '0'" in faults
    assert "GRAFT_HTTP_PORT: must be an integer, got 'eighty'" in faults
    assert "GRAFT_KAFKA: must be host:port, such as localhost:9092 (several with commas), got 'localhost'" in faults
    assert any(fault.startswith("GRAFT_VERSIONS_FILE: cannot read") for fault in faults)
    assert len(faults) == 5


def test_a_secret_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(_URL + "\n")
    settings = load_settings({"GRAFT_REDIS_URL_FILE": str(tmp_path / "url")})
    assert settings.redis_url.get_secret_value() == _URL
    assert "hunter2" not in repr(settings) + str(settings) + settings.model_dump_json()


def test_what_a_file_holds_is_not_shown_where_it_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("hunter2, got by mistake")
    with pytest.raises(ConfigurationError) as caught:
        load_settings({"GRAFT_KAFKA_FILE": str(tmp_path / "wrong")})
    (fault,) = caught.value.faults
    assert fault == (
        "GRAFT_KAFKA_FILE: must be host:port, such as localhost:9092 (several with commas), "
        "and what the file holds is not"
    )
    assert "hunter2" not in fault
    assert "mistake" not in fault


def test_a_secret_stays_out_of_the_faults_of_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "url").write_text(_URL)
    environment = {"GRAFT_REDIS_URL_FILE": str(tmp_path / "url"), "GRAFT_REDIS_URL": _URL, "GRAFT_LOG_LEVEL": "LOUD"}
    with pytest.raises(ConfigurationError) as caught:
        load_settings(environment)
    assert "hunter2" not in str(caught.value)
    assert "GRAFT_REDIS_URL_FILE: GRAFT_REDIS_URL is set as well; keep one of the two" in caught.value.faults


@pytest.mark.parametrize(
    ("variable", "value", "rule"),
    [
        ("GRAFT_INSTANCE", "a b", "must be 1 to 64 letters, digits, '.', '_' and '-'"),
        ("GRAFT_LOG_LEVEL", "verbose", "must be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'"),
    ],
)
def test_what_is_allowed_is_said_in_words(variable: str, value: str, rule: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings({variable: value})
    assert caught.value.faults == (f"{variable}: {rule}, got {value!r}",)
