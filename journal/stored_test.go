package journal_test

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

func golden(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(strings.TrimSpace(string(b)))
}

const storedKey = "failed/7f3a9c2e"

// wholeFailure is a failure with a value in each field, as both golden files have it.
func wholeFailure() journal.Failure {
	return journal.Failure{
		Finding: diagnose.Finding{
			Reason: diagnose.CredentialsExpired, Class: diagnose.ClassAuth, Summary: "docker.io says that hub has expired",
			Remedy: "renew hub", Evidence: []string{"token auth.docker.io: status 401"}, Upstream: "docker.io",
			Host: "auth.docker.io", Stage: "token", Status: 401,
		},
		ID: "7f3a9c2e", Image: "docker.io/acme/app:v1", Platform: "linux/arm64", Outcome: journal.Failed, Client: "node-1",
		UserAgent: "containerd/2.1.4", Clients: map[string]int64{"node-1": 2, "node-2": 1}, Count: 3,
		FirstSeen: time.Date(1999, 12, 31, 22, 0, 0, 0, time.UTC), LastSeen: time.Date(1999, 12, 31, 23, 30, 0, 0, time.UTC),
	}
}

// The stored form can change apart from the failure, which can change apart from its form in the API: neither a failure nor
// a part of it has JSON, and the stored form has no part of another type with fields.
func TestStoredFailureIsApart(t *testing.T) {
	t.Parallel()
	for _, typ := range []reflect.Type{
		reflect.TypeFor[journal.Failure](), reflect.TypeFor[diagnose.Finding](), reflect.TypeFor[journal.Summary](),
	} {
		for f := range typ.Fields() {
			if _, ok := f.Tag.Lookup("json"); ok {
				t.Errorf("%s.%s has JSON; it belongs to the stored form, or to package admin", typ, f.Name)
			}
		}
	}
	notStored := []string{"Short", "Alone", "Declined", "RetryAfter"} // Declined is in the outcome; the others are for the client's answer
	whole := wholeFailure()
	for _, v := range []reflect.Value{reflect.ValueOf(whole), reflect.ValueOf(whole.Finding)} {
		for f, value := range v.Fields() {
			if value.IsZero() && !slices.Contains(notStored, f.Name) {
				t.Errorf("no test stores %s", f.Name)
			}
		}
	}
	for f := range reflect.TypeFor[journal.StoredFailure]().Fields() {
		if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[time.Time]() || f.Tag.Get("json") == "" {
			t.Errorf("the stored form has %s %s %s; each of its fields is its own, with a name", f.Name, f.Type, f.Tag)
		}
	}
}

// A mirror reads what earlier versions have stored. It writes nothing back that has not changed.
func TestStoredFailuresAreRead(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"failure-unversioned.json", "failure-v1.json"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { // its clock begins at 2000-01-01
				table := statetest.NewTable()
				if err := table.Write([]state.Item{{Key: storedKey, Value: golden(t, file)}}); err != nil {
					t.Fatal(err)
				}
				writes := table.Writes()
				record := journal.NewRecord(table, nil)
				if diff := cmp.Diff([]journal.Failure{wholeFailure()}, record.Failures(journal.Filter{})); diff != "" {
					t.Errorf("read (-want +got):\n%s", diff)
				}
				bubbled(t, journal.Options{Record: record}, func(*journal.Journal) { pass(time.Minute) })
				if n := table.Writes() - writes; n != 0 {
					t.Errorf("%d writes of a record that has not changed", n)
				}
			})
		})
	}
}

// The form that is written now is that of the golden file, after one more pull.
func TestStoredFailuresAreWritten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := statetest.NewTable()
		if err := table.Write([]state.Item{{Key: storedKey, Value: golden(t, "failure-unversioned.json")}}); err != nil {
			t.Fatal(err)
		}
		f := wholeFailure()
		bubbled(t, journal.Options{Record: journal.NewRecord(table, nil)}, func(j *journal.Journal) {
			r := asked(oci.KindManifest, "v1", of("acme/app", "node-1", failing(f.Reason, f.ID)))
			r.Finding, r.UserAgent, r.Source = &f.Finding, f.UserAgent, "10.0.0.1"
			j.Observe(r)
			pass(6 * time.Second)
		})
		it, err := table.Get(storedKey)
		if err != nil {
			t.Fatal(err)
		}
		var got, want map[string]any
		if err := json.Unmarshal(it.Value, &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(golden(t, "failure-v1.json"), &want); err != nil {
			t.Fatal(err)
		}
		want["count"], want["lastSeen"], want["clients"] = 4.0, "2000-01-01T00:00:00Z", map[string]any{"node-1": 3.0, "node-2": 1.0}
		delete(want, "platform") // of the last time
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("written (-want +got):\n%s", diff)
		}
	})
}

// A record that can't be read is dropped with a line in the log, and removed from the table. The others are kept.
func TestUnknownRecordsAreDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := statetest.NewTable()
		newer := strings.Replace(string(golden(t, "failure-v1.json")), `"version":1`, `"version":2`, 1)
		if err := table.Write([]state.Item{
			{Key: "x", Value: []byte("{")},
			{Key: "failed/1", Value: []byte(`{"id":"2","outcome":"failed"}`)},
			{Key: "served/1", Value: []byte(`{"id":"1","outcome":"served"}`)},
			{Key: storedKey, Value: []byte(newer)},
			{Key: "failed/aaaaaaaa", Value: []byte(`{"id":"aaaaaaaa","outcome":"failed","count":1,"lastSeen":"1999-12-31T23:00:00Z"}`)},
		}); err != nil {
			t.Fatal(err)
		}
		log := &lines{}
		record := journal.NewRecord(table, log.logger())
		if got := log.take(); len(got) != 1 || !strings.Contains(got[0], "in an unknown form are dropped") ||
			!strings.Contains(got[0], "count=4") {
			t.Errorf("logged: %q", got)
		}
		if got := shown(t, record, journal.Filter{}); len(got) != 1 || !strings.HasPrefix(got[0], "aaaaaaaa ") {
			t.Errorf("read: %q", got)
		}
		bubbled(t, journal.Options{Record: record}, func(*journal.Journal) { pass(6 * time.Second) })
		if n := items(t, table); n != 1 {
			t.Errorf("%d items are left in the table, want 1", n)
		}
	})
}
