"""Loading and unloading, which tritonclient has alike over HTTP and gRPC."""

from tritonclient.utils import InferenceServerException

from common import MODEL_FILE, assert_means


class ModelControl:
    """For a test case that has a `client`, and `tensor_input`, `index` and `max_batch_size` in its client's own terms."""

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
