"""Follows docs/export-a-teacher.md for the libraries that `.[dev]` brings: what it exports is a teacher of logits."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner

from graft.cli import cli

PAGE = Path(__file__).parents[1] / "docs" / "export-a-teacher.md"
LOG = "user_id,item_id,timestamp,like\n" + "".join(f"{i % 9},{i % 7},{1_700_000_000 + i},{i % 2}\n" for i in range(60))


def _follow(folder: Path, *names: str) -> None:
    """Write the page's files of these names into the folder, and run the last one."""
    blocks = re.findall(r"^```python (\S+)\n(.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    for name, text in blocks:
        if name in names:
            (folder / name).write_text(text)
    done = subprocess.run([sys.executable, names[-1]], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _truth() -> tuple[Any, Any]:
    draw = np.random.default_rng(1)
    x = draw.uniform([18, 80], [70, 200], size=(2_000, 2)).astype(np.float32)
    chance = 1 / (1 + np.exp((x[:, 0] - 40) / 10 + (x[:, 1] - 120) / 40))
    return x, (draw.random(2_000) < chance).astype(np.int64)


def _sklearn() -> Any:
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415
    from sklearn.preprocessing import StandardScaler  # noqa: PLC0415

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(*_truth())


def _lightgbm() -> Any:
    import lightgbm  # noqa: PLC0415

    return lightgbm.LGBMClassifier(n_estimators=20, num_leaves=7, n_jobs=1, verbose=-1).fit(*_truth())


@pytest.mark.parametrize(
    ("library", "needs", "fitted"),
    [("sklearn", ("sklearn", "skl2onnx"), _sklearn), ("lightgbm", ("lightgbm", "onnxmltools"), _lightgbm)],
)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names:UserWarning")
def test_what_the_page_exports_gives_the_models_logits_and_init_maps_its_inputs(
    tmp_path: Path, library: str, needs: tuple[str, ...], fitted: Callable[[], Any]
) -> None:
    for name in needs:
        pytest.importorskip(name)
    _follow(tmp_path, "as_teacher.py", f"{library}_teacher.py")
    x, _ = _truth()
    session = onnxruntime.InferenceSession(tmp_path / f"{library}.onnx", providers=["CPUExecutionProvider"])
    logit_B = session.run(["like"], {"age": x[:, :1], "length": x[:, 1:]})[0]
    p_B = fitted().predict_proba(x)[:, 1]
    np.testing.assert_allclose(logit_B, np.log(p_B / (1 - p_B)), rtol=1e-3, atol=1e-3)
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "users.csv").write_text("user_id,age\n" + "".join(f"{i},{20 + i}\n" for i in range(9)))
    (tmp_path / "items.csv").write_text("item_id,length\n" + "".join(f"{i},{90 + i}\n" for i in range(7)))
    arguments = ["--events", "log.csv", "--users", "users.csv", "--items", "items.csv", "--teacher", f"{library}.onnx"]
    given = [str(tmp_path / one) if "." in one else one for one in arguments]
    done = CliRunner().invoke(cli, ["init", str(tmp_path / "shop"), *given, "--yes"])
    assert done.exit_code == 0, done.output
    assert re.search(r"^age +float32 +user_profile:age ", done.output, re.MULTILINE)
    assert re.search(r"^length +float32 +item_profile:length ", done.output, re.MULTILINE)
    assert "looks like a probability" not in done.output
