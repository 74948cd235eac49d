"""The OpenAPI document: that it is one, by OpenAPI's own schema, and that what the server answers is what it says."""

import base64
import json
import unittest
import urllib.error
import urllib.request

from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from common import HTTP, PICTURES, TENSOR, main, png

DOCUMENT = json.load(urllib.request.urlopen(f"http://{HTTP}/openapi.json"))

PICTURE = png(PICTURES[0])
INSTANCES = {"instances": TENSOR.tolist()}
PICTURE_INSTANCES = {"instances": [{"b64": base64.b64encode(PICTURE).decode()}]}
INFER = {
    "inputs": [{"name": "input", "shape": [2, 3, 8, 8], "datatype": "FP32", "data": TENSOR.flatten().tolist()}],
    "parameters": {"top_k": 2},
}

# One request to each operation: its id, the path with its query, and the body, bytes or JSON.
REQUESTS = [
    ("classify", "/v1/models/means/classify?top_k=2", PICTURE),
    ("classify_default", "/v1/classify", PICTURE),
    ("classify_version", "/v1/models/means/versions/1/classify", PICTURE),
    ("invoke", "/invocations", INSTANCES),
    ("predict", "/v1/models/means:predict", INSTANCES),
    ("predict_version", "/v1/models/means/versions/1:predict", INSTANCES),
    ("models", "/v1/models", None),
    ("model", "/v1/models/means", None),
    ("architecture", "/v1/models/means/architecture", None),
    ("architecture_version", "/v1/models/means/versions/1/architecture", None),
    ("explain", "/v1/models/means/explain?method=occlusion", PICTURE),
    ("explain_version", "/v1/models/filters/versions/1/explain?method=deconvnet&layer=rectified", PICTURE),
    ("explain_instances", "/v1/models/filters:explain", PICTURE_INSTANCES),
    ("explain_instances_version", "/v1/models/filters/versions/1:explain", PICTURE_INSTANCES),
    ("filters", "/v1/models/filters/filters", None),
    ("filters_version", "/v1/models/filters/versions/1/filters", None),
    ("features", "/v1/models/filters/features?layer=rectified", PICTURE),
    ("features_version", "/v1/models/filters/versions/1/features?layer=rectified", PICTURE),
    ("exciting", "/v1/models/filters/exciting?layer=rectified&unit=1", PICTURE),
    ("exciting_version", "/v1/models/filters/versions/1/exciting?layer=rectified&unit=1", PICTURE),
    ("server_metadata", "/v2", None),
    ("model_metadata", "/v2/models/means", None),
    ("model_metadata_version", "/v2/models/means/versions/1", None),
    ("model_ready", "/v2/models/means/ready", None),
    ("model_ready_version", "/v2/models/means/versions/1/ready", None),
    ("model_config", "/v2/models/means/config", None),
    ("model_config_version", "/v2/models/means/versions/1/config", None),
    ("statistics", "/v2/models/stats", None),
    ("model_statistics", "/v2/models/means/stats", None),
    ("model_statistics_version", "/v2/models/means/versions/1/stats", None),
    ("infer", "/v2/models/means/infer", INFER),
    ("infer_version", "/v2/models/means/versions/1/infer", INFER),
    ("repository_index", "/v2/repository/index", {"ready": False}),
    ("load_model", "/v2/repository/models/spare/load", {}),
    ("unload_model", "/v2/repository/models/spare/unload", {}),
    ("live", "/v2/health/live", None),
    ("ready", "/v2/health/ready", None),
    ("ping", "/ping", None),
    ("metrics", "/metrics", None),
    ("openapi", "/openapi.json", None),
    ("docs", "/docs", None),
    ("page", "/", None),
    ("page_file", "/page/app.js", None),
    ("debug", "/debug", None),
]

# What may be sent wrong, and the status of the answer.
REFUSED = [
    ("model", "/v1/models/none", None, 404),
    ("classify", "/v1/models/means/classify?top_k=0", PICTURE, 400),
    ("classify", "/v1/models/means/classify", b"text", 415),
    ("explain", "/v1/models/means/explain?method=magic", PICTURE, 400),
]


def operations():
    return {it["operationId"]: (path, method, it) for path, item in DOCUMENT["paths"].items() for method, it in item.items()}


def send(method, path, body):
    headers = {}
    if isinstance(body, bytes):
        headers["content-type"] = "application/octet-stream"
    elif body is not None:
        body = json.dumps(body).encode()
        headers["content-type"] = "application/json"
    request = urllib.request.Request(f"http://{HTTP}{path}", data=body, headers=headers, method=method.upper())
    try:
        answer = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        answer = error
    return answer.status, answer.headers.get("content-type", "").split(";")[0], answer.read()


def resolved(node):
    while "$ref" in node:
        at = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            at = at[name]
        node = at
    return node


class Document(unittest.TestCase):
    def check(self, operation_id, path, body):
        """Sends a request and holds the answer against the document. Returns its status."""
        _, method, operation = operations()[operation_id]
        status, media_type, content = send(method, path, body)
        self.assertIn(str(status), operation["responses"], (path, status, content))
        response = resolved(operation["responses"][str(status)])
        if "content" not in response:
            self.assertEqual(content, b"", path)
            return status
        self.assertTrue({media_type, "*/*"} & set(response["content"]), (path, media_type))
        schema = response["content"].get(media_type, {}).get("schema")
        if schema is not None:
            # The document's own schemas are where its references point.
            schema = {**schema, "components": DOCUMENT["components"]}
            Draft202012Validator.check_schema(schema)
            errors = list(Draft202012Validator(schema).iter_errors(json.loads(content)))
            self.assertEqual(errors, [], path)
        return status

    def test_it_is_one(self):
        self.assertEqual(DOCUMENT["openapi"], "3.1.0")
        validate(DOCUMENT)

    def test_answers_are_what_it_says(self):
        for operation_id, path, body in REQUESTS:
            with self.subTest(operation_id):
                self.assertEqual(self.check(operation_id, path, body), 200)

    def test_refusals_are_what_it_says(self):
        for operation_id, path, body, expected in REFUSED:
            with self.subTest(path):
                self.assertEqual(self.check(operation_id, path, body), expected)

    def test_every_operation_is_asked_here(self):
        self.assertEqual({operation_id for operation_id, _, _ in REQUESTS}, set(operations()))

    def test_what_is_no_answer_is_found(self):
        """The schemas are strict enough to fail."""
        _, _, operation = operations()["classify"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        validator = Draft202012Validator({**schema, "components": DOCUMENT["components"]})
        self.assertFalse(validator.is_valid({"model_name": "means"}))
        self.assertFalse(validator.is_valid([]))


if __name__ == "__main__":
    main()
