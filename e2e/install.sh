#!/usr/bin/env bash
# Installs what the end-to-end tests and the comparison need and this machine lacks: Debian packages (as root), and Go
# programs into $MIRROR_E2E_CACHE/bin. Nothing is done where everything is there. A bare machine takes some ten minutes,
# nearly all of it for building containerd. With the argument "kubernetes" it also installs what runs a node of a cluster:
# ten minutes more. With the argument "tour" it installs the packages alone that make the tour's client a containerd, where
# that can be done: elsewhere the tour has another client.
#
# No package is removed for another one: where Docker's own packages are, install what is lacking by hand.
set -euo pipefail
cd "$(dirname "$0")"
PATH=$PATH:/usr/sbin:/sbin # where some programs are that are looked for
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
  "docker.io dockerd"
  "podman podman"
  "skopeo skopeo"
  "nginx /usr/sbin/nginx"
  "strace strace"
  "systemd /usr/bin/systemd-analyze" # which checks units, and runs nothing
  "prometheus prometheus" # with promtool
  "iproute2 /sbin/ip"
  "file file"
  "rpm rpm"
  "zsh zsh"
  "fish fish"
  "bash-completion /usr/share/bash-completion/bash_completion"
  "gcc gcc"           # the race detector links with it
  "libc6-dev /usr/include/stdlib.h"
  "ca-certificates /etc/ssl/certs/ca-certificates.crt"
)
if [ "${1:-}" = kubernetes ]; then
  packages+=("etcd-server /usr/bin/etcd")
fi
if [ "${1:-}" = tour ]; then
  packages=("containerd /usr/bin/containerd" "runc runc" "iproute2 /sbin/ip")
fi
missing=()
for entry in "${packages[@]}"; do
  read -r package proof <<<"$entry"
  if ! command -v "$proof" >/dev/null && [ ! -e "$proof" ]; then
    missing+=("$package")
  fi
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    if [ "${1:-}" = tour ]; then
      say "there is no containerd, and it can't be installed without root on Debian: the tour's client is a library's"
      exit 0
    fi
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
  apt-get install -q -y --no-remove --no-install-recommends "${missing[@]}"
fi
if [ "${1:-}" = tour ]; then
  exit 0
fi
case "$(/usr/bin/containerd --version)" in
  *" 1.6."*) ;;
  *)
    say "/usr/bin/containerd is not of the 1.6 line: $(/usr/bin/containerd --version)" >&2
    exit 1
    ;;
esac

# build MODULE PACKAGE VERSION [FOLDER]: a program of that version is in the folder afterwards, or in that one below it.
build() {
  local module=$1 package=$2 version=$3 bin=$bin${4:+/$4} program
  program=$bin/$(basename "${package%/v[0-9]}") # "go install" leaves out the version of the module
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
for program in containerd ctr; do
  build github.com/containerd/containerd/v2 "github.com/containerd/containerd/v2/cmd/$program" "$CONTAINERD_LTS_VERSION" containerd-2.3
done
# "go install" does not take BuildKit, whose go.mod excludes modules: it is built in the module that parses its configuration.
(cd hosts/buildkit && CGO_ENABLED=0 go build -o "$bin/" tool)
# What makes the packages of a release, into Go's cache: "go tool" runs it from there.
(cd .. && go build -modfile=tools/nfpm/go.mod -o /dev/null github.com/goreleaser/nfpm/v2/cmd/nfpm)
build helm.sh/helm/v4 helm.sh/helm/v4/cmd/helm "$HELM_VERSION"
build helm.sh/helm/v3 helm.sh/helm/v3/cmd/helm "$HELM3_VERSION" helm-3
build sigs.k8s.io/kustomize/kustomize/v5 sigs.k8s.io/kustomize/kustomize/v5 "$KUSTOMIZE_VERSION"

# A real chart, from the module that it is part of.
chart=$cache/chart-$(basename "$CHART_PATH")-$CHART_VERSION
if [ ! -d "$chart" ]; then
  say "the chart $CHART_PATH of $CHART_MODULE@$CHART_VERSION"
  module=$(go mod download -json "$CHART_MODULE@$CHART_VERSION" | sed -nE 's/^\s*"Dir": "(.*)",$/\1/p')
  cp -r "$module/$CHART_PATH" "$chart.new"
  chmod -R u+w "$chart.new"
  mv "$chart.new" "$chart"
fi

# kubernetes PROGRAM...: programs of k8s.io/kubernetes. Its go.mod leaves the versions of its parts to the repository that
# it is made in, so "go install" does not take it: here they are written into a module of their own.
kubernetes() {
  local program todo=()
  for program in "$@"; do
    local ask=(--version)
    if [ "$program" = kubectl ]; then
      ask=(version --client)
    fi
    if ! "$bin/$program" "${ask[@]}" 2>/dev/null | grep -qwF "$KUBERNETES_VERSION"; then
      todo+=("k8s.io/kubernetes/cmd/$program")
    fi
  done
  if [ ${#todo[@]} = 0 ]; then
    return
  fi
  say "${todo[*]} $KUBERNETES_VERSION"
  local dir
  dir=$(mktemp -d)
  (
    cd "$dir"
    go mod init kubernetes
    go mod edit -require "k8s.io/kubernetes@$KUBERNETES_VERSION"
    sed -nE 's/^\s+(k8s\.io\/\S+) v0\.0\.0( .*)?$/\1/p' \
      "$(go mod download -json "k8s.io/kubernetes@$KUBERNETES_VERSION" | sed -nE 's/^\s*"GoMod": "(.*)",$/\1/p')" |
      while read -r part; do
        go mod edit -replace "$part=$part@$KUBERNETES_PARTS_VERSION"
      done
    # A chart can ask for the cluster's version.
    CGO_ENABLED=0 go build -mod=mod -trimpath -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=$KUBERNETES_VERSION" \
      -o "$bin/" "${todo[@]}"
  )
  rm -rf "$dir"
}
if [ "${1:-}" = kubernetes ]; then
  build github.com/containerd/containerd/v2 github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 "$CONTAINERD2_VERSION"
  kubernetes kube-apiserver kubelet kubectl kube-controller-manager kube-scheduler kube-proxy
  for plugin in main/bridge main/loopback ipam/host-local meta/portmap; do # the network of pods
    build github.com/containernetworking/plugins "github.com/containernetworking/plugins/plugins/$plugin" "$CNI_PLUGINS_VERSION"
  done
fi
say "everything is there: $bin"
