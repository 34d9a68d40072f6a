// Package conntrack stands in for github.com/mwitkow/go-conntrack when this repository is built, see
// docs/adr/0005-small-agent.md: it dials without tracing.
package conntrack

import (
	"context"
	"net"
)

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Option changes how connections are dialled.
type Option func(*dialFunc)

// DialWithTracing is without effect here.
func DialWithTracing() Option { return func(*dialFunc) {} }

// DialWithName is without effect here.
func DialWithName(string) Option { return func(*dialFunc) {} }

// DialWithDialContextFunc dials by dial.
func DialWithDialContextFunc(dial dialFunc) Option { return func(f *dialFunc) { *f = dial } }

// NewDialContextFunc returns the function that dials.
func NewDialContextFunc(options ...Option) dialFunc {
	dial := (&net.Dialer{}).DialContext
	for _, o := range options {
		o(&dial)
	}
	return dial
}
