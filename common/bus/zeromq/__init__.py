"""The bus over ZeroMQ: Unix sockets on one machine, TCP with CURVE between machines."""
