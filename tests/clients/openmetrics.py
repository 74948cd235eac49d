"""prometheus_client's own parser on the metrics in OpenMetrics' format: `openmetrics.py HTTP_ADDRESS GRPC_ADDRESS MODEL_FILE`."""

import re
import struct
import sys
import urllib.request
import zlib

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as plain_families

ADDRESS = f"http://{sys.argv[1]}"
TRACE = "0af7651916cd43dd8448eb211c80319c"


def png(colour):
    """A PNG of 8 x 8 pixels of one colour."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(colour) * 8) * 8)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def ask(path, body=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(ADDRESS + path, body, headers)) as answer:
        return answer.headers, answer.read()


def samples(families):
    return {
        (sample.name, tuple(sorted((k, float(v) if k == "le" else v) for k, v in sample.labels.items()))): sample
        for family in families
        for sample in family.samples
    }


traceparent = f"00-{TRACE}-b7ad6b7169203331-01"
ask("/v1/models/means/classify", png([255, 0, 0]), content_type="image/png", traceparent=traceparent)

# Once before, so that this route has its series, too.
ask("/metrics")
headers, text = ask("/metrics", accept="application/openmetrics-text;version=1.0.0;q=0.6,text/plain;q=0.3")
assert headers["content-type"].startswith("application/openmetrics-text; version=1.0.0"), headers["content-type"]
open_samples = samples(text_string_to_metric_families(text.decode()))
headers, text = ask("/metrics")
assert headers["content-type"].startswith("text/plain"), headers["content-type"]
# The same series under the same names, whichever way they are read. The other parser appends `_total` to counters that have none.
plain_names = {re.split("[{ ]", line)[0] for line in text.decode().splitlines() if not line.startswith("#")}
assert {name for name, _ in open_samples} == plain_names, {name for name, _ in open_samples} ^ plain_names
plain_samples = samples(plain_families(text.decode()))
assert len(open_samples) == len(plain_samples), (len(open_samples), len(plain_samples))
steady = "convoy_requests_total", (("model", "means"), ("outcome", "success"), ("protocol", "http"), ("version", "1"))
assert open_samples[steady].value == plain_samples[steady].value == 1

exemplars = {key: sample.exemplar for key, sample in open_samples.items() if sample.exemplar}
traced = sys.argv[4:] == ["traced"]
assert bool(exemplars) == traced, exemplars
for (name, labels), exemplar in exemplars.items():
    assert name == "convoy_request_seconds_bucket", name
    assert exemplar.labels["trace_id"] == TRACE and len(exemplar.labels["span_id"]) == 16, exemplar
    assert exemplar.value <= dict(labels)["le"], exemplar
