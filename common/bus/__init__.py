"""The bus between the processes: its messages, membership, queues, and the transports that carry it."""
