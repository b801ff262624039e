"""The operator's tool ``watchout-ctl``: one file a command.

It speaks to the bus as a member, to the gateway as a client.
"""
