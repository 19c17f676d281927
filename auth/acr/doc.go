// Package acr logs in to Azure's registries as the identity that the mirror runs as, without Azure's SDK.
//
// Promise: a token of Entra for the registries' audience is traded, at the registry itself, for a refresh token of three
// hours, which is fetched again ahead of its end. It goes to registries of Azure's own domains alone, label by label, and
// Entra's token goes to the one registry that it was fetched for. No error holds a token or a secret.
//
// Identities come from the first of the places where Azure's tools look: a workload identity (AZURE_FEDERATED_TOKEN_FILE), a client secret
// in the environment (AZURE_CLIENT_SECRET), else the machine's managed identity. Not from az login.
package acr
