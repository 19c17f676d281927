package journal

// StoredFailure is the form in which the table holds a failure.
type StoredFailure = storedFailure

// Dropped is how many events were lost since the start because more came than could be recorded.
func (j *Journal) Dropped() int64 { return j.queue.lost() }
