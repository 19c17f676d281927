package symptom

import "regexp/syntax"

// Word is the word by which a pattern is looked for.
func Word(pattern string) string {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		panic(err)
	}
	return word(tree)
}
