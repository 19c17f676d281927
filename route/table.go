package route

type Table struct{}
