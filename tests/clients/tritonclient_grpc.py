"""tritonclient over gRPC, blocking and asyncio, and its protos beside the server's."""

import queue
import unittest

import grpc
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from common import *
from model_control import ModelControl


def tensor_input(tensor=TENSOR):
    made = triton.InferInput("input", tensor.shape, "FP32")
    made.set_data_from_numpy(tensor)
    return made


def picture_input():
    made = triton.InferInput("input", [len(PICTURES)], "BYTES")
    made.set_data_from_numpy(pictures())
    return made


class Blocking(ModelControl, unittest.TestCase):
    tensor_input = staticmethod(tensor_input)

    def setUp(self):
        self.client = triton.InferenceServerClient(GRPC)

    def tearDown(self):
        self.client.close()

    def assert_status(self, status, call):
        with self.assertRaises(InferenceServerException) as raised:
            call()
        self.assertEqual(raised.exception.status(), f"StatusCode.{status}")
        self.assertIn(" ", raised.exception.message())

    def test_health_and_descriptions(self):
        client = self.client
        self.assertTrue(client.is_server_live())
        self.assertTrue(client.is_server_ready())
        self.assertTrue(client.is_model_ready("means", "1"))
        self.assertEqual(client.get_server_metadata().name, "convoy")
        metadata = client.get_model_metadata("means", as_json=True)
        self.assertEqual(metadata["inputs"], [{"name": "input", "datatype": "FP32", "shape": ["-1", "3", "8", "8"]}])
        config = client.get_model_config("means").config
        self.assertEqual((config.max_batch_size, list(config.input[0].dims)), (8, [3, 8, 8]))
        self.assertEqual(config.input[0].data_type, model_config_pb2.TYPE_FP32)
        self.assertTrue(config.HasField("dynamic_batching"))
        index = {model.name: model for model in client.get_model_repository_index().models}
        self.assertEqual(index["means"].state, "READY")

    def test_tensors_pictures_and_classification(self):
        result = self.client.infer("means", [tensor_input()], request_id="7")
        assert_means(result.as_numpy("logits"))
        self.assertEqual(result.get_response().id, "7")
        assert_means(self.client.infer("means", [picture_input()]).as_numpy("logits"), PICTURE_MEANS)
        outputs = [triton.InferRequestedOutput("logits", class_count=2)]
        result = self.client.infer("means", [tensor_input()], outputs=outputs)
        assert_classes(result.as_numpy("logits"), 2)

    def test_compression(self):
        for algorithm in ["gzip", "deflate"]:
            result = self.client.infer("means", [tensor_input()], compression_algorithm=algorithm)
            assert_means(result.as_numpy("logits"))

    def test_requests_in_parallel(self):
        results = queue.Queue()
        for _ in range(16):
            self.client.async_infer("means", [tensor_input()], lambda result, error: results.put((result, error)))
        for _ in range(16):
            result, error = results.get(timeout=60)
            self.assertIsNone(error)
            assert_means(result.as_numpy("logits"))

    def test_timeouts_and_cancellation(self):
        held = [tensor_input(TENSOR[:1])]
        self.assert_status("DEADLINE_EXCEEDED", lambda: self.client.infer("held", held, timeout=20_000))
        self.assert_status("DEADLINE_EXCEEDED", lambda: self.client.infer("held", held, client_timeout=0.05))
        result = self.client.infer("means", [tensor_input()], priority=1, timeout=60_000_000, client_timeout=60)
        assert_means(result.as_numpy("logits"))
        results = queue.Queue()
        context = self.client.async_infer("held", held, lambda result, error: results.put((result, error)))
        context.cancel()
        result, error = results.get(timeout=60)
        self.assertIsNone(result)
        self.assertEqual(error.status(), "StatusCode.CANCELLED")

    def test_a_stream(self):
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        for index in range(8):
            model = "nothing" if index == 3 else "means"
            self.client.async_stream_infer(
                model, [tensor_input()], request_id=str(index), enable_empty_final_response=True
            )
        for index in range(8):
            result, error = answers.get(timeout=60)
            if index == 3:
                self.assertIn("nothing", error.message())
                continue
            self.assertIsNone(error)
            response = result.get_response()
            self.assertEqual(response.id, str(index))
            self.assertTrue(response.parameters["triton_final_response"].bool_param)
            assert_means(result.as_numpy("logits"))
        self.client.stop_stream()

    def test_a_cancelled_stream(self):
        answers = queue.Queue()
        self.client.start_stream(lambda result, error: answers.put((result, error)))
        self.client.async_stream_infer("held", [tensor_input(TENSOR[:1])])
        self.client.stop_stream(cancel_requests=True)
        _, error = answers.get(timeout=60)
        self.assertEqual(error.status(), "StatusCode.CANCELLED")

    def test_errors_have_their_codes(self):
        self.assert_status("NOT_FOUND", lambda: self.client.infer("nothing", [tensor_input()]))
        self.assert_status("INVALID_ARGUMENT", lambda: self.client.infer("means", []))
        self.assert_status("NOT_FOUND", lambda: self.client.get_model_metadata("nothing"))

    def test_what_is_not_offered(self):
        for call in [
            self.client.get_log_settings,
            self.client.get_trace_settings,
            self.client.get_system_shared_memory_status,
            self.client.get_cuda_shared_memory_status,
        ]:
            self.assert_status("UNIMPLEMENTED", call)

    def index(self):
        return {row.name: (row.state, row.reason) for row in self.client.get_model_repository_index().models}

    def max_batch_size(self, name):
        return self.client.get_model_config(name).config.max_batch_size

    def model_config(self, name):
        return self.client.get_model_config(name, as_json=True)["config"]

    def test_statistics(self):
        before = self.client.get_inference_statistics("means").model_stats[0].inference_count
        self.client.infer("means", [tensor_input()])
        after = self.client.get_inference_statistics("means", "1").model_stats[0]
        self.assertEqual(after.inference_count, before + 2)


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    async def test_everything_once(self):
        async with triton_aio.InferenceServerClient(GRPC) as client:
            self.assertTrue(await client.is_server_ready())
            self.assertTrue(await client.is_model_ready("means"))
            self.assertEqual((await client.get_model_metadata("means")).name, "means")
            assert_means((await client.infer("means", [tensor_input()])).as_numpy("logits"))
            result = await client.infer("means", [picture_input()], compression_algorithm="gzip")
            assert_means(result.as_numpy("logits"), PICTURE_MEANS)
            with self.assertRaises(InferenceServerException):
                await client.infer("nothing", [tensor_input()])

    async def test_a_stream(self):
        async def requests():
            for index in range(4):
                yield {"model_name": "means", "inputs": [tensor_input()], "request_id": str(index)}

        async with triton_aio.InferenceServerClient(GRPC) as client:
            ids = []
            async for result, error in client.stream_infer(requests()):
                self.assertIsNone(error)
                assert_means(result.as_numpy("logits"))
                ids.append(result.get_response().id)
            self.assertEqual(ids, ["0", "1", "2", "3"])


