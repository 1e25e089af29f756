"""What the peers' servers answer: features by Feast's SDK, then the version's own arithmetic in eager torch.

The encoding and the search for ids are graft's, so that a peer differs in server, feature store client and engine
alone. The environment names the Feast repository, the versions, and the Redis of both.
"""

import os
from pathlib import Path
from typing import Any

import torch
from feast import FeatureStore

from benchmarks import scorer
from benchmarks.serving.engines import torch_module
from student.versions.normalizer import normalised
from student.versions.numpy_model import NumpyStudent
from student.versions.registry import Registry


class PeerScorer:
    """Scores of the items of a request like those of POST /score."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        manifest, tensors = Registry(Path(os.environ["PEER_VERSIONS"])).load_model("v000001")
        self._student = NumpyStudent(manifest, tensors)
        self._arm = self._student._own  # noqa: SLF001 - the part that is served
        self._module = torch_module(torch, self._arm)
        self._binary = [task.kind == "binary" for task in manifest.tasks]
        self._store = FeatureStore(os.environ["PEER_REPO"])
        self._service = self._store.get_feature_service("everything")

    def score(self, body: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request's body."""
        items = body["item_ids"]
        entities = {"user_id": [body["user_id"]] * len(items), "item_id": items}
        read = self._store.get_online_features(self._service, entities, full_feature_names=True).to_dict()
        columns = {name.replace("__", ":"): values for name, values in read.items()}
        hours = [body.get("context", {}).get("hour")] * len(items)
        batch = scorer.SPEC.encode({**columns, "context:hour": hours}, len(items))
        arm, places = self._arm, self._student.places(batch.categorical_BC)
        known = arm._posterior.known_at(places[:, : arm._ids])  # noqa: SLF001
        rows = places[:, arm._ids :] * arm._posterior.admitted(known)  # noqa: SLF001
        embedded = arm._table_RL.take(rows, axis=0).reshape(len(items), -1)  # noqa: SLF001
        dense = normalised(batch.dense_BD, arm._mean_D, arm._std_D)  # noqa: SLF001
        with torch.inference_mode():
            inputs = (torch.from_numpy(array.copy()) for array in (dense, embedded, known.user_UR, known.id_BeR))
            value_KB = self._module(*inputs)
            scores = [torch.sigmoid(v) if is_binary else v for v, is_binary in zip(value_KB, self._binary, strict=True)]
        tasks = zip(self._student.tasks, scores, strict=True)
        return {"item_ids": items, "scores": {task: score_B.tolist() for task, score_B in tasks}}
