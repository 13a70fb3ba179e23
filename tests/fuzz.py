"""Bad vector files by the hundred thousand. Of each, `load` has to make vectors or one sentence, in little time and
memory, and to touch nothing else.

    python -m tests.fuzz --count 200000             faults that are drawn from a seed: the same files each time
    python -m tests.fuzz --seconds 1800 --out DIR   faults that atheris finds, led by what they make the loader do

The second needs the extra `fuzz`; it keeps its corpus in DIR/corpus, and a file that broke a rule in DIR. Both want a
process of their own, because memory is measured by the operating system: only that sees numpy's, torch's and Rust's.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import dataclasses
import gc
import inspect
import io
import json
import os
import pickle
import platform
import re
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch

from cramdemo import vectors as loader
from cramdemo.config import MAX_NUM_MEM
from cramdemo.metadata import MAX_HEADER_BYTES
from cramdemo.vectors import (
    DTYPES,
    MAX_FILE_BYTES,
    MAX_HIDDEN_SIZE,
    MemVectors,
    VectorFileError,
    from_bytes,
    load,
    to_bytes,
)

DATA = Path(__file__).parent / "data"
GOLDEN = [path.read_bytes() for path in sorted(DATA.glob("golden_v1*.safetensors"))]
FOUND = [path.read_bytes() for path in sorted((DATA / "fuzz").glob("*"))]  # by atheris, each a way of its own
MAX_SECONDS, MAX_BYTES, MAX_LETTERS = 0.1, 50_000_000, 300  # for one file; seconds of CPU
JSON_FIELDS = ("verified", "metrics", "config")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt

# ---- values that stand where another should

NEARLY_JSON = [
    *("NaN", "-Infinity", "1e999", "-0", "01", "0x1", "1.", "", "[1,]", "9" * 4000, "9" * 5000, "'a'", "/**/1"),
    *('"\\ud800"', '"\\u0000"', '"\\x"', '"\n"', '"\x7f\x1b[2J"', '{"a":1,"a":2}', '{"\\ud800":1}'),
    *("[" * depth + "]" * depth for depth in (15, 17, 100, 480, 900, 990, 20_000)),
    *('{"a":' * depth + "1" + "}" * depth for depth in (15, 17, 900)),
]
RAW = {f"\0{number}": text for number, text in enumerate(NEARLY_JSON)}  # json.dumps writes none; each stands for one
TWICE = "\0twice:"  # before a name: it is written without, and so for the second time
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 3, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64, -(2**63), 10**18),
    *(0.5, 2.0, -0.0, 1e308, 5e-324),
    *("", "0", "1", "2", "-1", "4", "17", "999999999", "1000000", "1000001", "1e3", "1.0", " 1", "\u0663", "1\n"),
    *("9" * 10, "9" * 5000, "x" * 3000, "0" * 64, "A" * 64, "0" * 63, "\u00e9\U0001f409", "cramdemo 99.1"),
    *("F16", "BF16", "F64", "I64", "U8", "BOOL", "F8_E4M3", "C64", "f32", "cramdemo.mem"),
    *("../../etc/passwd", "[]", "{}", "[{}]", "null", "[1]", "mem", "mem.scale", "__metadata__", "__reduce__"),
    *([], {}, [0], [0, 0], [2, 4], [4, 2], [1, 8], [8, 1], [2, 4, 1], [8], [-2, -4], [2.0, 4.0], [True, 8], ["2", "4"]),
    *([10**6, 4], [2**32, 2**32], [2**62, 4], [128, 24_577], [129, 1], [2**63, 2**63], [0, 8], [0, 16], [0, 33]),
    *([8, 16], [16, 32], [32, 0], [32, 64], [1, 33], [-32, 0], [0, 2**63], [2**40, 2**40 + 32], [2**64 - 32, 2**64]),
    *({"a": [1, "b", None]}, {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}, [[]] * 1000, [{}] * 1000),
    *RAW,
]
LENGTHS = [*(0, 1, 2, 7, 8, 100, 2**15, 2**16, 2**16 + 1, 2**20, 2**24, 2**24 + 1, 2**31, 2**32, 2**53)]
LENGTHS += [2**63 - 1, 2**63, 2**63 + 8, 2**64 - 8, 2**64 - 1]
NUMBERS = [  # bytes of numbers, float32 and 16 bits
    *(struct.pack("<f", value) for value in (float("nan"), float("inf"), float("-inf"), 3.4e38, 1e-45, -0.0, -1.0)),
    *map(bytes.fromhex, ("0100807f", "ffffffff", "007c", "00fc", "017e", "807f", "80ff", "c17f", "ffff")),
]


def split(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header, with the JSON in its metadata read too, and the bytes behind it.

    Raises:
        ValueError, RecursionError, struct.error: it is not that whole.
    """
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise ValueError("no metadata")
    for name in JSON_FIELDS:
        header["__metadata__"][name] = json.loads(header["__metadata__"].get(name, "null"))
    return header, data[8 + size :]


