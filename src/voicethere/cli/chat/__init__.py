"""`voicethere chat`: a conversation in the terminal, for people (Textual) and for scripts (JSON lines)."""
