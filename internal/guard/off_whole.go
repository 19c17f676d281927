//go:build unguarded_whole

package guard

const off = "whole"