class Protos(unittest.TestCase):
    """The server's descriptions beside those that the client was generated from."""

    def test_the_service_is_the_clients(self):
        with grpc.insecure_channel(GRPC) as channel:
            ours = served_file(channel, "inference.GRPCInferenceService")
        theirs = service_pb2.DESCRIPTOR
        compare_messages(theirs.message_types_by_name, ours.message_types_by_name)
        # The server's answers to loading and unloading have the fields of KServe's clients, too.
        kserve = [
            ".RepositoryModelLoadResponse.model_name",
            ".RepositoryModelLoadResponse.isLoaded",
            ".RepositoryModelUnloadResponse.model_name",
            ".RepositoryModelUnloadResponse.isUnloaded",
        ]
        compare_messages(ours.message_types_by_name, theirs.message_types_by_name, ignored=kserve)
        compare_service(*[file.services_by_name["GRPCInferenceService"] for file in [theirs, ours]])

    def test_the_model_configuration_is_the_clients(self):
        with grpc.insecure_channel(GRPC) as channel:
            ours = served_file(channel, "inference.ModelConfig")
        theirs = model_config_pb2.DESCRIPTOR
        compare_messages(ours.message_types_by_name, theirs.message_types_by_name)
        compare_messages(theirs.message_types_by_name, ours.message_types_by_name)
        compare_enum(theirs.enum_types_by_name["DataType"], ours.enum_types_by_name["DataType"])


main()
