package journal

import (
	"encoding/json"
	"fmt"
)

// storedVersion is the version of storedFailure that is written. A form that this one cannot be read as takes the next
// number; records of a version that a mirror does not know are dropped.
const storedVersion = 1

// storedFailure is a Failure as the table holds it. Fields may be added, and are never renamed.
type storedFailure struct {
	Version int `json:"version,omitempty"` // absent: written before versions, in the form of version 1
	Failure
	Source string `json:"source,omitempty"` // the failure is charged to it; absent: to Client
}

// encodeFailure is the stored form of a failure that is charged to a source.
func encodeFailure(f Failure, source string) ([]byte, error) {
	return json.Marshal(storedFailure{storedVersion, f, source})
}

// decodeFailure reads the stored form.
func decodeFailure(b []byte) (f Failure, source string, err error) {
	var s storedFailure
	if err := json.Unmarshal(b, &s); err != nil {
		return f, "", err
	}
	if s.Version > storedVersion {
		return f, "", fmt.Errorf("version %d is newer than %d", s.Version, storedVersion)
	}
	s.Declined = s.Outcome == Declined
	return s.Failure, s.Source, nil
}
