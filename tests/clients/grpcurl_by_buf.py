"""Runs a grpcurl command line by `buf curl`: the same arguments, the same output. For tests of docs/grpcurl.md; Debian has no grpcurl."""

import argparse
import base64
import json
import subprocess
import sys
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2  # noqa: F401  # makes the types known

BUF = Path(sys.executable).parent / "buf"


def buf(*arguments):
    command = [BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def grpcurl_error(said):
    """Return buf's error as grpcurl words it: {"code": "not_found", …} is Code: NotFound, and details are numbered JSON, sorted."""
    error = json.loads(said)
    code = "".join(word.capitalize() for word in error["code"].split("_"))
    lines = ["ERROR:", f"  Code: {code}", f"  Message: {error['message']}"]
    details = [json.dumps(detail(**given), indent=2, sort_keys=True) for given in error.get("details", ())]
    lines += ["  Details:"] if details else []
    lines += [f"  {number})\t" + text.replace("\n", "\n    \t") for number, text in enumerate(details, 1)]
    return "\n".join(lines)


def detail(type, value):  # noqa: A002  # buf's name for it
    """Return an error's detail as JSON has it, with its type."""
    raw = base64.b64decode(value + "=" * (-len(value) % 4))
    return json_format.MessageToDict(Any(type_url=f"type.googleapis.com/{type}", value=raw))


def main():
    parser = argparse.ArgumentParser(prefix_chars="-")
    parser.add_argument("-plaintext", action="store_true", required=True)
    parser.add_argument("-d", default="{}")
    parser.add_argument("-max-time")
    parser.add_argument("address")
    parser.add_argument("verb_or_method")
    given = parser.parse_args()
    if given.verb_or_method == "list":
        result = buf("--list-services", f"http://{given.address}")
    else:
        limit = ["--timeout", f"{given.max_time}s"] if given.max_time else []
        result = buf(*limit, "-d", given.d, f"http://{given.address}/{given.verb_or_method}")
    print(result.stdout)
    if result.returncode:
        print(grpcurl_error(result.stderr))


if __name__ == "__main__":
    main()
