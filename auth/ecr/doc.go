// Package ecr logs in to Amazon's registries, private and public, as the AWS tools do, without their SDK.
//
// Promise: a login is asked for at the service of the region that a registry's name says, and of no other place; which
// names are such is decided label by label, up to AWS's own domain. Requests are signed by Signature Version 4; where the
// clock of this machine is wrong, with AWS's. No error holds a key, a token or what was signed.
//
// Keys come from where the AWS tools look first: AWS_ACCESS_KEY_ID and its siblings; a web identity (IRSA); the
// container's endpoint (EKS Pod Identity, ECS); the instance (IMDSv2 alone). Not from ~/.aws, profiles, or SSO.
package ecr
