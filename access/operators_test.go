package access_test

import (
	"slices"
	"testing"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/oci"
)

func TestOperators(t *testing.T) {
	t.Parallel()
	o := access.NewOperators(
		access.OperatorRule{Who: []string{"reader", "sre-*"}, May: access.Read},
		access.OperatorRule{Who: []string{"sre-*"}, May: access.Operate, Images: []string{"docker.io/acme/**", "*/shared/*"}},
		access.OperatorRule{Who: []string{"team"}, May: access.Operate, Images: []string{"docker.io/acme/app"}},
		access.OperatorRule{Who: []string{"root"}, May: access.Operate},
		access.OperatorRule{Who: []string{"nothing"}},
	)
	rival := oci.Repo{Host: "docker.io", Name: "rival/app"}
	shared := oci.Repo{Host: "ghcr.io", Name: "shared/app"}
	for _, tt := range []struct {
		name  string
		scope *access.Scope
		may   map[access.Right][]oci.Repo // of acme, other, rival, shared
		all   []access.Right
		some  []access.Right
	}{
		{"a reader", o.Scope("reader"), map[access.Right][]oci.Repo{access.Read: {acme, other, rival, shared}}, []access.Right{access.Read}, []access.Right{access.Read}},
		{
			"rights add up", o.Scope("sre-1"),
			map[access.Right][]oci.Repo{access.Read: {acme, other, rival, shared}, access.Operate: {acme, other, shared}},
			[]access.Right{access.Read},
			[]access.Right{access.Read, access.Operate},
		},
		{"to operate is to read", o.Scope("team"), map[access.Right][]oci.Repo{access.Read: {acme}, access.Operate: {acme}}, nil, []access.Right{access.Read, access.Operate}},
		{
			"everything", o.Scope("root"),
			map[access.Right][]oci.Repo{access.Read: {acme, other, rival, shared}, access.Operate: {acme, other, rival, shared}},
			[]access.Right{access.Read, access.Operate},
			[]access.Right{access.Read, access.Operate},
		},
		{"a rule without a right", o.Scope("nothing"), nil, nil, nil},
		{"a name that is longer", o.Scope("reader2"), nil, nil, nil},
		{"a name with capitals", o.Scope("Reader"), nil, nil, nil},
		{"no name", o.Scope(""), nil, nil, nil},
		{"no rules", (*access.Operators)(nil).Scope("reader"), nil, nil, nil},
		{"no scope", nil, nil, nil, nil},
	} {
		for _, right := range []access.Right{0, access.Read, access.Operate, 7, -1} {
			if got := tt.scope.AllowsAll(right); got != slices.Contains(tt.all, right) {
				t.Errorf("%s: all, %s: %v", tt.name, right, got)
			}
			if got := tt.scope.AllowsSome(right); got != slices.Contains(tt.some, right) {
				t.Errorf("%s: some, %s: %v", tt.name, right, got)
			}
			for _, repo := range []oci.Repo{acme, other, rival, shared} {
				if got := tt.scope.Allows(right, repo); got != slices.Contains(tt.may[right], repo) {
					t.Errorf("%s: %s %s: %v", tt.name, right, repo, got)
				}
			}
		}
	}
}
