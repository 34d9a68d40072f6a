package main

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/wattlet/wattlet/internal/energy"
	"github.com/wattlet/wattlet/internal/metersim"
)

// simulatedMeter is a meter without hardware: the simulator, or the firmware as a process.
type simulatedMeter interface {
	Run(ctx context.Context) error
	Close() error
	URL() string
	Addr() *net.UDPAddr
	Now() time.Duration
	Truth(channel uint32) energy.Energy
	TruthAt(channel, bootID uint32, tUs uint64) (energy.Energy, bool)
}

// meterFlags say which.
type meterFlags struct {
	Meter   string `enum:"go,firmware" default:"go" help:"Which meter: go, the simulator, or firmware, the meter's own as a process; default ${default}."`
	Program string `name:"meter.program" type:"existingfile" placeholder:"FILE" help:"The firmware's program (make firmware); default beside wattctl."`
}

// listen makes the meter. Its error wraps metersim.ErrOptions if it cannot be such a meter.
func (f meterFlags) listen(o metersim.Options, identity string, key []byte) (simulatedMeter, error) {
	if f.Meter != "firmware" {
		o.PSK = metersim.OneKey(identity, key)
		return metersim.Listen(o)
	}
	program := f.Program
	if program == "" {
		var err error
		if program, err = findProgram("wattlet-meter"); err != nil {
			return nil, usagef("no wattlet-meter beside wattctl or in PATH; make firmware makes it, or give --meter.program")
		}
	}
	return metersim.NewFirmware(metersim.FirmwareOptions{Options: o, Program: program, Identity: identity, Key: func() []byte { return key }})
}

// findProgram returns the path of a program beside this one, or in PATH.
func findProgram(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	return exec.LookPath(name)
}
