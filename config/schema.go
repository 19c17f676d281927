package config

import _ "embed"

// schema is made from the struct and its comments by TestSchemaIsCurrent, which also holds it against them.
//
//go:embed schema.json
var schema []byte

// Schema is the JSON schema (draft 2020-12) of the file, for editors. It knows all that can be told without looking at
// two values at once; Parse knows more.
func Schema() []byte { return append([]byte(nil), schema...) }
