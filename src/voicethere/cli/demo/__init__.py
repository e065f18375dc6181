"""The demo: four sessions on a fresh platform, three of which fail out loud."""
