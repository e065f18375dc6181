"""VoiceThere: conversational agent sessions, voice and chat, in which no session ever fails silently."""

__version__ = "0.1.0"
