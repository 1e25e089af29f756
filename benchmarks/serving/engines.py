"""numpy, torch and onnxruntime at the same arithmetic, and what each needs to take over another version.

All three have one request's rows: normalised dense columns, the embeddings and what is known of the ids, which numpy
gathers from the mapped tables for each of them. torch runs the graph eagerly; onnxruntime runs what torch exports, with
the weights of one version in it. A swap begins with a version's mapped tensors.
"""

import io
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import scorer
from benchmarks.serving.world import World
from student.versions.columns import LARGEST_NETWORK
from student.versions.numpy_model import NumpyStudent
from student.versions.numpy_posterior import Known, NumpyPosterior

ROUNDS = 40


def engines(of: World, seconds: float) -> dict[str, Any]:
    """Microseconds of a forward and milliseconds of a swap, in turns; seconds and memory of the import."""
    import onnxruntime  # noqa: PLC0415 - the other parts do without
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    manifest, tensors = of.registry.load_model("v000001")
    arm = NumpyStudent(manifest, tensors)._own  # noqa: SLF001 - the part that is compared
    inputs = _inputs(arm)
    module = torch_module(torch, arm)
    exported = _exported(torch, module, inputs)
    session = _session(onnxruntime, exported)
    names = [node.name for node in session.get_inputs()]
    given = [torch.from_numpy(array) for array in inputs]
    feed = dict(zip(names, inputs, strict=True))

    def by_torch() -> Any:
        with torch.inference_mode():
            return module(*given)

    forwards: dict[str, Callable[[], Any]] = {
        "numpy": lambda: _by_numpy(arm, inputs),
        "torch": by_torch,
        "onnxruntime": lambda: session.run(None, feed),
    }
    for name, forward in forwards.items():
        found = np.asarray(forward()[0] if name == "onnxruntime" else forward())
        np.testing.assert_allclose(found, _by_numpy(arm, inputs), atol=2e-5, rtol=2e-5, err_msg=name)
    swaps: dict[str, Callable[[], Any]] = {
        "numpy": lambda: NumpyStudent(manifest, tensors),
        "torch": lambda: torch_module(torch, NumpyStudent(manifest, tensors)._own),  # noqa: SLF001
        "onnxruntime": lambda: _session(onnxruntime, exported),
    }
    forward_us = {name: _times(forwards, seconds)[name] for name in forwards}
    swap_ms = _times(swaps, seconds)
    start = time.perf_counter()
    _exported(torch, module, inputs)
    return {
        "forward_us": {name: round(1e6 * value, 1) for name, value in forward_us.items()},
        "swap_ms": {name: round(1e3 * value, 2) for name, value in swap_ms.items()},
        "onnx_export_ms_at_each_publish": round(1e3 * (time.perf_counter() - start), 1),
        "import": {name: _import(name) for name in forwards},
    }


def _inputs(arm: Any) -> list[Any]:
    """Dense columns, embeddings, the user's and the ids' known numbers of 100 rows."""
    rng = np.random.default_rng(3)
    columns = arm._posterior._columns  # noqa: SLF001
    place_BE = rng.integers(0, 100, (scorer.ROWS, columns.ids))
    place_BE[:, 0] = 5
    known = arm._posterior.known_at(place_BE)  # noqa: SLF001
    rows_BC = rng.integers(0, 100, (scorer.ROWS, len(scorer.SPEC.categorical)))
    embedded = arm._table_RL.take(rows_BC, axis=0).reshape(scorer.ROWS, -1)  # noqa: SLF001
    dense = rng.normal(size=(scorer.ROWS, columns.dense_width)).astype(np.float32)
    return [dense, embedded, known.user_UR, known.id_BeR]


def _by_numpy(arm: Any, inputs: list[Any]) -> Any:
    dense, embedded, user, ids = inputs
    return arm._posterior.score(Known(user, ids), dense, arm._network(dense, embedded))  # noqa: SLF001


