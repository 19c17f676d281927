package admin

import (
	_ "embed"
	"net/http"
)

// document describes the API. Tests hold it against the routes, the parameters and the types.
//
//go:embed openapi.yaml
var document []byte

func openAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/yaml")
	_, _ = w.Write(document)
}
