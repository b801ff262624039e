"""The router holds the truth about streams: who publishes what, who watches, which mlbridge looks at it, recent alerts.

Pure rooms: ``streams`` (claims, terms, interest, routes), ``members`` (epochs, numbers, heartbeats), ``alerts`` (ids,
order, recent ones). ``app`` wires them to the bus. It never looks into a picture and never touches a client.
"""
