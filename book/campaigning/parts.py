"""Files in parts of a limited size: each part says what it belongs to, and proves that it is whole.

A part is a line with the SHA-256 of the rest, a line of JSON, and its share of one stream of bytes. The stream begins with
the list of files, {path: [bytes, SHA-256]}, and goes on with the files.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from campaigning.plan import PlanError

PATTERN = "part-*.framepred"
LINES = 512  # bytes, at most, of the two lines


def room(parts: int, part_bytes: int) -> int:
    """The bytes that fit into so many parts.

    Raises:
        PlanError: if parts are so small that nothing does.
    """
    if parts < 1 or part_bytes < 16 * LINES:
        raise PlanError(f"{parts} parts of {part_bytes:,} bytes hold nothing; give larger --part-mib and --parts")
    return parts * (part_bytes - LINES)


def listing(files: Mapping[str, bytes], about: Any) -> bytes:
    """What the stream begins with."""
    entries = {path: [len(content), hashlib.sha256(content).hexdigest()] for path, content in files.items()}
    return json.dumps({"about": about, "files": entries}).encode() + b"\n"


def write_parts(folder: Path, campaign: str, files: Mapping[str, bytes], about: Any, part_bytes: int) -> list[Path]:
    """Write files, and something about them that JSON can hold, in as many parts as it takes. Older parts go."""
    from framepred.files import write_whole

    folder.mkdir(parents=True, exist_ok=True)
    stream = b"".join([listing(files, about), *files.values()])
    size = part_bytes - LINES
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    pack, paths = uuid.uuid4().hex, []
    for k, piece in enumerate(pieces, 1):
        head = json.dumps({"campaign": campaign, "pack": pack, "part": k, "of": len(pieces)}).encode()
        body = head + b"\n" + piece
        content = hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        paths.append(folder / PATTERN.replace("*", f"{k:02d}"))
        write_whole(paths[-1], lambda path, content=content: Path(path).write_bytes(content))
    for old in set(folder.glob(PATTERN)) - set(paths):
        old.unlink()
    return paths


def read_parts(folder: Path) -> tuple[str, Any, dict[str, bytes]]:
    """What was written: the campaign, what is said about the files, the files. All parts are verified before.

    Raises:
        PlanError: naming the part that is missing, damaged or of something else.
    """
    paths = sorted(folder.glob(PATTERN))
    if not paths:
        raise PlanError(f"{folder} holds no parts ({PATTERN}); give the folder that --pack wrote")
    heads, pieces = {}, {}
    for path in paths:
        digest, _, body = path.read_bytes().partition(b"\n")
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise PlanError(f"{path} is damaged; bring it again. Nothing was changed")
        head, _, piece = body.partition(b"\n")
        heads[path] = json.loads(head)
        pieces[heads[path]["part"]] = piece
    first = heads[paths[0]]
    for path, head in heads.items():
        if head["campaign"] != first["campaign"]:
            raise PlanError(f"{path} is a part of another campaign than {paths[0]}; adopt each in a folder of its own")
        if head["pack"] != first["pack"]:
            raise PlanError(f"{path} was packed at another time than {paths[0]}; bring all parts of one time")
    if missing := [k for k in range(1, first["of"] + 1) if k not in pieces]:
        raise PlanError(f"part {missing[0]} of {first['of']} is not in {folder}; bring it, too")
    stream = memoryview(b"".join(pieces[k] for k in sorted(pieces)))
    end = bytes(stream).index(b"\n")
    content, start, files = json.loads(bytes(stream[:end])), end + 1, {}
    for name, (size, digest) in content["files"].items():
        files[name] = bytes(stream[start : start + size])
        if hashlib.sha256(files[name]).hexdigest() != digest:
            raise PlanError(f"{name} in {folder} is damaged; pack again. Nothing was changed")
        start += size
    return first["campaign"], content["about"], files
