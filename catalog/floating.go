package catalog

import "regexp"

// single are the names of tags that stand for one build: a version of three numbers, the sum of a commit, or a number of eight
// digits and more, as a date or a build has.
var single = regexp.MustCompile(`(^|[^0-9])\d+\.\d+\.\d+|(^|[-_.])[0-9a-f]{7,64}$|\d{8}`)

// Floating reports whether a tag may mean another image tomorrow: it has moved before, or its name is not that of one build,
// as latest, main and 1.27.
func Floating(t Tag) bool { return len(t.History) > 1 || !single.MatchString(t.Ref.Tag) }
