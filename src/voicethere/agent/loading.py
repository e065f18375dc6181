"""Importing a bundle: `agent.py` becomes the module `agent`, its folder the first place to import from."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys

from voicethere.agent.definition import Agent, AgentDefinitionError, defined_agent

AGENT_MODULE = "agent"


class LoadFailure(Exception):
    """Loading failed at `stage` (see `wire.ipc.AgentLoadFailed`); the cause is what was raised there."""

    def __init__(self, stage: str, cause: BaseException) -> None:
        super().__init__(stage)
        self.stage = stage
        self.cause = cause


def load_agent(bundle_dir: str) -> Agent:
    """Import the bundle and return what it defines.

    Raises:
        LoadFailure: the import raised (whatever it raised, SystemExit too), or it defined no agent.
    """
    sys.dont_write_bytecode = True  # the bundle's folder is not ours to write to
    sys.path.insert(0, bundle_dir)
    importlib.invalidate_caches()
    try:
        spec = importlib.util.spec_from_file_location(AGENT_MODULE, os.path.join(bundle_dir, "agent.py"))
        if spec is None or spec.loader is None:
            raise ImportError("agent.py cannot be imported")
        module = importlib.util.module_from_spec(spec)
        sys.modules[AGENT_MODULE] = module
        spec.loader.exec_module(module)
    except AgentDefinitionError as error:
        raise LoadFailure("define_agent", error) from error
    except BaseException as error:
        raise LoadFailure("import", error) from error
    try:
        return defined_agent()
    except AgentDefinitionError as error:
        raise LoadFailure("define_agent", error) from error
