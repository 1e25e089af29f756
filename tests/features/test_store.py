"""Applying, compiling and materializing a real Feast repository."""

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from feast.infra.online_stores.redis import RedisOnlineStore

import features
from features.repo.store import apply, compile_spec, connection_string, materialize, open_store
from features.spec import load_spec, spec_path
from runtime.errors import ConfigurationError, GraftError, ServiceUnavailableError

NO_REDIS = "redis://127.0.0.1:1/0"


def test_apply_saves_the_spec_beside_the_registry_wherever_it_is_called_from(applied, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert (applied.repo / "data" / "registry.db").exists()
    assert not (applied.repo / "elsewhere").exists(), "feature_store.yaml's own registry is not used"
    assert load_spec(applied.repo) == applied.spec
    assert spec_path(applied.repo).parent == applied.repo / "data"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_writes_is_one_line_of_apply_that_names_the_folder(repo, config, disk):
    data = disk.folder / "repo" / "data"
    shutil.copytree(repo, disk.folder / "repo")
    disk.fill()
    with pytest.raises(GraftError, match=rf"^{data}: cannot be written: No space left on device; make room [^\n]*$"):
        apply(disk.folder / "repo", NO_REDIS, config)
    disk.make_room()
    disk.refuse_writes()
    with pytest.raises(GraftError, match=rf"^{data}: cannot be written: Read-only file system; mount it [^\n]*$"):
        apply(disk.folder / "repo", NO_REDIS, config)


def test_compiling_needs_neither_a_registry_nor_redis_and_gives_the_applied_spec(applied, repo, config):
    assert compile_spec(repo, NO_REDIS, config) == applied.spec
    assert {path.name for path in (repo / "data").iterdir()} == {"users.parquet", "items.parquet"}


def test_a_repository_file_may_be_called_like_a_package_of_ours(repo, config):
    here, path = Path.cwd(), list(sys.path)

    compile_spec(repo, NO_REDIS, config)

    assert sys.modules["features"] is features
    assert sys.modules["features.repo.store"].apply is apply
    assert (Path.cwd(), sys.path) == (here, path)


def test_two_repositories_with_equal_file_names_are_read_apart(repo, config):
    compile_spec(repo, NO_REDIS, config)
    definitions = repo / "features.py"
    definitions.write_text(definitions.read_text().replace('"age"', '"years"'))

    with pytest.raises(ConfigurationError, match="no feature of view 'users' 'age'; there is city, income"):
        compile_spec(repo, NO_REDIS, config)


def test_the_spec_lists_features_in_the_order_of_the_roles_and_of_the_config(applied):
    names = [f.name for f in applied.spec.features]

    assert names[:3] == ["users:age", "users:level", "users:score"]
    assert names[9:14] == ["users:taste", "users:taste64", "items:vector", "item_taught:vector", "user_id"]
    assert names[-4:] == [
        "context:hour",
        "user_history:like_rate",
        "user_history:rating_sum",
        "item_history:like_rate",
    ]
    assert (applied.spec.user_join_key, applied.spec.user_id_type) == ("user_id", "int")
    assert (applied.spec.item_join_key, applied.spec.item_id_type) == ("item_code", "str")


def test_defaults_come_from_the_config_then_from_the_type(applied):
    defaults = {f.name: f.default for f in applied.spec.features}

    assert defaults["users:score"] == -1.0
    assert defaults["users:age"] == 0.0
    assert defaults["users:taste64"] == [0.5, 0.5]
    assert defaults["items:vector"] == [0.0] * 40, "the field's vector_length"
    assert defaults["users:city"] == "nowhere"
    assert defaults["items:genre"] is None
    assert defaults["context:device"] == "phone"


def test_applying_again_removes_what_the_repository_no_longer_defines(repo, config, changed_config, redis_url):
    apply(repo, redis_url, config)
    definitions = repo / "features.py"
    definitions.write_text(definitions.read_text().replace("narrow = FeatureService", "_ = lambda **_: None; _"))

    again = apply(repo, redis_url, config)

    assert again == load_spec(repo)
    assert [s.name for s in open_store(repo, redis_url).list_feature_services()] == ["student"]


def test_faults_change_nothing(repo, changed_config, redis_url):
    with pytest.raises(ConfigurationError, match="no feature service 'nobody'; there is narrow, student"):
        apply(repo, redis_url, changed_config(service="nobody"))
    assert not spec_path(repo).exists()
    assert not (repo / "data" / "registry.db").exists()


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('redis\n  connection_string: "nowhere.invalid:1"', "sqlite", "online_store.type must be redis, got 'sqlite'"),
        ("type: redis", "type: redis\n  redis_type: redis_cluster", "redis_type must be redis, got 'redis_cluster'"),
        ("project: readers", "projekt: readers", "feature_store.yaml: "),
    ],
)
def test_an_unusable_feature_store_yaml_is_named(repo, config, old, new, fault):
    settings = repo / "feature_store.yaml"
    settings.write_text(settings.read_text().replace(old, new))

    with pytest.raises(ConfigurationError, match=fault):
        compile_spec(repo, NO_REDIS, config)


