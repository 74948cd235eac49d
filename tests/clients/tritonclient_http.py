"""tritonclient over HTTP, blocking and asyncio."""

import unittest

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from common import *
from model_control import ModelControl


def tensor_input(binary=True):
    tensor = triton.InferInput("input", TENSOR.shape, "FP32")
    tensor.set_data_from_numpy(TENSOR, binary_data=binary)
    return tensor


def picture_input():
    tensor = triton.InferInput("input", [len(PICTURES)], "BYTES")
    tensor.set_data_from_numpy(pictures(), binary_data=True)
    return tensor


class Blocking(ModelControl, unittest.TestCase):
    tensor_input = staticmethod(tensor_input)

    def setUp(self):
        self.client = triton.InferenceServerClient(HTTP, concurrency=4)

    def tearDown(self):
        self.client.close()

    def test_health_and_descriptions(self):
        client = self.client
        self.assertTrue(client.is_server_live())
        self.assertTrue(client.is_server_ready())
        self.assertTrue(client.is_model_ready("means"))
        self.assertTrue(client.is_model_ready("means", "1"))
        self.assertFalse(client.is_model_ready("nothing"))
        self.assertEqual(client.get_server_metadata()["name"], "convoy")
        metadata = client.get_model_metadata("means")
        self.assertEqual(metadata["inputs"], [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 8, 8]}])
        self.assertEqual(metadata["versions"], ["1"])
        config = client.get_model_config("means")
        self.assertEqual(config["max_batch_size"], 8)
        self.assertEqual(config["input"][0]["dims"], [3, 8, 8])
        index = {entry["name"]: entry for entry in client.get_model_repository_index()}
        self.assertEqual(index["means"]["state"], "READY")

    def test_every_encoding_of_tensors(self):
        for binary_input in [True, False]:
            for binary_output in [True, False]:
                outputs = [triton.InferRequestedOutput("logits", binary_data=binary_output)]
                inputs = [tensor_input(binary_input)]
                result = self.client.infer("means", inputs, outputs=outputs, request_id="7")
                assert_means(result.as_numpy("logits"))
                self.assertEqual(result.get_response()["id"], "7")
        assert_means(self.client.infer("means", [tensor_input()], model_version="1").as_numpy("logits"))

    def test_pictures(self):
        result = self.client.infer("means", [picture_input()])
        assert_means(result.as_numpy("logits"), PICTURE_MEANS)

    def test_classification(self):
        for binary in [True, False]:
            outputs = [triton.InferRequestedOutput("logits", binary_data=binary, class_count=2)]
            result = self.client.infer("means", [tensor_input()], outputs=outputs)
            elements = result.as_numpy("logits")
            if not binary:
                elements = np.vectorize(lambda text: text if isinstance(text, bytes) else text.encode())(elements)
            self.assertEqual(elements.shape, (2, 2))
            assert_classes(elements, 2)

    def test_compression(self):
        for algorithm in ["gzip", "deflate"]:
            result = self.client.infer(
                "means",
                [tensor_input()],
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            assert_means(result.as_numpy("logits"))

    def test_requests_in_parallel(self):
        requests = [self.client.async_infer("means", [tensor_input()]) for _ in range(16)]
        for request in requests:
            assert_means(request.get_result().as_numpy("logits"))

    def test_parameters(self):
        result = self.client.infer("means", [tensor_input()], priority=1, timeout=60_000_000)
        assert_means(result.as_numpy("logits"))
        with self.assertRaises(InferenceServerException) as raised:
            self.client.infer("held", [tensor_one()], timeout=20_000)
        self.assertEqual(raised.exception.status(), "504")

    def test_errors_are_sentences(self):
        for inputs, model, status in [([tensor_input()], "nothing", "404"), ([], "means", "400")]:
            with self.assertRaises(InferenceServerException) as raised:
                self.client.infer(model, inputs)
            self.assertEqual(raised.exception.status(), status)
            self.assertIn(" ", raised.exception.message())

    def index(self):
        return {row["name"]: (row["state"], row["reason"]) for row in self.client.get_model_repository_index()}

    def max_batch_size(self, name):
        return self.client.get_model_config(name)["max_batch_size"]

    def model_config(self, name):
        return self.client.get_model_config(name)

    def test_statistics(self):
        before = self.client.get_inference_statistics("means")["model_stats"][0]["inference_count"]
        self.client.infer("means", [tensor_input()])
        after = self.client.get_inference_statistics("means", "1")["model_stats"][0]
        self.assertEqual(after["inference_count"], before + 2)
        self.assertGreaterEqual(len(self.client.get_inference_statistics()["model_stats"]), 2)


def tensor_one():
    tensor = triton.InferInput("input", [1, 3, 8, 8], "FP32")
    tensor.set_data_from_numpy(TENSOR[:1])
    return tensor


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    async def test_everything_once(self):
        async with triton_aio.InferenceServerClient(HTTP) as client:
            self.assertTrue(await client.is_server_ready())
            self.assertTrue(await client.is_model_ready("means"))
            self.assertEqual((await client.get_model_metadata("means"))["name"], "means")
            self.assertEqual((await client.get_model_config("means"))["max_batch_size"], 8)
            result = await client.infer("means", [tensor_input()])
            assert_means(result.as_numpy("logits"))
            result = await client.infer("means", [picture_input()])
            assert_means(result.as_numpy("logits"), PICTURE_MEANS)
            with self.assertRaises(InferenceServerException):
                await client.infer("nothing", [tensor_input()])


main()
