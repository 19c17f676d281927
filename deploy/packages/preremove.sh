#!/bin/sh
set -e
case "$1" in
remove | 0) ;;
*) exit 0 ;; # an upgrade: the new version restarts the mirror
esac
if [ -d /run/systemd/system ]; then
  systemctl disable --now mirror.service || true
  systemctl disable --now mirror-node.service || true # which takes the agent's files back
fi
