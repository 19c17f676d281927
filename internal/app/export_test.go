package app

import (
	"net"

	"github.com/registrymirror/mirror/warm"
)

// MetricsAddr is where metrics have a listener of their own.
func (a *App) MetricsAddr() net.Addr { return a.listeners.metrics.Addr() }

// Within is within.
var Within = within

// Warm is the engine of pulls ahead of time.
func (a *App) Warm() *warm.Engine { return a.warm }
