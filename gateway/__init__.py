"""The gateway terminates WebSockets and HTTP, knows who each caller is, and delivers frames to its own viewers.

Pure rooms: ``session`` (one client's conversation), ``hub`` (who watches what here), ``lanes`` (what waits for one
viewer), ``limits``, ``access`` (who may view), ``wire`` (client messages and the bytes of server messages).
Edge rooms: ``websocket`` (one socket), ``conversation`` (carries out what a session says), ``listener`` (WebSocket or
HTTP), ``http``, ``link`` (to the router), ``auth``. ``app`` wires them and decides nothing.
"""
