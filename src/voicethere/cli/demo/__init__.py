"""The demo: five sessions on a fresh platform, four of which fail out loud."""
