//go:build unguarded_reference

package guard

const off = "reference"
