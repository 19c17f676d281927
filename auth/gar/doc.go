// Package gar logs in to Google's registries, Artifact Registry and Container Registry, without Google's SDK.
//
// Promise: an access token is asked for as whoever the mirror runs as (the metadata server of a machine or of GKE's
// Workload Identity), or with a service account's key where one is named, and is given for Google's own registries alone,
// label by label. It lives an hour at most, so one is fetched ahead of its end. No error holds a key or a token.
//
// It knows no gcloud, no user's login, and no federation of other clouds' identities: of those an error says so.
package gar
