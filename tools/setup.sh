#!/usr/bin/env bash
# Makes the checkout's virtual environment from the locked requirements. Run by `make`.
set -euo pipefail
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

say() { printf '%s\n' "$*" >&2; }

if ! command -v "$PYTHON" >/dev/null; then
  say "voicethere needs Python 3.11 or newer; '$PYTHON' was not found. On Debian: apt-get install python3 python3-venv"
  exit 1
fi
if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
  say "voicethere needs Python 3.11 or newer; $PYTHON is $("$PYTHON" -V). Name another one: make PYTHON=python3.11 …"
  exit 1
fi
if ! "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null; then
  bash "$(dirname "$0")/system_packages.sh" python3-venv
fi
if [ ! -x "$VENV/bin/python" ]; then
  say "Making $VENV with $("$PYTHON" -V) …"
  "$PYTHON" -m venv "$VENV"
fi
say "Installing the locked requirements into $VENV (about half a minute) …"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
touch "$VENV/.ready"
