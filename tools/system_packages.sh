#!/usr/bin/env bash
# Sees to the Debian packages that are named: installs what is missing when it may, and else says exactly what to do.
set -euo pipefail

present() {
  case "$1" in
    chromium) command -v chromium >/dev/null || command -v chromium-browser >/dev/null ;;
    iproute2) command -v ip >/dev/null && command -v ss >/dev/null ;;
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null ;;
    python3-venv) "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

missing=()
for package in "$@"; do
  present "$package" || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
  echo "Installing ${missing[*]} …" >&2
  export DEBIAN_FRONTEND=noninteractive
  # Servers are installed for tests, which start their own: the packages' must not start meanwhile.
  if [ ! -e /usr/sbin/policy-rc.d ]; then
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  fi
  apt-get update -qq >&2
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
  exit 0
fi
echo "Missing system packages: ${missing[*]}. Install them, for example: sudo apt-get install ${missing[*]}" >&2
exit 1
