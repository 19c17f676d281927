#!/usr/bin/env bash
# Installs what the end-to-end tests and the comparison need and this machine lacks: Debian packages (as root), and Go
# programs into $MIRROR_E2E_CACHE/bin. Nothing is done where everything is there. A bare machine takes some ten minutes,
# nearly all of it for building containerd.
set -euo pipefail
cd "$(dirname "$0")"
# shellcheck source=versions.env
source ./versions.env

cache=${MIRROR_E2E_CACHE:-$HOME/.cache/mirror-e2e}
bin=$cache/bin
mkdir -p "$bin"

say() { printf 'install: %s\n' "$*"; }

# The package and the program in it that shows that it is there.
packages=(
  "containerd=$CONTAINERD1_DEBIAN /usr/bin/containerd"
  "runc runc"
  "docker.io /usr/sbin/dockerd"
  "podman podman"
  "skopeo skopeo"
  "nginx /usr/sbin/nginx"
  "strace strace"
  "iproute2 /sbin/ip"
  "file file"
  "gcc gcc"           # the race detector links with it
  "libc6-dev /usr/include/stdlib.h"
  "ca-certificates /etc/ssl/certs/ca-certificates.crt"
)
missing=()
for entry in "${packages[@]}"; do
  read -r package proof <<<"$entry"
  if ! command -v "$proof" >/dev/null && [ ! -e "$proof" ]; then
    missing+=("$package")
  fi
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]}; install them, or run this as root on Debian 12" >&2
    exit 1
  fi
  say "Debian packages: ${missing[*]}"
  # No daemon is started: the tests run their own, in folders of their own.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q
  apt-get install -q -y --no-install-recommends "${missing[@]}"
fi
case "$(/usr/bin/containerd --version)" in
  *" 1.6."*) ;;
  *)
    say "/usr/bin/containerd is not of the 1.6 line: $(/usr/bin/containerd --version)" >&2
    exit 1
    ;;
esac

# build MODULE PACKAGE VERSION: a program of that version is in the folder afterwards.
build() {
  local module=$1 package=$2 version=$3 program
  program=$bin/$(basename "$package")
  if go version -m "$program" 2>/dev/null | grep -qP "^\tmod\t\Q$module\E\t\Q$version\E(\t|$)"; then
    return
  fi
  say "$package@$version"
  GOBIN=$bin CGO_ENABLED=0 go install "$package@$version"
}
build github.com/distribution/distribution/v3 github.com/distribution/distribution/v3/cmd/registry "$REGISTRY_VERSION"
build github.com/google/go-containerregistry github.com/google/go-containerregistry/cmd/crane "$CRANE_VERSION"
build github.com/opencontainers/distribution-spec/conformance \
  github.com/opencontainers/distribution-spec/conformance "$CONFORMANCE_VERSION"
build github.com/containerd/containerd/v2 github.com/containerd/containerd/v2/cmd/containerd "$CONTAINERD2_VERSION"
build github.com/containerd/containerd/v2 github.com/containerd/containerd/v2/cmd/ctr "$CONTAINERD2_VERSION"
say "everything is there: $bin"
