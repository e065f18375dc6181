"""WebRTC by aiortc: the runner's offering peer, the client's answering peer, and the audio between them.

Import what you need from its module: `server_peer`, `client_peer`, `events`, `outbound`, `inbound`, `opus`.
Nothing here knows of sessions, agents or signaling; a peer takes descriptions and candidates as text and
hands back events. What aiortc and aioice keep private is touched in `sctp_flush`, `host_addresses`,
`ice_end` and `decode_errors` only, each with a test that breaks when it changes.
"""
