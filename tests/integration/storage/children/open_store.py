"""Opens a store as soon as a file appears, and says which org it found. Arguments: the URL, the file."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from voicethere.adapters.store import Store


async def main(url: str) -> None:
    store = await Store.open(url)
    print(await store.ensure_default_org())
    await store.aclose()


print("ready", flush=True)
while not Path(sys.argv[2]).exists():
    time.sleep(0.001)
asyncio.run(main(sys.argv[1]))
