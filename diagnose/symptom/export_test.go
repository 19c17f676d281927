package symptom

import "regexp/syntax"

// Word is the word of a pattern, see phrases.
func Word(pattern string) string {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		panic(err)
	}
	return word(tree)
}

// MostPairs bounds the pairs that Join compares.
const MostPairs = mostPairs

// Join joins failures, one entry each, and returns how often each counts then and how many pairs were compared.
func Join(list []Failure) (totals []int64, pairs int) {
	all := entriesOf(list)
	pairs = mostPairs - join(all)
	return totalsOf(all), pairs
}

// JoinUnnamed joins entries without an image or tag with entries that have one, and JoinEach does so by comparing each pair.
func JoinUnnamed(list []Failure) []int64 {
	all, left := entriesOf(list), mostPairs
	unnamed(all, &left)
	return totalsOf(all)
}

func JoinEach(list []Failure) []int64 {
	all := entriesOf(list)
	for _, e := range all {
		if e.key.id != "" || e.total == 0 {
			continue
		}
		var n int64
		for _, o := range all {
			if o != e && o.total > 0 && o.key.id == "" && o.names(e) {
				n += o.total
			}
		}
		e.total = max(0, e.total-n)
	}
	return totalsOf(all)
}

func entriesOf(list []Failure) (all []*entry) {
	for _, f := range list {
		e := &entry{key: group{reason: f.Reason, image: f.Image, id: f.ID}, tally: &tally{image: f.Image, host: f.Host}, by: logged, total: f.Count}
		if f.Image == "" {
			e.key.host = f.Host
		}
		all = append(all, e)
	}
	return all
}

func totalsOf(all []*entry) (totals []int64) {
	for _, e := range all {
		totals = append(totals, e.total)
	}
	return totals
}
