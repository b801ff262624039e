"""Rules of the test suite itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import socket
import ssl
import threading
from pathlib import Path

import hypothesis
import psutil
import pytest
import structlog
from _pytest.assertion.rewrite import _read_pyc
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import pytest_runtest_protocol
from tests.kit import left_open, rewriting
from tests.kit.certificates import make_certificate, make_key, pem
from tests.kit.cluster_leases import Tenure, longest_overlap_s, tenures_of
from tests.kit.examples import FAST_LIMIT, THOROUGH_FACTOR, THOROUGH_LIMIT, apply_profile, scaled, seeded, seeds
from tests.kit.page_memory import own_bytes
from tests.kit.processes import REPOSITORY
from tests.kit.tiers import LONG, VARIANTS, is_long
from watchout.common import log


@pytest.mark.parametrize(
    ("wanted", "profile", "gets"),
    [
        (FAST_LIMIT - 1, "fast", FAST_LIMIT - 1),
        (FAST_LIMIT + 1, "fast", FAST_LIMIT),
        (4000, "full", 4000),
        (50, "thorough", 50 * THOROUGH_FACTOR),
        (THOROUGH_LIMIT - 1, "thorough", THOROUGH_LIMIT),
        (THOROUGH_LIMIT + 1, "thorough", THOROUGH_LIMIT + 1),
    ],
)
def test_a_profile_limits_or_multiplies_what_a_test_asks_for(wanted: int, profile: str, gets: int) -> None:
    assert scaled(wanted, profile) == gets


@pytest.mark.parametrize(("profile", "count"), [("fast", 6), ("full", 30), ("thorough", 300)])
def test_a_test_with_random_numbers_of_its_own_has_seeds_as_others_have_examples(profile: str, count: int) -> None:
    assert len(seeds(30, profile)) == count
    assert len(seeds(1, profile)) >= 1


def test_a_seeded_test_is_marked_and_has_its_seeds() -> None:
    def test(seed: int) -> None: ...

    marks = seeded(30)(test).pytestmark
    assert {mark.name for mark in marks} == {"parametrize", "drawn"}
    (seed,) = [mark for mark in marks if mark.name == "parametrize"]
    assert seed.args == ("seed", seeds(30))


@pytest.mark.parametrize("name", LONG)
def test_what_is_left_to_the_long_run_is_there(name: str) -> None:
    file, _, function = name.partition("::")
    assert (REPOSITORY / file).exists(), "take it from tests/kit/tiers.py"
    if function:
        assert f"def {function}(" in (REPOSITORY / file).read_text(), "take it from tests/kit/tiers.py"
        assert not is_long(file)
    assert is_long(name if file.endswith(".py") else f"{name}/test_one.py")


def test_all_else_is_not_long() -> None:
    assert not is_long("tests/e2e/test_wheels.py")
    assert not is_long("tests/faults/processes/test_router.py")
    assert not is_long("tests/clusters/test_one.py")
    assert not is_long("tests/e2e/test_one.py::test_it", ["uvloop", "1.7", 16, None])


@pytest.mark.parametrize("value", VARIANTS)
def test_a_variant_of_a_test_is_long(value: str) -> None:
    assert is_long("tests/e2e/test_one.py::test_it", ["a", value])
    assert is_long("tests/e2e/test_one.py::test_it", [("a", value)])


def test_each_test_is_in_one_run_or_the_other(pytester: pytest.Pytester) -> None:
    (pytester.mkdir("tests") / "cluster").mkdir()
    for name in ("cluster/test_a.py", "test_b.py"):
        Path("tests", name).write_text("def test_it(): pass\n")
    selected = {
        marks: [
            line
            for line in pytester.runpytest_inprocess(
                "-q", "--collect-only", "-p", "no:asyncio", "-p", "tests.kit.tiers", "-o", "markers=long", "-m", marks
            ).outlines
            if "::" in line
        ]
        for marks in ("long", "not long")
    }
    assert selected == {"long": ["tests/cluster/test_a.py::test_it"], "not long": ["tests/test_b.py::test_it"]}


def test_a_profile_changes_the_number_of_examples_that_run() -> None:
    seen = []

    @hypothesis.settings(max_examples=3, database=None)
    @given(st.integers())
    def test(number: int) -> None:
        seen.append(number)

    class Item:
        obj = staticmethod(test)

    apply_profile([Item()], "thorough")  # type: ignore[list-item]
    test()
    assert len(seen) == 3 * THOROUGH_FACTOR


@pytest.mark.parametrize("closed", [False, True])
def test_a_connection_that_is_left_open_is_named_when_its_loop_is_closed(closed: bool) -> None:
    loop = asyncio.new_event_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, "127.0.0.1", port))
        if closed:
            transport.close()
            loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    left = left_open.take()
    assert len(left) == (not closed)
    assert all(f"raddr=('127.0.0.1', {port})" in each for each in left)


def test_a_closed_connection_with_tls_is_given_time_until_its_peer_closes_it(tmp_path: Path) -> None:
    key = make_key()
    (tmp_path / "pem").write_bytes(pem(key) + make_certificate(key))
    there, here = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    there.load_cert_chain(tmp_path / "pem")
    here.check_hostname, here.verify_mode = False, ssl.CERT_NONE
    loop, may_close = asyncio.new_event_loop(), threading.Event()

    def peer(server: socket.socket) -> None:
        with there.wrap_socket(server.accept()[0], server_side=True):
            may_close.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=peer, args=[server])
        thread.start()
        port = server.getsockname()[1]
        transport, _ = loop.run_until_complete(loop.create_connection(asyncio.Protocol, "127.0.0.1", port, ssl=here))
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
        threading.Timer(0.1, may_close.set).start()
        loop.close()
        thread.join()
    assert left_open.take() == []


@pytest.mark.parametrize(("of_file", "counts"), [(False, True), (True, False)])
def test_memory_of_a_process_counts_what_it_wrote_not_the_files_that_it_read(
    tmp_path: Path, of_file: bool, counts: bool
) -> None:
    size = 64 << 20
    path = tmp_path / "program"
    path.write_bytes(b"x" * size)
    before = own_bytes(psutil.Process())
    with (
        path.open("rb") as file,
        mmap.mmap(file.fileno() if of_file else -1, size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as area,
    ):
        for at in range(0, size, mmap.PAGESIZE):
            if of_file:
                _ = area[at]
            else:
                area[at] = 1
        grown = own_bytes(psutil.Process()) - before
    assert (grown > size * 0.9) is counts
    assert (grown < size * 0.1) is not counts


def test_tenures_of_a_router_are_read_from_what_it_logged_and_two_at_once_are_found() -> None:
    def line(second: int, event: str, epoch: int | None = None) -> str:
        return json.dumps({"slot": 1, "epoch": epoch, "event": event, "timestamp": f"1970-01-01T00:00:{second:02d}Z"})

    first = [line(1, "slot taken", 5), line(9, "slot given up"), "no log line", line(20, "slot taken", 7)]
    assert tenures_of(1, first, 30.0) == [Tenure(1, 5, 1, 1.0, 9.0), Tenure(1, 7, 1, 20.0, 30.0)]
    assert tenures_of(1, [*first, line(21, "NATS is there")])[1] == Tenure(1, 7, 1, 20.0, 21.0), "it has ended"
    assert tenures_of(1, [line(1, "slot taken", 5), line(3, "slot taken", 6)])[0].until == 3.0, "begun anew"
    second = tenures_of(2, [line(6, "slot taken", 6), line(19, "slot given up")])
    assert longest_overlap_s([*second, *tenures_of(1, first)]) == 3.0
    with pytest.raises(AssertionError):
        longest_overlap_s([*second, *tenures_of(3, [line(40, "slot taken", 6)])])


def test_pytest_reads_what_was_rewritten_for_it(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    file = tmp_path / "test_something.py"
    file.write_text("def test():\n    assert 1 == 2\n")
    rewriting.rewrite(file, request.config)
    read = _read_pyc(file, rewriting.kept(file))
    assert read is not None
    assert "@pytest_ar" in read.co_names


def test_a_test_that_sets_up_logging_leaves_it_to_others_as_it_was() -> None:
    before = structlog.get_config()
    one_test = pytest_runtest_protocol()
    next(one_test)
    log.setup(level="critical", format="text", process="tests", take_streams=False)
    assert structlog.get_config() != before
    with contextlib.suppress(StopIteration):
        next(one_test)
    assert structlog.get_config() == before


SKIPPING = """
import pytest
from tests.kit.services import not_permitted
from tests.kit.skips import of_target