def torch_module(torch: Any, arm: Any) -> Any:
    """The arithmetic of `_by_numpy` as a module."""
    posterior: NumpyPosterior = arm._posterior  # noqa: SLF001
    columns, order = posterior._columns, posterior._order  # noqa: SLF001
    tensor = lambda array: torch.from_numpy(np.array(array))  # noqa: E731 - a copy that may be written to, as torch asks
    trunk = [(tensor(w), tensor(b)) for w, b in arm._trunk]  # noqa: SLF001
    tower = tensor(arm._tower_weight), tensor(arm._tower_bias)  # noqa: SLF001
    head = tensor(arm._head_KH1), tensor(arm._head_bias_K11)  # noqa: SLF001
    weight, covariance = tensor(posterior._weight_KP1), tensor(posterior._covariance_KPP)  # noqa: SLF001
    offset, scale = tensor(posterior._offset_K1), tensor(posterior._scale_K1)  # noqa: SLF001
    blend, blend_1 = tensor(posterior._blend_KK), tensor(posterior._blend_K1)  # noqa: SLF001
    reach, binary = tensor(posterior._reach_XK), tensor(posterior._binary_K1)  # noqa: SLF001
    own, tasks = tensor(posterior._own_TK), columns.tasks  # noqa: SLF001
    kept = torch.ones(tasks, 1, 2 * tasks)  # the effects of user and item on the task itself are none of its columns
    for k in range(tasks):
        kept[k, 0, 2 * k : 2 * k + 2] = 0
    item_dense = list(columns.item_dense)

    class Module(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, dense: Any, embedded: Any, user: Any, ids: Any) -> Any:
            hidden, rows = torch.cat([dense, embedded], 1), dense.shape[0]
            for w, b in trunk:
                hidden = torch.relu(torch.addmm(b, hidden, w))
            towers = torch.relu(torch.addmm(tower[1], hidden, tower[0])).reshape(rows, tasks, -1).transpose(0, 1)
            network = (torch.bmm(towers, head[0]) + head[1])[:, :, 0]
            network = ((network - offset) / scale).clamp(-LARGEST_NETWORK, LARGEST_NETWORK)
            everyone = user.expand(rows, -1)[:, None, : ids.shape[2]]
            known = torch.cat([everyone, ids], 1)
            counted = torch.stack([known[:, :, order.mean], known[:, :, order.count]], 2)  # [B, E, 2, K]
            aggregates = counted.flatten(1, 2).permute(2, 0, 1)
            effects = known[:, :2, order.effect].transpose(1, 2).flatten(1)
            logits = known[:, :2, order.logit].transpose(1, 2).flatten(1)
            x = torch.cat(
                [
                    torch.ones(tasks, rows, 1), aggregates, dense.expand(tasks, -1, -1),
                    effects.expand(tasks, -1, -1) * kept, network[:, :, None], logits.expand(tasks, -1, -1),
                ],
                2,
            )  # fmt: skip
            moved = (ids.flatten(1) @ reach).T
            eta = torch.bmm(x, weight)[:, :, 0] + user[:, order.effect].T + moved[:tasks]
            v = (torch.bmm(x, covariance) * x).sum(2) + user[:, order.variance].T + moved[tasks:]
            z = torch.cat(
                [
                    dense[:, item_dense].expand(tasks, -1, -1), network[:, :, None],
                    (ids[:, 0, order.logit] @ own).T[:, :, None],
                ],
                2,
            )  # fmt: skip
            eta = eta + (z * user[0, order.slope].reshape(tasks, 1, -1)).sum(2)
            v = v + (z * z * user[0, order.slope_variance].reshape(tasks, 1, -1)).sum(2)
            value = offset + scale * (blend_1 + blend @ eta)
            return torch.where(binary, value / torch.sqrt(1 + np.pi / 8 * v), value)

    return Module().eval()


def _exported(torch: Any, module: Any, inputs: list[Any]) -> bytes:
    target = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = tuple(torch.from_numpy(array) for array in inputs)
        names = ["dense", "embedded", "user", "ids"]
        torch.onnx.export(module, given, target, input_names=names, opset_version=17, dynamo=False)
    return target.getvalue()


def _session(onnxruntime: Any, model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _times(calls: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The median seconds of each call, in turns."""
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            end = time.perf_counter() + seconds / ROUNDS / len(calls)
            while time.perf_counter() < end or not samples[name]:
                start = time.perf_counter()
                call()
                samples[name].append(time.perf_counter() - start)
    return {name: float(np.median(taken)) for name, taken in samples.items()}


def _import(name: str) -> dict[str, float]:
    """Seconds and megabytes of importing a package in a process of its own."""
    program = (
        f"import time; start = time.perf_counter(); import {name}; print(time.perf_counter() - start, "
        "open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
    )
    seconds, kibibytes = subprocess.check_output([sys.executable, "-c", program]).split()
    return {"seconds": round(float(seconds), 2), "megabytes": round(float(kibibytes) / 1024)}