def join(header: dict[str, Any], body: bytes) -> bytes:
    """The inverse of `split`; JSON that is a string by now is written as it is."""
    header = copy.copy(header)
    if isinstance(header.get("__metadata__"), dict):
        metadata = header["__metadata__"] = dict(header["__metadata__"])
        for name in JSON_FIELDS:
            if name in metadata and (not isinstance(metadata[name], str) or metadata[name] in RAW):
                metadata[name] = _text(metadata[name])
    return framed(_text(header).encode("utf-8", "surrogatepass"), body)


def framed(header: bytes, body: bytes = b"") -> bytes:
    """A safetensors file of these parts."""
    return struct.pack("<Q", len(header)) + header + body


def _text(value: Any) -> str:
    text = json.dumps(value, separators=(",", ":")).replace(json.dumps(TWICE)[1:-1], "")
    return re.sub(r'"\\u0000\d+"', lambda found: RAW[json.loads(found[0])], text)


def places(header: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree of JSON."""
    keys = list(header) if isinstance(header, dict) else range(len(header)) if isinstance(header, list) else ()
    return [place for key in keys for place in [(header, key), *places(header[key])]]


# ---- faults, each from a source of chance and a file

Fault = Callable[[Random, bytes], bytes]


def bits_flipped(random: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 8) if data else 0):
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def bytes_changed(random: Random, data: bytes) -> bytes:
    """Cut out, put in, said twice, overwritten, or from another file."""
    start, length = random.randint(0, len(data)), random.choice((1, 2, 4, 8, 30, 300))
    other = random.choice(GOLDEN)
    there = random.randrange(len(other))
    piece = random.choice((b"", random.randbytes(length), data[start : start + length], other[there : there + length]))
    return data[:start] + piece + data[start + random.choice((0, length)) :]


def truncated(random: Random, data: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def length_changed(random: Random, data: bytes) -> bytes:
    near = [max(0, int.from_bytes(data[:8], "little") + step) for step in (-8, -1, 1, 8)]
    return struct.pack("<Q", random.choice([*LENGTHS, *near, len(data), len(data) - 8]) % 2**64) + data[8:]


def value_changed(random: Random, data: bytes) -> bytes:
    """Another value in one place of the header, or of the JSON in its metadata."""
    header, body = split(data)
    container, key = random.choice(places(header))
    old = container[key]
    values = [*VALUES] * 2
    if isinstance(old, int | float):
        values += [old + 1, old - 1, -old, old * 2, str(old)] * 10
    if isinstance(old, str):
        number = int(old) if old.isascii() and old.isdigit() else 0
        values += [str(number + 1), str(number * 2), number, old + "x", old[:-1], old.upper(), [old]] * 10
    container[key] = random.choice(values)
    return join(header, body)


def names_changed(random: Random, data: bytes) -> bytes:
    """A name left out, twice, renamed, in another place, or more."""
    header, body = split(data)
    container, key = random.choice([place for place in places(header) if isinstance(place[0], dict)])
    what = random.choice(("out", "twice", "renamed", "moved", "more"))
    value = container[key] if what in ("twice", "more") else container.pop(key)
    if what == "twice":
        container[TWICE + key] = random.choice((value, random.choice(VALUES)))
    elif what == "renamed":
        container[random.choice((key.upper(), key + ".0", "mem", "mem.scale", "", "\0"))] = value
    elif what == "moved":
        header[key] = value
    elif what == "more":
        container[random.choice(("x", "bits", "mem.scale", "mem.0", "segments"))] = random.choice((value, *VALUES))
    return join(header, body)


def tensors_changed(random: Random, data: bytes) -> bytes:
    """Shapes, dtypes and offsets that may fit together: overlapping, with gaps, turned round, larger, of other K."""
    header, body = split(data)
    metadata = header["__metadata__"]
    for name in [name for name in header if name != "__metadata__"]:
        width = random.choice((1, 2, 4, 8, len(body) or 1))
        shape = random.choice(([len(body) // width, width], [width, len(body) // width], [1, width], [10**6, 1]))
        start, end = (random.choice((0, 1, 8, 16, len(body), len(body) + 1, 2**40)) for _ in range(2))
        dtype = random.choice((*DTYPES, "U8", "I32", "F64"))
        new = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        header[name] |= {key: new[key] for key in random.sample(sorted(new), random.randint(1, 3))}
        if random.random() < 0.5:
            metadata |= {"num_mem": str(shape[0]), "hidden_size": str(shape[1])}
        if random.random() < 0.3:
            metadata["bits"] = str(random.randint(0, 18))
    return join(header, body * random.choice((1, 1, 2)))


def numbers_changed(random: Random, data: bytes) -> bytes:
    """NaN, infinities, the largest and the smallest among the numbers; or all of them anew."""
    header, body = split(data)
    if random.random() < 0.2:
        return join(header, random.randbytes(len(body)))
    for _ in range(random.randint(1, 3)):
        number = random.choice(NUMBERS)
        start = random.randrange(0, len(body) + 1, 2)
        body = body[:start] + number + body[start + len(number) :]
    return join(header, body)


def spelling_changed(random: Random, data: bytes) -> bytes:
    """The same header in other bytes."""
    (size,) = struct.unpack("<Q", data[:8])
    text, body = data[8 : 8 + size], data[8 + size :]
    space = random.choice((b" ", b"\n", b"\r\n", b"\t", b"\0", b"\x0b", b"\xc2\xa0")) * random.choice((1, 8, 1000))
    ways = [space + text, text + space, text.replace(b",", b"," + space, 3), b"\xef\xbb\xbf" + text, text + b"}{"]
    ways += [text.decode("utf-8", "replace").encode(code) for code in ("utf-16", "utf-32-le", "latin-1", "utf-7")
             if code != "latin-1" or text.isascii()]  # fmt: skip
    ways += [text.replace(b"mem", b"\\u006dem"), text.replace(b"a", b"\xff", 1), text.replace(b'"', b"'")]
    return framed(random.choice(ways), body)


FAULTS: list[Fault] = [
    *(bits_flipped, bytes_changed, truncated, length_changed, value_changed, names_changed, tensors_changed),
    *(numbers_changed, spelling_changed),
]


def damage(random: Random, data: bytes) -> tuple[str, bytes]:
    """One to three faults in a file, and their names; bytes are changed where a fault wants a whole header."""
    names = []
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        fault = random.choice(FAULTS)
        try:
            data = fault(random, data)
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError, struct.error):
            fault = bytes_changed
            data = fault(random, data)
        names.append(fault.__name__.replace("_", " "))
    return names[0] if len(names) == 1 else "several of these", data


# ---- files that are bad, or large, in a way that is no accident


def strangers() -> Iterator[bytes]:
    """Files of other kinds under our name, and files whose size alone is the fault."""
    code = pickle.dumps(_Bomb())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("archive/data.pkl"), code)  # which has no clock in it
    yield from (b"", b"{}", archive.getvalue(), *(pickle.dumps(_Bomb(), protocol) for protocol in range(6)))
    yield from (magic + bytes(100) for magic in (b"\x1f\x8b", b"\x93NUMPY", b"\x7fELF", b"PK\x03\x04", b"<html>"))
    yield from (GOLDEN[0] + archive.getvalue(), framed(code), framed(b"{" + code), GOLDEN[0] * 2)
    yield from (fill * size for fill in (b"\0", b"{", b"\xff", b"[") for size in (MAX_FILE_BYTES, MAX_FILE_BYTES + 1))
    yield from (framed(b"{" * size) for size in (MAX_HEADER_BYTES, MAX_HEADER_BYTES + 1, MAX_FILE_BYTES - 8))
    for length in LENGTHS:
        yield from (struct.pack("<Q", length) + rest for rest in (b"", b"{}", GOLDEN[0][8:], bytes(1000)))


class _Bomb:
    """Unpickling it would leave a trace."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("This must not be seen.",)


def crowded() -> Iterator[bytes]:
    """Headers as full as can be of what takes longest to read or most memory, in the header and in its metadata."""
    for room in (MAX_HEADER_BYTES, 2**20):
        for unit in ("[]", "{}", '{"":0}', "0", "0.1", '""', "9" * 4300, '"\\ud83d\\udc09"', "[[[[[[]]]]]]"):
            text = "[" + ",".join([unit] * ((room - 3000) // (len(unit) + 1))) + "]"
            yield framed(f'{{"a":{text}}}'.encode())
            for name in JSON_FIELDS:
                header, body = split(GOLDEN[0])
                header["__metadata__"][name] = text if name == "verified" else f'{{"a":{text}}}'
                yield join(header, body)
        yield framed(("{" + ",".join(f'"{n:x}":0' for n in range(room // 10)) + "}").encode())
        for name in ("model_id", "format_version", "created_with", "num_mem", "token_sha256", "x", "format"):
            for letter in ("1", "\u00e9", "\U0001f409"):
                header, body = split(GOLDEN[0])
                header["__metadata__"][name] = letter * ((room - 3000) // len(json.dumps(letter)))
                yield join(header, body)


def large() -> Iterator[bytes]:
    """The largest files that can be read, some with a bad number at the end, and some one vector or column larger."""
    for num_mem, width in ((MAX_NUM_MEM, MAX_HIDDEN_SIZE), (MAX_NUM_MEM + 1, 2), (1, MAX_HIDDEN_SIZE + 1), (10**6, 1)):
        for bits in (2, 3, 7, 8, 15, 16):
            header, _ = split(next(data for data in GOLDEN if b'"bits"' in data))
            packed = -(-width * bits // 8)
            end = 4 * num_mem
            header["__metadata__"] |= {"num_mem": str(num_mem), "hidden_size": str(width), "bits": str(bits)}
            header["mem.scale"] |= {"shape": [num_mem], "data_offsets": [0, end]}
            header["mem"] |= {"shape": [num_mem, packed], "data_offsets": [end, end + num_mem * packed]}
            for scale in (1.0, float("nan")):
                yield join(header, struct.pack("<f", scale) * num_mem + b"\xa5" * (num_mem * packed))
        for name, dtype in DTYPES.items():
            header, _ = split(GOLDEN[0])
            size = num_mem * width * dtype.itemsize
            header["__metadata__"] |= {"num_mem": str(num_mem), "hidden_size": str(width)}
            header["mem"] |= {"dtype": name, "shape": [num_mem, width], "data_offsets": [0, size]}
            yield from (join(header, bytes(size - 4) + last) for last in (bytes(4), b"\xff" * 4))


def swept() -> list[Callable[[], bytes]]:
    """Every value of `VALUES` in every place of every golden file's header; every name left out, and twice."""
    changes = [*(partial(_put, value=value) for value in VALUES), _leave_out, _say_twice]
    return [
        partial(_changed, data, number, change)
        for data in GOLDEN
        for number, (container, _) in enumerate(places(split(data)[0]))
        for change in (changes if isinstance(container, dict) else changes[:-2])
    ]


def _changed(data: bytes, number: int, change: Callable[[Any, Any], object]) -> bytes:
    header, body = split(data)
    change(*places(header)[number])
    return join(header, body)


def _put(container: Any, key: Any, value: Any) -> None:
    container[key] = value


def _leave_out(container: Any, key: Any) -> None:
    del container[key]


def _say_twice(container: Any, key: Any) -> None:
    container[TWICE + key] = container[key]


def cut() -> list[Callable[[], bytes]]:
    """Every beginning of every golden file, and each with more behind it."""
    beginnings = [data[:size] for data in GOLDEN for size in range(len(data))]
    return [partial(bytes, each) for each in beginnings + [data + bytes(8) for data in GOLDEN]]


LISTED: dict[str, Callable[[], Iterator[bytes]]] = {
    "golden, and found before": lambda: iter([*GOLDEN, *FOUND]),
    "other kinds and sizes": strangers,
    "headers as full as can be": crowded,
    "as many numbers as can be": large,
}
LONG_LISTED = {"every value in every place": swept, "every truncation": cut}


def inputs(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many files with the kind of each: what is listed, of the long lists at most a fifth each, then by chance."""
    number = 0
    for kind, files in LISTED.items():
        for data in files():
            number += 1
            yield kind, data
    for kind, makers in LONG_LISTED.items():
        each = makers()
        for make in each[:: -(-5 * len(each) // count)]:
            number += 1
            yield kind, make()
    for drawn in range(count - number):
        random = Random(f"{seed} {drawn}")
        yield damage(random, random.choice(GOLDEN))


# ---- the rules


class BrokenRuleError(AssertionError):
    """What a file made the loader do that it must not."""


@dataclasses.dataclass
class Reading:
    """What came of a file.

    Attributes:
        said: the sentence without its numbers and quotes; "" where vectors came of it.
        seconds: of CPU.
        size: bytes of memory at the peak, the file's own included, beyond what there was before.
    """

    said: str
    seconds: float
    size: int


class Judge:
    """Has files read and holds the reader to the rules; one for a process, whose audit hook it cannot take back."""

    def __init__(self, read: Callable[[Path], MemVectors], folder: Path) -> None:
        self.read, self.path = read, folder / "case.safetensors"
        self.events: list[str] | None = None
        c = ctypes.CDLL(None)  # a block of a megabyte is given back once it is free, so that no later one hides in it
        assert c.mallopt(M_MMAP_THRESHOLD, 2**20) and c.mallopt(M_TRIM_THRESHOLD, 2**22)
        sys.addaudithook(self._note)
        for data in GOLDEN:  # whatever is imported or made once
            self.path.write_bytes(data)
            self.read(self.path)
        gc.collect()
        gc.freeze()  # going through everything that torch has made is not the reader's time

    def __call__(self, data: bytes) -> Reading:
        """Raises `BrokenRuleError`."""
        self.path.write_bytes(data)
        reading = self._once()
        for _ in range(3):  # a machine with other work to do makes its caches cold: the least is the reader's own
            if reading.seconds > MAX_SECONDS / 5:
                reading.seconds = min(reading.seconds, self._once().seconds)
        if reading.seconds > MAX_SECONDS:
            raise BrokenRuleError(f"took {1000 * reading.seconds:.0f} ms")
        if reading.size > MAX_BYTES:
            raise BrokenRuleError(f"took {reading.size / 1e6:.0f} MB")
        return reading

    def _once(self) -> Reading:
        before, sentence, found = _peak(), "", None
        self.events = events = []
        started = time.process_time()
        try:
            found = self.read(self.path)
        except VectorFileError as error:
            sentence = str(error)
        except BaseException as error:
            raise BrokenRuleError(f"raised {type(error).__name__}: {str(error)[:200]}") from error
        finally:
            seconds = time.process_time() - started
            self.events = None
            size = _peak("VmHWM") - before
        if events:
            raise BrokenRuleError(f"did {events}")
        if found is not None:
            check_written_again(found)
        else:
            check_sentence(sentence, self.path.name)
        return Reading(re.sub(r"'.*?'|[\d,]*\d", "_", sentence), seconds, size)

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Nothing at all that Python audits may be done but to open the file, which covers imports, exec, sockets,
        processes and whatever changes a folder."""
        opened = event == "open" and arguments[0] == str(self.path) and arguments[2] & os.O_ACCMODE == os.O_RDONLY
        if self.events is not None and not opened:
            self.events.append(f"{event} {arguments!r}"[:200])


def _peak(field: str = "VmRSS") -> int:
    """Bytes in memory now, from where the peak is then counted anew; or the peak, "VmHWM"."""
    if field == "VmRSS":
        Path("/proc/self/clear_refs").write_text("5")
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def check_sentence(sentence: str, name: str) -> None:
    """It calls the file by its name and is short and plain. Raises `BrokenRuleError`."""
    if len(sentence) > MAX_LETTERS or not sentence.isprintable() or not sentence.startswith(name):
        raise BrokenRuleError(f"said {sentence[:400]!r}")


def check_written_again(vectors: MemVectors) -> None:
    """What was read can be written, and is then read as the same; JSON holds what it says of itself. Raises
    `BrokenRuleError`."""
    try:
        data = to_bytes(vectors)
        again = from_bytes(data)
        json.dumps(loader.describe(vectors), ensure_ascii=False, allow_nan=False).encode("utf-8")
    except Exception as error:
        raise BrokenRuleError(f"was read, but not written: {type(error).__name__}: {str(error)[:200]}") from error
    if to_bytes(again) != data or not torch.equal(again.mem, vectors.mem):
        raise BrokenRuleError("was read, and is another after it was written")


# ---- commands


def run(count: int, seed: int, out: Path | None) -> dict[str, Any]:
    """Read so many files. Gives the counts, and for each kind of fault what came of it."""
    kinds: dict[str, list[Reading]] = {}
    broken: list[str] = []
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        judge = Judge(load, Path(folder))
        for number, (kind, data) in enumerate(inputs(count, seed)):
            try:
                kinds.setdefault(kind, []).append(judge(data))
            except BrokenRuleError as error:
                broken.append(f"{kind}, file {number}, {len(data):,} bytes: {error}")
                if len(broken) <= 20:
                    print(broken[-1], file=sys.stderr, flush=True)
                if out:
                    (out / f"broken-{number}.safetensors").write_bytes(data)
            if sys.stderr.isatty() and number % 1000 == 0:
                print(f"\r{number:,}", end="", file=sys.stderr)
        left = [path.name for path in Path(folder).iterdir()]
    if left != [judge.path.name]:
        broken.append(f"left {left}")
    readings = [reading for each in kinds.values() for reading in each]
    return {
        "files": len(readings) + len(broken),
        "broken": broken,
        "read": sum(not reading.said for reading in readings),
        "slowest_ms": 1000 * max(reading.seconds for reading in readings),
        "largest_mb": max(reading.size for reading in readings) / 1e6,
        "sentences": len({reading.said for reading in readings} - {""}),
        "seconds": time.monotonic() - started,
        "kinds": {kind: _row(each) for kind, each in kinds.items()},
    }


def _row(readings: list[Reading]) -> dict[str, Any]:
    read = Counter(bool(reading.said) for reading in readings)
    seconds, size = max(reading.seconds for reading in readings), max(reading.size for reading in readings)
    return {"files": len(readings), "read": read[False], "refused": read[True],
            "slowest_ms": 1000 * seconds, "largest_mb": size / 1e6}  # fmt: skip


def table(report: dict[str, Any]) -> str:
    """Markdown of a report of `run`."""
    lines = ["| Fault | Files | Read | Refused | Slowest, ms CPU | Most memory, MB |", "|---|--:|--:|--:|--:|--:|"]
    for kind, row in report["kinds"].items():
        lines.append(
            f"| {kind} | {row['files']:,} | {row['read']:,} | {row['refused']:,} | {row['slowest_ms']:.1f} "
            f"| {row['largest_mb']:.1f} |"
        )
    lines.append(
        f"\n{report['files']:,} files in {report['seconds']:.0f} s: {report['read']:,} read, "
        f"{report['sentences']} different sentences, {len(report['broken'])} broke a rule. Slowest "
        f"{report['slowest_ms']:.1f} ms of CPU, most memory {report['largest_mb']:.1f} MB. "
        f"{time.strftime('%Y-%m-%d')}, Python {platform.python_version()}."
    )
    return "\n".join(lines)


def guided(seconds: int, seed: int, out: Path) -> None:
    """Fuzz with atheris for so long; ends the process. Half of its changes are `damage`, half its own."""
    import atheris

    for function in vars(loader).values():
        if inspect.isfunction(function) and function.__module__ == loader.__name__:
            atheris.instrument_func(function)
    corpus = out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate([*GOLDEN, *FOUND, *(data for _, data in inputs(2000, seed) if len(data) < 10_000)]):
        (corpus / f"seed-{number}").write_bytes(data)
    judge = Judge(load, Path(tempfile.mkdtemp()))

    def one(data: bytes) -> None:
        judge(data)

    def change(data: bytes, max_size: int, chance: int) -> bytes:
        random = Random(chance)
        return damage(random, data)[1][:max_size] if random.random() < 0.5 else atheris.Mutate(data, max_size)

    options = [f"-max_total_time={seconds}", f"-seed={seed + 1}", "-max_len=70000", "-len_control=0", "-timeout=20"]
    options += [f"-artifact_prefix={out}/", "-print_final_stats=1", "-rss_limit_mb=4096", str(corpus)]
    atheris.Setup([sys.argv[0], *options], one, custom_mutator=change)
    atheris.Fuzz()


def main() -> int:
    """One of the two commands; status 1 where a file broke a rule."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Read bad vector files.")
    parser.add_argument("--count", type=int, metavar="N", help="read so many, drawn from the seed")
    parser.add_argument("--seconds", type=int, metavar="S", help="let atheris look for so long")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for files that broke a rule, and atheris' corpus")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.seconds:
        guided(arguments.seconds, arguments.seed, arguments.out or Path(tempfile.mkdtemp()))
    report = run(arguments.count or 2000, arguments.seed, arguments.out)
    print(json.dumps(report) if arguments.json else table(report))
    return 1 if report["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())
