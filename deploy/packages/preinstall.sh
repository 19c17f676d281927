#!/bin/sh
# Before the files are there: the user that the mirror runs as, and the group that may read its configuration. The first argument is
# dpkg's word, or for rpm the number of versions that are then installed.
set -e
case "$1" in
install | upgrade | [1-9]*) ;;
*) exit 0 ;;
esac
getent group mirror >/dev/null || groupadd --system mirror
getent passwd mirror >/dev/null ||
  useradd --system --gid mirror --home-dir /var/lib/mirror --no-create-home --shell /usr/sbin/nologin mirror
