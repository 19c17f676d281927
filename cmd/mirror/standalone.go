package main

import (
	"github.com/spf13/cobra"
)

// within does work with a running mirror, or with --standalone with one in this process.
func (f *warmFlags) within(_ *cobra.Command, work func() error) error {
	return work()
}
