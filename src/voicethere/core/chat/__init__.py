"""The state of a chat client, without I/O: shapes, actions, reducers, selectors.

`voicethere.chat` is the public package on top of it.
"""
