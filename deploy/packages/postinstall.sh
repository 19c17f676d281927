#!/bin/sh
set -e
case "$1" in
configure) earlier=${2:-} ;; # the version before, if any
1) earlier= ;;
[2-9]*) earlier=another ;;
*) exit 0 ;;
esac
if [ ! -e /var/lib/mirror ]; then
  install -d -o mirror -g mirror -m 0700 /var/lib/mirror
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
if [ -n "$earlier" ] && [ -d /run/systemd/system ] && systemctl --quiet is-active mirror-node.service; then
  systemctl restart mirror-node.service || true
fi
if [ -z "$earlier" ]; then
  echo "mirror: look at /etc/mirror/config.yaml, then start it: systemctl enable --now mirror"
elif [ -d /run/systemd/system ] && systemctl --quiet is-active mirror.service; then
  # A configuration that this version does not accept would end a mirror that works.
  if mirror config check --no-files /etc/mirror/config.yaml >/dev/null; then
    systemctl restart mirror.service || true
  else
    echo "mirror: this version does not accept /etc/mirror/config.yaml, so the earlier one runs on: correct the file, then: systemctl restart mirror" >&2
  fi
fi
