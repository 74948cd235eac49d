"""Loading and unloading, which tritonclient has alike over HTTP and gRPC."""

import json

from tritonclient.utils import InferenceServerException

from common import MODEL_FILE, assert_means


class ModelControl:
    """For a test case that has a `client`, and `tensor_input`, `index`, `max_batch_size` and `model_config` in its client's own
    terms."""

    def test_loading_and_unloading(self):
        client = self.client
        client.unload_model("spare")
        self.assertFalse(client.is_model_ready("spare"))
        self.assertEqual(self.index()["spare"], ("UNAVAILABLE", "unloaded"))
        client.load_model("spare")
        assert_means(client.infer("spare", [self.tensor_input()]).as_numpy("logits"))
        with self.assertRaisesRegex(InferenceServerException, "there is no model nothing"):
            client.load_model("nothing")

    def test_overrides(self):
        client = self.client
        client.load_model("spare", config='{"max_batch_size": 3}')
        self.assertEqual(self.max_batch_size("spare"), 3)
        client.load_model("spare")
        self.assertEqual(self.max_batch_size("spare"), 2)
        with open(MODEL_FILE, "rb") as file:
            model = file.read()
        client.load_model("brought", config='{"max_batch_size": 5}', files={"file:7/model.onnx": model})
        self.assertEqual(self.max_batch_size("brought"), 5)
        assert_means(client.infer("brought", [self.tensor_input()], model_version="7").as_numpy("logits"))
        with self.assertRaisesRegex(InferenceServerException, "together with"):
            client.load_model("brought", files={"file:7/model.onnx": model})
        with self.assertRaisesRegex(InferenceServerException, "<version>/<name>"):
            client.load_model("brought", config="{}", files={"file:../7/model.onnx": model})
        assert_means(client.infer("brought", [self.tensor_input()]).as_numpy("logits"))
        client.unload_model("brought", unload_dependents=True)
        self.assertFalse(client.is_model_ready("brought"))

    def test_tritons_configuration(self):
        client = self.client
        # What the model's config.pbtxt says, and over it what is served.
        config = self.model_config("pbtxt")
        self.assertEqual(config["name"], "pbtxt")
        self.assertEqual((config["platform"], config["backend"]), ("onnxruntime_onnx", "onnxruntime"))
        self.assertEqual(config["max_batch_size"], 8)
        self.assertEqual(config["input"][0]["format"], "FORMAT_NCHW")
        self.assertEqual([int(size) for size in config["input"][0]["dims"]], [3, 8, 8])
        self.assertEqual(config["output"][0]["label_filename"], "colours.txt")
        self.assertEqual(config["default_model_filename"], "model.onnx")
        self.assertEqual((config["instance_group"][0]["count"], config["instance_group"][0]["kind"]), (1, "KIND_CPU"))
        self.assertEqual(int(config["dynamic_batching"]["max_queue_delay_microseconds"]), 100)
        self.assertEqual(config["dynamic_batching"]["default_queue_policy"]["max_queue_size"], 64)
        self.assertEqual(config["metric_tags"], {"tier": "test"})
        self.assertEqual(config["parameters"]["convoy.preprocess.scale"], {"string_value": "0.00392156862745098"})
        assert_means(client.infer("pbtxt", [self.tensor_input()]).as_numpy("logits"))

        # Read, changed and brought back, it stands in for the file.
        config["max_batch_size"] = 4
        client.load_model("pbtxt", config=json.dumps(config))
        self.assertEqual(self.model_config("pbtxt"), config)
        client.load_model("pbtxt", config='{"maxBatchSize": 2, "dynamicBatching": {"maxQueueDelayMicroseconds": "7"}}')
        config = self.model_config("pbtxt")
        self.assertEqual(config["max_batch_size"], 2)
        self.assertEqual(int(config["dynamic_batching"]["max_queue_delay_microseconds"]), 7)
        self.assertEqual(config["output"][0].get("label_filename", ""), "")
        for wrong, said in [
            ('{"backend": "python"}', "backend: python"),
            ('{"name": "other"}', "name: is other"),
            ('{"backend": "onnxruntime", "batching": {}}', "batching"),
            ('{"input": [{"name": "input", "dims": [-1, 3, 9, 8]}]}', "input.dims"),
        ]:
            with self.assertRaisesRegex(InferenceServerException, said):
                client.load_model("pbtxt", config=wrong)
        self.assertEqual(self.model_config("pbtxt"), config)
        client.load_model("pbtxt")
        self.assertEqual(self.max_batch_size("pbtxt"), 8)
