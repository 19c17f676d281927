// Package strictyaml reads a YAML document and environment variables into a struct, and reports every mistake at once,
// each with its line and column, or with its variable, and with what to write instead.
//
//	schema := strictyaml.New(Config{}, strictyaml.Options{EnvPrefix: "APP_"})
//	c := defaults()
//	doc := schema.Decode("app.yaml", data, os.Environ(), &c)
//	if doc.Readable {
//		doc.Report(c.check()...) // what no single type shows
//	}
//	if err := doc.Err(); err != nil { // *Invalid
//
// The struct is the schema. Its fields are
//
//   - string, bool, int (from 1 on), time.Duration, or a type with UnmarshalText and String: one value;
//   - a struct: a mapping with keys; a pointer to one: a mapping that may be there without keys;
//   - a slice: a list; if its items are Keyed: a mapping from their keys, in the order of the document;
//   - a map with strings as keys.
//
// Tags of a field:
//
//	yaml:"KEY"           its key; a field without the tag, or with "-", is not a setting
//	yaml:"KEY,short"     a plain value in place of the struct sets this field
//	yaml:"KEY,omitzero"  Print leaves it out if it has the zero value
//	enum:"a,b"           the words that are allowed
//	path:"..."           the value names a file or folder; the word is for the program, see Visit
//	reload:"restart"     a running program does not take up another value
//
// Guarantees:
//   - Strict: an unknown key, a key set twice, a value of the wrong type and a second document are mistakes.
//   - Decoding goes on after a mistake, and ends whatever the aliases of a document point at: it reads at most 4 MiB and
//     50,000 values.
//   - A message never shows what stands before an @, which may be a password.
//   - What Print writes, Decode reads back as the same values.
//
// It reads no file, and knows nothing of what the settings are for.
package strictyaml
