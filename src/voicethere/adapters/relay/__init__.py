"""How the session service reaches the runners (ports `RelayHub` and `RunnerLink`)."""
