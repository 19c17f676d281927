package main

// The certificates of the web, for machines that have none of their own, as in the container image. Those of the system go before.
import _ "golang.org/x/crypto/x509roots/fallback"
