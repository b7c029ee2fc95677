"""Makes the inputs: messages of a type with arbitrary fields, arbitrary fields without a type, and mutations of either."""

import math
import struct

NAMES = ("fuzzed", "fuzzed", "fuzzed", "nobody", "", "1.0", "data", "BYTES", "FP32", "sequence_id", "é" * 40, "n" * 300, "\0")
INTEGERS = (0, 1, 2, 3, 7, 255, 2**20, 2**31 - 1)
FLOATS = (0.0, -1.5, math.inf, -math.inf, math.nan, 1e300)
EDGES = (b"\x00", b"\xff", b"\x7f", b"\x80", b"\xff" * 9 + b"\x01", b"\x80" * 10, b"\xff\xff\xff\xff", b"\x00\x00\x00\x80")
DEEPEST = 3


def message(kind, chance, names=NAMES, depth=0):
    """Return a message of a class with arbitrary fields; names are where a text is asked for."""
    made = kind()
    for field in made.DESCRIPTOR.fields:
        if chance.random() < (0.6 if depth < DEEPEST else 0.1):
            _fill(made, field, chance, names, depth)
    return made


def _fill(made, field, chance, names, depth):
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if is_map:
        key, value = field.message_type.fields_by_name["key"], field.message_type.fields_by_name["value"]
        table = getattr(made, field.name)
        for _ in range(chance.randint(0, 2)):
            name = _scalar(key, chance, names)
            if value.message_type is None:
                table[name] = _scalar(value, chance, names)
            else:
                table[name].MergeFrom(message(type(table[name]), chance, names, depth + 1))
    elif field.message_type is not None:
        repeated = field.is_repeated
        for _ in range(chance.randint(0, 3) if repeated else 1):
            place = getattr(made, field.name).add() if repeated else getattr(made, field.name)
            place.MergeFrom(message(type(place), chance, names, depth + 1))
    elif field.is_repeated:
        getattr(made, field.name).extend(_scalar(field, chance, names) for _ in range(chance.randint(0, 4)))
    else:
        setattr(made, field.name, _scalar(field, chance, names))


def _scalar(field, chance, names):
    match field.cpp_type:
        case field.CPPTYPE_STRING:
            return chance.randbytes(chance.choice([0, 1, 4, 8, 50])) if field.type == field.TYPE_BYTES else chance.choice(names)
        case field.CPPTYPE_BOOL:
            return chance.random() < 0.5
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return chance.choice(FLOATS)
        case field.CPPTYPE_ENUM:
            return chance.choice([value.number for value in field.enum_type.values])
        case field.CPPTYPE_INT32 | field.CPPTYPE_INT64:
            return chance.choice([*INTEGERS, -1, -(2**31)])
    return chance.choice(INTEGERS)


def fields(chance):
    """Return arbitrary fields on the wire, of no type in particular, some of them cut short."""
    parts = []
    for _ in range(chance.randint(0, 6)):
        number, kind = chance.choice([0, 1, 2, 3, 4, 5, 6, 7, 15, 1000]), chance.choice([0, 1, 2, 2, 2, 2, 3, 4, 5, 6, 7])
        parts.append(varint(number << 3 | kind))
        if kind == 0:
            parts.append(varint(chance.choice([0, 1, 2**32, 2**64 - 1])))
        elif kind == 2:
            body = chance.choice([b"", b"fuzzed", chance.randbytes(chance.randint(0, 40))]) if chance.random() < 0.7 else fields(chance)
            parts.append(varint(chance.choice([len(body)] * 8 + [len(body) + 1, 2**31, 2**63])) + body)
        else:
            parts.append(chance.randbytes({1: 8, 5: 4}.get(kind, 0)))
    return b"".join(parts)


def varint(number):
    """Return a number as protobuf writes it."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def mutated(raw, chance):
    """Return bytes with a few changes: bits, bytes, numbers, pieces that go, come twice, or move."""
    data = bytearray(raw)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 8])):
        at, length = chance.randint(0, len(data)), chance.choice([1, 1, 2, 4, 8, 32])
        match chance.randint(0, 7):
            case 0 if data:
                data[at % len(data)] ^= 1 << chance.randint(0, 7)
            case 1 if data:
                data[at % len(data)] = chance.randint(0, 255)
            case 2:
                data[at:at] = chance.randbytes(length)
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[chance.randint(0, len(data)) :][:length]
            case 5:
                edge = chance.choice(EDGES)
                data[at : at + len(edge)] = edge
            case 6:
                data[at : at + 4] = struct.pack("<I", chance.choice([0, 1, 2**31, 2**32 - 1, chance.randint(0, 2**32 - 1)]))
            case 7:
                del data[at:]
    return bytes(data)
