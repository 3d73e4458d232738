"""Files with one to three things wrong with them: as data, and as bytes."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

NASTY: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    10**40,
    0.5,
    -0.0,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "1",
    "nan",
    "\0",
    "a\0b",
    "\ud800",
    "\u2028",
    "../../etc/passwd",
    "/dev/zero",
    "torch.bfloat16",
    "save",
    "x" * 5000,
    [],
    [None],
    [[]],
    [1, "a", None],
    ["a"] * 70,
    {},
    {"": None},
    {"a": {"b": [1]}},
    {"k": "v"},
)


def mutated_text(content: Any, seed: int) -> str:
    """JSON that is `content` but for a few places, or but for a few characters."""
    rng = random.Random(seed)
    if rng.random() < 0.15:
        return _noise(json.dumps(content), rng)
    changed = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        changed = mutated(changed, rng)
    return json.dumps(changed, ensure_ascii=rng.random() < 0.5)


def mutated_bytes(data: bytes, seed: int) -> bytes:
    """Bytes of which a few were changed, cut out or repeated."""
    rng = random.Random(seed)
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        if not found:
            break
        at = rng.randrange(len(found))
        match rng.randrange(4):
            case 0:
                found[at] = rng.randrange(256)
            case 1:
                del found[at : at + rng.randrange(1, 64)]
            case 2:
                found[at:at] = found[at : at + rng.randrange(1, 64)]
            case _:
                found = found[:at]
    return bytes(found)


def mutated(content: Any, rng: random.Random) -> Any:
    """The content with one value replaced, removed, doubled or put elsewhere."""
    places = list(_places(content))
    if not places:
        return rng.choice(NASTY)
    holder, key = rng.choice(places)
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1:
            other, there = rng.choice(places)
            holder[key] = copy.deepcopy(other[there])
        case 2:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {"value": holder[key]}
        case 3 if isinstance(holder, dict):
            holder[str(rng.choice(NASTY))] = holder.pop(key)
        case _:
            holder[key] = copy.deepcopy(rng.choice(NASTY))
    return content


def _places(content: Any) -> Any:
    if isinstance(content, dict):
        for key, value in content.items():
            yield content, key
            yield from _places(value)
    elif isinstance(content, list):
        for index, value in enumerate(content):
            yield content, index
            yield from _places(value)


def _noise(text: str, rng: random.Random) -> str:
    at = rng.randrange(len(text))
    match rng.randrange(4):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + rng.choice('{}[]",:\\\0e-+.') + text[at:]
        case 2:
            return "[" * 2000 + text
        case _:
            return text[:at] + text[at + rng.randrange(1, 20) :]
