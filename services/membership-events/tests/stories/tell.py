#!/usr/bin/env python3
"""Tells every story to a running membership-events, and says how each went.

    tell.py ADDRESS NATS_URL PROTO_FOLDER TOKENS_JSON [PART_OF_A_NAME]

The client is generated from the protos at every run, so that it is the contract that is tried and
nothing of ours. Each story has gyms of its own, so that all share one server and run side by side.
Prints a line of JSON for each: {"story", "told", "seconds", "words"}; exits 1 when one failed or
none was told.
"""
import importlib
import json
import pathlib
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor

import grpc_tools
from grpc_tools import protoc

CHAPTERS = [
    "calls", "fields", "pages", "deadlines", "memberships", "midnights", "pauses", "debts", "desk",
    "payers", "overrides", "unmatched", "reconcile", "resume_requests", "explain", "roster",
    "erasure",
]
AT_ONCE = 6


def generate(protos, folder):
    files = [str(file) for file in sorted(pathlib.Path(protos).rglob("*.proto"))]
    known = pathlib.Path(grpc_tools.__file__).with_name("_proto")
    arguments = [f"-I{protos}", f"-I{known}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    if protoc.main(["protoc", *arguments, *files]):
        sys.exit("the protos cannot be compiled")
    sys.path.insert(0, folder)


def tell(story, town):
    began, words = time.monotonic(), ""
    try:
        story(town)
    except Exception:
        words = traceback.format_exc()
    seconds = round(time.monotonic() - began, 2)
    line = {"story": story.__name__, "told": not words, "seconds": seconds, "words": words}
    # In one piece: others print as well.
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    return not words


def main(address, nats_url, protos, tokens, part=""):
    with tempfile.TemporaryDirectory(prefix="gymflow-stubs-") as folder:
        generate(protos, folder)
        world = importlib.import_module("world")
        for chapter in CHAPTERS:
            importlib.import_module(chapter)
        stories = [story for story in world.STORIES if part in story.__name__]
        town = world.Town(address, world.Bus(nats_url), json.loads(tokens))
        # What waits for time to pass goes first.
        stories.sort(key=lambda story: not getattr(story, "waits", False))
        with ThreadPoolExecutor(AT_ONCE) as pool:
            told = list(pool.map(lambda story: tell(story, town), stories))
    return 0 if told and all(told) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
