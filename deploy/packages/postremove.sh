#!/bin/sh
# The cache and its records stay where the package is removed. dpkg can purge them, too; the user stays, since other files may be its own.
set -e
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
if [ "$1" = purge ]; then
  rm -rf /var/lib/mirror /var/lib/private/mirror || echo "mirror: not all of /var/lib/mirror was removed" >&2
fi
