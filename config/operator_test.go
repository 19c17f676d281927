package config_test

import "testing"

// Operators are keys as a tokenFile is: they open the admin listener to other machines.
func TestOperatorsAreKeys(t *testing.T) {
	t.Parallel()
	c := parse(t, "admin: {listen: '10.0.0.1:5001', operators: {tokens: t, rights: [{who: ['*'], may: read}, "+
		"{who: [a-*], may: operate, images: ['**', 'docker.io/acme/*']}]}}\n")
	if !c.Admin.HasKeys() || len(c.Admin.Operators.Rights) != 2 {
		t.Errorf("%+v", c.Admin)
	}
}
