"""What the demo's agent understands."""

PHRASES = (
    "what time is it",
    "turn on the lights",
    "switch off the lamp",
    "play some music",
    "stop the music",
    "what is the weather today",
    "tell me a joke",
    "lock the front door",
    "call my mother",
    "open the door",
    "close the window",
    "read the news",
    "good morning",
    "good night",
    "thank you very much",
    "where is my phone",
    "order a pizza",
    "send a message",
    "how are you today",
    "tell me a story",
)
"""The twenty phrases of `healthy_turn`."""

CRASH_PHRASE = "please crash now"
