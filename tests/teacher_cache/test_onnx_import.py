"""What the import of onnxruntime leaves in the home folder."""

import os
import subprocess
import sys
from pathlib import Path


def test_onnxruntime_reports_nothing_and_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    """Since 1.32 it numbers the device there; where it cannot, it says so on standard error."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ORT_"))}
    program = "import teacher_cache.kinds.onnx_teacher, sys; print('onnxruntime' in sys.modules)"
    argv = [sys.executable, "-c", program]

    ran = subprocess.run(argv, env=kept | {"HOME": str(tmp_path)}, capture_output=True, text=True, check=True)

    assert (ran.stdout, ran.stderr, [*tmp_path.iterdir()]) == ("True\n", "", [])
