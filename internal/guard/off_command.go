//go:build unguarded_command

package guard

const off = "command"