def test_a_folder_without_a_repository_is_named(tmp_path, config):
    with pytest.raises(ConfigurationError, match=r"feature_store.yaml: no such file; features.repo must name"):
        compile_spec(tmp_path, NO_REDIS, config)
    with pytest.raises(GraftError, match="make it with 'graft features apply'"):
        load_spec(tmp_path)


def test_a_repository_that_fails_is_named_with_its_error(repo, config):
    (repo / "broken.py").write_text("1 / 0\n")

    with pytest.raises(ConfigurationError, match=r"cannot be read: ZeroDivisionError"):
        compile_spec(repo, NO_REDIS, config)


@pytest.mark.parametrize(
    ("definition", "argument"),
    [
        ("Entity(name='user', join_keys='user_id')", "join_keys"),
        ("FeatureView(name='users', source=None, entities='user')", "entities"),
        ("FileSource(path=7)", "path"),
        ("FeatureService(name='student', features='users')", "features"),
    ],
)
def test_an_argument_of_a_wrong_type_is_named(repo, config, definition, argument):
    (repo / "wrong.py").write_text(f"from feast import *\n{definition}\n")

    with pytest.raises(ConfigurationError, match=f'cannot be read: TypeCheckError.*argument "{argument}"'):
        compile_spec(repo, NO_REDIS, config)


def test_materialize_counts_one_row_per_entity_and_leaves_the_pushed_views_alone(applied):
    assert applied.rows == {"users": 5, "items": 122}


def test_materialize_reads_rows_up_to_its_end(repo, config, redis_url):
    apply(repo, redis_url, config)

    assert materialize(repo, redis_url, config, end=datetime(2025, 6, 1, tzinfo=UTC)) == {"users": 5, "items": 0}


def test_materialize_prints_nothing(repo, config, redis_url, capfd):
    apply(repo, redis_url, config)
    materialize(repo, redis_url, config)

    assert capfd.readouterr() == ("", "")


def test_materialize_names_what_is_missing(repo, config, redis_url):
    with pytest.raises(GraftError, match="no feature service 'student' in the registry; run 'graft features apply'"):
        materialize(repo, redis_url, config)

    apply(repo, redis_url, config)
    with pytest.raises(ServiceUnavailableError, match=r"Redis at redis://127.0.0.1:1/0 does not answer"):
        materialize(repo, NO_REDIS, config)

    (repo / "data" / "items.parquet").unlink()
    with pytest.raises(GraftError, match=r"items.parquet: no such file; it is the source of the feature view 'items'"):
        materialize(repo, redis_url, config)


@pytest.mark.parametrize("password", ["plain", "123", "true", "1e5", 'a,b="c"\\', "ünï cödé", "[1]"])
def test_feast_reads_any_password_out_of_the_connection_string(password):
    from urllib.parse import quote  # noqa: PLC0415

    url = f"rediss://{quote('some,one')}:{quote(password, safe='')}@redis.example:6380/3"

    nodes, options = RedisOnlineStore._parse_connection_string(connection_string(url))

    assert nodes == [{"host": "redis.example", "port": "6380"}]
    limits = {"retry": None, "socket_timeout": 10.0, "socket_connect_timeout": 10.0}
    assert options == {"db": 3, "ssl": True, "username": "some,one", "password": password, **limits}
