"""MLServer: a runtime of one model; a request's body is one text of the Open Inference Protocol."""

import asyncio
import json
import os

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.serving.peer_servers.scoring import PeerScorer


class Runtime(MLModel):
    async def load(self) -> bool:
        self.peer = PeerScorer()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        (body,) = StringCodec.decode_input(payload.inputs[0])
        reply = json.dumps(self.peer.score(json.loads(body)))
        return InferenceResponse(model_name=self.name, outputs=[StringCodec.encode_output("reply", [reply])])


async def main() -> None:
    ports = {"http_port": int(os.environ["PEER_PORT"]), "grpc_port": int(os.environ["PEER_PORT"]) + 1}
    server = MLServer(Settings(host="127.0.0.1", metrics_endpoint=None, parallel_workers=0, debug=False, **ports))
    await server.start([ModelSettings(name="student", implementation=Runtime)])


if __name__ == "__main__":
    asyncio.run(main())
