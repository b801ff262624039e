"""How much is read of a client at once: what waits because the gateway is late takes half of the budgets at most."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from watchout.common.metrics import Metrics
from watchout.common.settings import Settings
from watchout.gateway.client.frame_reader import SCRATCH_BYTES
from watchout.gateway.client.unfinished import LEAST_READ_BYTES, Unfinished

KIB = 1024
USERS = ("ann", "ben", "eve")


class Client:
    def __init__(self, user: str) -> None:
        self.user, self.holds = user, 0

    def give_way(self) -> None:
        raise AssertionError("nobody is closed for what was read at once")


@given(
    st.integers(1, 3000).map(lambda size: size * KIB),
    st.integers(1, 9000).map(lambda size: size * KIB),
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=60),
)
def test_what_is_read_at_once_fills_half_of_a_budget_and_little_more(of_user, of_all, reads) -> None:
    settings = replace(
        Settings(), max_message_bytes=KIB, unfinished_bytes_per_user=of_user + 256 * KIB, unfinished_bytes=of_all
    )
    of_user, of_all = of_user + 256 * KIB, max(of_all, of_user + 256 * KIB)
    unfinished, clients = Unfinished(settings, Metrics()), [Client(USERS[number // 2]) for number in range(6)]
    for number, taken in reads:
        client = clients[number]
        if taken:  # its messages had their turn
            client.holds = 0
            unfinished.release(client)
            continue
        if client.holds:
            continue  # nothing more is read of it
        most = unfinished.most_to_read(client.user) if unfinished.is_filling else SCRATCH_BYTES
        client.holds = min(most, SCRATCH_BYTES)
        held = sum(each.holds for each in clients)
        of_its_user = sum(each.holds for each in clients if each.user == client.user)
        if client.holds > LEAST_READ_BYTES:
            assert of_its_user <= of_user // 2
            assert held <= of_all // 2
        unfinished.hold(client, client.user, client.holds)
        assert unfinished.bytes == held


def test_an_idle_gateway_reads_as_much_as_it_has_memory_for() -> None:
    assert not Unfinished(Settings(), Metrics()).is_filling
