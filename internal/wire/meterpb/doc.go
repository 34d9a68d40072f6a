// Package meterpb is the Go code generated from proto/meter/v1/meter.proto. Only package wire and the two ends of the wire
// use it; `make proto` writes it again.
package meterpb
