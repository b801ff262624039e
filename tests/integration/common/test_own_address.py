"""Which addresses are this machine's where the system lets sockets be bound to any address."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.kit.services import missing

#: Prints which addresses are own ones, first where sockets can be bound to no others, then where they can.
SCRIPT = """
ip link set lo up
ip link add d0 type veth peer name d1 && ip link set d0 up && ip link set d1 up
ip addr add 10.77.0.1/24 dev d0
ip addr add 10.78.0.1/24 dev d0
ip addr add fd77::1/64 dev d0 nodad
for any in 0 1; do
  sysctl -q net.ipv4.ip_nonlocal_bind=$any net.ipv6.ip_nonlocal_bind=$any
  "$PYTHON" -c "
from watchout.common.toolbox.own_address import is_own_address as own
print($any, *(int(own(each)) for each in ('10.77.0.1', '10.78.0.1', 'fd77::1', '10.77.0.2', 'fd77::2', '192.0.2.1')))"
done
"""


def test_where_sockets_can_be_bound_to_any_address_those_of_others_are_not_taken_for_own_ones() -> None:
    if os.geteuid() != 0:
        missing("network namespaces can be made by root only")
    if shutil.which("ip") is None:
        missing("the program ip is not installed (Debian: iproute2)")
    said = subprocess.run(
        ["unshare", "-n", "sh", "-ec", SCRIPT], env={**os.environ, "PYTHON": sys.executable},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert said.stdout.splitlines() == ["0 1 1 1 0 0 0", "1 1 1 1 0 0 0"], said.stderr
