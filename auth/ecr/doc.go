// Package ecr logs in to Amazon's registries, private and public, as the AWS tools do, without their SDK.
//
// Promise: a login is requested at the service of the region in a registry's name, and nowhere else; the name is checked label
// by label, up to AWS's own domain. Requests are signed by Signature Version 4; if the clock of this machine is wrong,
// with AWS's time. No error holds a key, a token or a signed text.
//
// Keys come from the first of the places where the AWS tools look: AWS_ACCESS_KEY_ID and similar variables; a web identity
// (IRSA); the container's endpoint (EKS Pod Identity, ECS); the instance (IMDSv2 alone). Not from ~/.aws, profiles, or SSO.
package ecr
