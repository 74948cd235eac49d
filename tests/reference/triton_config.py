"""What protobuf's own parser makes of configurations in Triton's text form, by the schema that tritonclient brings.

`python triton_config.py FOLDER JSON_FOLDER`: for each FOLDER/NAME.pbtxt a line `NAME` and the message's bytes in hexadecimal, or
`error` and the line at fault. JSON_FOLDER/NAME.json, where there is one, must be the same message in JSON.
"""

import pathlib
import sys

from google.protobuf import json_format, text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

folder, json_folder = map(pathlib.Path, sys.argv[1:3])
for path in sorted(folder.glob("*.pbtxt")):
    try:
        message = text_format.Parse(path.read_text(), ModelConfig())
    except text_format.ParseError as error:
        print(path.stem, "error", error.GetLine())
        continue
    written = json_folder / f"{path.stem}.json"
    if written.exists():
        again = json_format.Parse(written.read_text(), ModelConfig())
        assert again == message, f"{path.stem}: {again} is not {message}"
    print(path.stem, message.SerializeToString(deterministic=True).hex() or "-")
