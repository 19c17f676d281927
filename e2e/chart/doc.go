// Package chart has the tests of deploy/helm and deploy/kustomize. It is a module of its own for the sake of the types of
// Kubernetes, which are heavy.
//
// UPDATE=1 ("make manifests") writes what the tests compare with: README.md of the chart, the manifests of deploy/kustomize and
// testdata.
package chart