def test_that_needs_a_program():
    pytest.skip("no such program")

@pytest.mark.skipif(True, reason="no such kernel")
def test_that_needs_a_kernel():
    pass

@pytest.fixture
def service():
    pytest.skip("no such service")

def test_that_needs_a_service(service):
    pass

def test_that_is_not_permitted():
    not_permitted("no device")

@pytest.mark.skipif(True, reason=of_target("test-thorough"))
def test_of_another_target():
    pass

@pytest.mark.xfail
def test_that_is_expected_to_fail():
    assert False
"""


@pytest.mark.parametrize(
    ("environ", "outcomes"),
    [
        ({"CI": "true"}, {"failed": 1, "errors": 3, "skipped": 2, "xfailed": 1}),
        ({"CI": ""}, {"skipped": 6, "xfailed": 1}),
    ],
    ids=["in CI", "elsewhere"],
)
def test_in_ci_a_skip_is_a_failure_unless_it_is_exempt(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], outcomes: dict[str, int]
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    pytester.makepyfile(test_functions=SKIPPING, test_module='import pytest\npytest.importorskip("no_such_module")\n')
    words = ["-p", "no:asyncio", "-p", "tests.kit.skips", "--continue-on-collection-errors"]
    result = pytester.runpytest_inprocess(*words)
    result.assert_outcomes(**outcomes)
    assert ("skipped, which is a failure in CI: no such service" in result.stdout.str()) is bool(environ["CI"])
