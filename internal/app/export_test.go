package app

import "net"

// MetricsAddr is where metrics have a listener of their own.
func (a *App) MetricsAddr() net.Addr { return a.listeners.metrics.Addr() }

// Within is within.
var Within = within
