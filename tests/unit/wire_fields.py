"""Messages on the wire as a strategy of hypothesis: any fields that protobuf reads, however oddly they are encoded."""

from hypothesis import strategies as st

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def varint(value, extra=0):
    """Encode a number, with `extra` bytes more than needed."""
    out = bytearray()
    while value > 0x7F or extra:
        if value <= 0x7F:
            extra -= 1
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


@st.composite
def usual_fields(draw, contents):
    """One field of `contents`, as protobuf writes it."""
    number = draw(st.sampled_from([*contents]))
    body = draw(contents[number])
    return varint(number << 3 | 2) + varint(len(body)) + body


@st.composite
def fields(draw, contents):
    """One field: of `contents` or unknown, of its type or another; lengths and keys may be longer than needed."""
    number = draw(st.sampled_from([*contents, 15, 16, 200, 2**29 - 1]))
    kind = draw(st.sampled_from([0, 1, 2, 2, 2, 3, 5]))
    key_size = len(varint(number << 3))
    key = varint(number << 3 | kind, draw(st.integers(0, 5 - key_size)))
    if kind == 0:
        return key + varint(draw(st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1))))
    if kind == 1:
        return key + draw(st.binary(min_size=8, max_size=8))
    if kind == 5:
        return key + draw(st.binary(min_size=4, max_size=4))
    if kind == 3:  # an old group, with one field in it
        return key + b"\x08\x01" + varint(number << 3 | 4)
    body = draw(contents.get(number, st.binary(max_size=20)))
    return key + varint(len(body), draw(st.integers(0, 2))) + body


def messages(contents):
    """Fields in any order and repeated; as usual in half of the messages, so that a scan reads these to the end."""
    usual, any_field = usual_fields(contents), st.one_of(usual_fields(contents), fields(contents))
    return st.one_of(st.lists(usual, max_size=8), st.lists(any_field, max_size=8)).map(b"".join)
