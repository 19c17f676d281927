package transfer

// WorthRepeating is the retry policy of a transfer after err.
func WorthRepeating(err error, first, extra bool) bool { return worthRepeating(err, first, extra) }
