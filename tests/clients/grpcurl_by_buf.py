"""Runs a grpcurl command line by `buf curl`: the same arguments, the same output. For tests of docs/grpcurl.md; Debian has no grpcurl."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

BUF = Path(sys.executable).parent / "buf"


def buf(*arguments):
    command = [BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def grpcurl_error(said):
    """Return buf's error as grpcurl words it: {"code": "not_found", …} is Code: NotFound."""
    error = json.loads(said)
    code = "".join(word.capitalize() for word in error["code"].split("_"))
    return f"ERROR:\n  Code: {code}\n  Message: {error['message']}"


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
