"""The stages: what they get of the process that starts them; one that dies is started again, or ends the demo."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from graft.settings import load_settings
from lab.dev.processes import Stage, Supervisor, Trouble, environment_of
from lab.embedded.services import Services
from runtime.errors import GraftError

_SLEEPS = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


def _wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_killed_process_runs_again(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        sleeper = supervisor.start(Stage("sleeper", (), {}), _SLEEPS)
        first = sleeper.process.pid
        os.kill(first, signal.SIGKILL)
        _wait_for(lambda: sleeper.process.pid != first)
        assert psutil.pid_exists(sleeper.process.pid)
        assert supervisor.troubles() == {"sleeper": Trouble(1, "")}
        supervisor.check()


def test_leaving_the_supervisor_leaves_no_process(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        pids = [supervisor.start(Stage(name, (), {}), _SLEEPS).process.pid for name in ("sleeper", "another")]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_a_restarted_process_too_is_asked_to_stop_before_it_is_killed(tmp_path: Path) -> None:
    stops_politely = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('asked to stop', flush=True), sys.exit(0)))\n"
        "print('up', flush=True)\ntime.sleep(60)\n"
    )
    log = tmp_path / "polite.log"
    with Supervisor(tmp_path) as supervisor:
        polite = supervisor.start(Stage("polite", (), {}), [sys.executable, "-S", "-c", stops_politely])
        _wait_for(lambda: log.read_text().count("up") == 1)
        os.kill(polite.process.pid, signal.SIGKILL)
        _wait_for(lambda: log.read_text().count("up") == 2)
    assert log.read_text().splitlines() == ["up", "up", "asked to stop"]


def test_a_stage_that_dies_at_once_five_times_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Supervisor(tmp_path) as supervisor:
        argv = [sys.executable, "-S", "-c", "import sys; sys.exit('no such topic: plums')"]
        supervisor.start(Stage("broken", ("stream", "run"), {}), argv)

        def gave_up() -> bool:
            try:
                supervisor.check()
            except GraftError:
                return True
            return False

        _wait_for(gave_up)
        with pytest.raises(GraftError, match=r"(?s)run ended 5 times within 5 minutes.*code 1.*no such topic: plums"):
            supervisor.check()
        assert supervisor.troubles() == {"broken": Trouble(4, "no such topic: plums")}


def test_a_stage_sees_its_environment(tmp_path: Path) -> None:
    argv = [sys.executable, "-S", "-c", "import os, time; print(os.environ['GRAFT_KAFKA'], flush=True); time.sleep(60)"]
    with Supervisor(tmp_path) as supervisor:
        supervisor.start(Stage("stage", (), {"GRAFT_KAFKA": "127.0.0.1:1"}), argv)
        _wait_for(lambda: (tmp_path / "stage.log").read_text() == "127.0.0.1:1\n")


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
