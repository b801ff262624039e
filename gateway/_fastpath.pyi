def take(
    data: memoryview,
    count: int,
    max_bytes: int,
    json_head: bytes,
    name: bytes,
    frame_id: int,
    now_ms: int,
    /,
) -> tuple[bytes, int, int, int, int, int, bytes] | None: ...
def take_payload(
    payload: bytes, json_head: bytes, name: bytes, frame_id: int, now_ms: int, /
) -> tuple[bytes, int, int, int, int, int, bytes] | None: ...
def message(head: bytes, frame_id: int, timestamp: int, text: bytes, begin: int, end: int, more: bytes, /) -> bytes: ...
def remote(data: bytes | memoryview, /) -> tuple[str, int, int, int, bytes, int, int, int, bytes, int] | None: ...

INTERFACE: int
