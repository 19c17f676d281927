// Package gar logs in to Google's registries, Artifact Registry and Container Registry, without Google's SDK.
//
// Promise: an access token is requested for the mirror's own identity (at the metadata server of a machine or of GKE's
// Workload Identity), or with a service account's key if one is named, and is given for Google's own registries alone,
// label by label. It lives an hour at most, so one is fetched ahead of its end. No error holds a key or a token.
//
// It does not read gcloud's files, users' logins, or federated identities of other clouds: an error says so.
package gar
