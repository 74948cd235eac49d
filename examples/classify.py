"""Classifies picture files over gRPC, all of them on one stream.

    pip install grpcio grpcio-tools
    python examples/classify.py --address 127.0.0.1:8001 photo.jpg ...

grpcio-tools compiles the proto as the program starts; `python -m grpc_tools.protoc` does it once and for all.
"""

import argparse
import sys
from pathlib import Path

import grpc

ROOT = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description="Classify picture files over gRPC.")
    parser.add_argument("--address", default="127.0.0.1:8001")
    parser.add_argument("--model", default="", help="the server's default where empty")
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument("pictures", nargs="+", metavar="PICTURE")
    options = parser.parse_args()

    sys.path.insert(0, str(ROOT / "proto"))
    messages, services = grpc.protos_and_services("convoy/v1/image_classifier.proto")

    def requests():
        # The stream asks for the next request when the server has room for it.
        for path in options.pictures:
            request = messages.ClassifyRequest(
                model_name=options.model, images=[Path(path).read_bytes()], top_k=options.top_k
            )
            yield messages.ClassifyStreamRequest(id=path, request=request)

    failed = False
    with grpc.insecure_channel(options.address) as channel:
        for answer in services.ImageClassifierStub(channel).ClassifyStream(requests()):
            if answer.HasField("error"):
                failed = True
                print(f"{answer.id}: {answer.error.message}", file=sys.stderr)
                continue
            classes = answer.response.predictions[0].classes
            print(f"{answer.id}: " + ", ".join(f"{c.label or c.index} {c.score:.1%}" for c in classes))
    sys.exit(failed)


if __name__ == "__main__":
    main()
