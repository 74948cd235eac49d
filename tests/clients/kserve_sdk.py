"""KServe's SDK: its inference clients over REST and gRPC, and its protos beside the server's."""

import importlib.util
import sys
import types
import unittest

import grpc
import httpx

from common import *

# The package's own __init__ imports KServe's model server and Kubernetes' client, which are no part of this. An empty package
# in its place leaves the clients' modules as they are.
package = types.ModuleType("kserve")
package.__path__ = list(importlib.util.find_spec("kserve").submodule_search_locations)
sys.modules["kserve"] = package

from kserve.inference_client import InferenceGRPCClient, InferenceRESTClient, RESTConfig  # noqa: E402
from kserve.protocol.grpc import grpc_predict_v2_pb2  # noqa: E402
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub  # noqa: E402
from kserve.protocol.infer_type import InferInput, InferRequest  # noqa: E402


def request(binary):
    tensor = InferInput("input", list(TENSOR.shape), "FP32")
    tensor.set_data_from_numpy(TENSOR, binary_data=binary)
    return InferRequest("means", [tensor], request_id="7")


def picture_request():
    tensor = InferInput("input", [len(PICTURES)], "BYTES")
    tensor.set_data_from_numpy(pictures(), binary_data=True)
    return InferRequest("means", [tensor])


class Rest(unittest.IsolatedAsyncioTestCase):
    async def test_inference(self):
        url = f"http://{HTTP}"
        async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:
            self.assertTrue(await client.is_server_live(url))
            self.assertTrue(await client.is_server_ready(url))
            self.assertTrue(await client.is_model_ready(url, "means"))
            for binary in [True, False]:
                answer = await client.infer(url, request(binary), "means")
                assert_means(answer.outputs[0].as_numpy())
                self.assertEqual((answer.id, answer.model_name), ("7", "means"))
            answer = await client.infer(url, picture_request(), "means")
            assert_means(answer.outputs[0].as_numpy(), PICTURE_MEANS)
            with self.assertRaisesRegex(httpx.HTTPStatusError, "no model called nothing is loaded"):
                await client.infer(url, request(True), "nothing")


class Grpc(unittest.IsolatedAsyncioTestCase):
    async def test_inference(self):
        async with InferenceGRPCClient(GRPC, timeout=60) as client:
            self.assertTrue(await client.is_server_live())
            self.assertTrue(await client.is_server_ready())
            self.assertTrue(await client.is_model_ready("means"))
            for binary in [True, False]:
                answer = await client.infer(request(binary))
                assert_means(answer.outputs[0].as_numpy())
                self.assertEqual((answer.id, answer.model_name), ("7", "means"))
            answer = await client.infer(picture_request())
            assert_means(answer.outputs[0].as_numpy(), PICTURE_MEANS)
            self.assertFalse(await client.is_model_ready("nothing"))

    async def test_loading_and_unloading(self):
        async with grpc.aio.insecure_channel(GRPC) as channel:
            stub = GRPCInferenceServiceStub(channel)
            ready = grpc_predict_v2_pb2.ModelReadyRequest(name="spare")
            unload = grpc_predict_v2_pb2.RepositoryModelUnloadRequest(model_name="spare")
            answer = await stub.RepositoryModelUnload(unload, timeout=60)
            self.assertEqual((answer.model_name, answer.isUnloaded), ("spare", True))
            self.assertFalse((await stub.ModelReady(ready, timeout=60)).ready)
            load = grpc_predict_v2_pb2.RepositoryModelLoadRequest(model_name="spare")
            answer = await stub.RepositoryModelLoad(load, timeout=60)
            self.assertEqual((answer.model_name, answer.isLoaded), ("spare", True))
            self.assertTrue((await stub.ModelReady(ready, timeout=60)).ready)
            with self.assertRaisesRegex(grpc.RpcError, "there is no model nothing"):
                load = grpc_predict_v2_pb2.RepositoryModelLoadRequest(model_name="nothing")
                await stub.RepositoryModelLoad(load, timeout=60)


class Protos(unittest.TestCase):
    def test_the_service_has_all_that_the_client_knows(self):
        with grpc.insecure_channel(GRPC) as channel:
            ours = served_file(channel, "inference.GRPCInferenceService")
        theirs = grpc_predict_v2_pb2.DESCRIPTOR
        # Triton's clients have the name of the repository under this number; the server takes either for the model's name.
        triton = [".RepositoryModelLoadRequest.model_name", ".RepositoryModelUnloadRequest.model_name"]
        compare_messages(theirs.message_types_by_name, ours.message_types_by_name, ignored=triton)
        compare_service(*[file.services_by_name["GRPCInferenceService"] for file in [theirs, ours]])


main()
