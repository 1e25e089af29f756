"""What the stages of a demo get from the process that starts them."""

import subprocess
import sys
from pathlib import Path

from graft.settings import load_settings
from lab.dev.processes import environment_of
from lab.embedded.services import Services


def test_a_stage_takes_the_demos_endpoints_although_the_user_named_theirs_by_files(tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("redis://:hunter2@cache:6379/0")
    users = {"GRAFT_REDIS_URL_FILE": str(secret), "GRAFT_KAFKA_FILE": str(secret), "GRAFT_METRICS_PORT": "9100"}
    services = Services("127.0.0.1:9092", "redis://127.0.0.1:6379/0", embedded_kafka=True)
    settings = load_settings({**users, **environment_of(services, tmp_path / "pair", tmp_path / "versions")})
    assert (settings.kafka, settings.redis_url.get_secret_value()) == services[:2]
    assert (settings.project, settings.versions) == (tmp_path / "pair", tmp_path / "versions")
    assert (settings.metrics_port, settings.admin_port) == (None, None)


def test_the_demo_itself_imports_no_feast_whose_metrics_folder_its_stages_would_inherit() -> None:
    program = "import sys, lab.demo.run; print('feast' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
