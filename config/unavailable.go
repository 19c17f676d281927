package config

import "github.com/registrymirror/mirror/internal/strictyaml"

// unavailable lists the settings that have a name and a meaning but aren't built yet. A file that sets one is refused: a
// setting that is accepted works. A row is deleted with the change that builds it.
var unavailable = map[string]strictyaml.Unavailable{}
